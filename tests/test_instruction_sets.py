"""The same kernels compiled for each instruction set: all that this processor runs, not only the one it would take."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from svmax_ops import nuclear_norm, svdvals, svmax_loss
from svmax_ops.backends import native as library
from tests import truth
from tests.available import INSTRUCTION_SETS, here

pytestmark = [pytest.mark.usefixtures("native"), pytest.mark.parametrize("native", ["cpu"], indirect=True)]


@pytest.fixture(params=here(*INSTRUCTION_SETS))
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = library.instruction_set()
    library.use_instruction_set(request.param)
    yield request.param
    library.use_instruction_set(before)


def gradient(function, x: torch.Tensor, **options: bool) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x, **options).sum(), x)[0]


def test_an_unknown_instruction_set_is_refused():
    before = library.instruction_set()
    with pytest.raises(RuntimeError, match="'sse9' is not built in or does not run here"):
        library.use_instruction_set("sse9")
    assert library.instruction_set() == before


def test_the_baseline_is_always_there():
    before = library.instruction_set()
    library.use_instruction_set("baseline")
    assert library.instruction_set() == "baseline"
    library.use_instruction_set(before)


@pytest.mark.parametrize("name", truth.spectra())
def test_every_spectrum(instruction_set, name):
    assert library.instruction_set() == instruction_set
    x = torch.from_numpy(truth.embedding(truth.spectra()[name], normalize=True)).float()
    for matrix in (x, x.mT, x[:100, :77], x[:33, :9].mT):
        e = truth.to_numpy(matrix)
        s = np.linalg.svd(e, compute_uv=False)
        assert nuclear_norm(matrix).item() == pytest.approx(s.sum(), rel=2e-7)
        error = truth.polar_error(truth.to_numpy(gradient(nuclear_norm, matrix)), e)
        assert error.excess <= truth.POLAR_EXCESS
        assert error.in_directions <= truth.polar_tolerance(s, torch.float32)
        assert np.abs(truth.to_numpy(svdvals(matrix)) - s).max() <= 2e-7 * s[0]


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (40, 24), (24, 40), (144, 128), (300, 256), (256, 300)], ids=str)
def test_every_shape_and_dtype(instruction_set, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    full = truth.to_numpy(x)
    expected = truth.value(full, "nuclear_norm", **options)
    np.testing.assert_allclose(nuclear_norm(x, **options).item(), expected, rtol=2e-7)
    expected = truth.gradient(full, "nuclear_norm", **options)
    rounding = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}.get(dtype, 0)
    actual = truth.to_numpy(gradient(nuclear_norm, x, **options))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=(4e-6 + rounding) * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (300, 256)], ids=str)
def test_zero_rows_and_nan(instruction_set, shape):
    x = truth.random(2, *shape)
    x[0, ::5] = 0
    x[1, 3, 2] = float("nan")
    dx = gradient(svmax_loss, x)
    assert (dx[0, ::5] == 0).all()
    assert dx[0].isfinite().all()
    assert dx[1].isnan().all()
    assert svmax_loss(x)[1].isnan()


def test_bitwise_repeatable_whatever_the_number_of_threads(instruction_set, two_threads):
    x = truth.random(300, 256)
    first = svmax_loss(x), gradient(svmax_loss, x)
    torch.set_num_threads(1)
    assert torch.equal(svmax_loss(x), first[0])
    assert torch.equal(gradient(svmax_loss, x), first[1])
