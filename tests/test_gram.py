"""Stage `gram` of the native library: the smaller Gram matrix and the row norms, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import truth

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.kinds]
every_option = pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5), (5, 7), (33, 31), (144, 128), (64, 144), (1030, 70), (3, 5, 32, 16)]


def assert_gram(x: torch.Tensor, normalize: bool, center: bool) -> None:
    gram, row_norms = truth.kernels.gram(x, normalize=normalize, center=center)
    full = truth.to_numpy(x)
    e = truth.embedding(full, normalize, center)
    expected = e.swapaxes(-1, -2) @ e if truth.is_tall(x.shape, center) else e @ e.swapaxes(-1, -2)
    assert gram.dtype == row_norms.dtype == torch.float64
    assert gram.shape == expected.shape
    assert torch.equal(gram, gram.mT)
    # Cauchy-Schwarz bounds the sum of the absolute products; centring leaves the rounding of what it is taken off, also
    # where the rows are alike and nothing else is left.
    before = np.linalg.norm(truth.embedding(full, normalize), axis=(-2, -1), keepdims=True)
    size = before * (np.linalg.norm(e, axis=(-2, -1), keepdims=True) + 1e-15 * before) if center else before**2
    assert (np.abs(truth.to_numpy(gram) - expected) <= 1e-15 * size).all()
    if normalize:
        np.testing.assert_allclose(truth.to_numpy(row_norms), truth.row_norms(full)[..., 0], rtol=1e-15)
    else:
        assert row_norms.shape == (*x.shape[:-2], 0)


@every_option
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_and_dtype(shape, dtype, options):
    assert_gram(truth.random(*shape, dtype=dtype), **options)


@every_option
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(288, 256), (300, 512), (512, 300)], ids=str)
def test_one_large_matrix_on_two_threads(two_threads, shape, dtype, options):
    assert_gram(truth.random(*shape, dtype=dtype), **options)


@every_option
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=str)
def test_strides(shape, dtype, options):
    wide = truth.random(2, 2 * shape[0], 2 * shape[1], dtype=dtype)
    assert_gram(wide[:, ::2, 1::2], **options)
    assert_gram(truth.random(2, *shape[::-1], dtype=dtype).mT, **options)
    assert_gram(truth.random(1, *shape, dtype=dtype).expand(3, *shape), **options)
    assert_gram(truth.random(1, shape[1], dtype=dtype).expand(*shape), **options)


@every_option
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_scales_from_1e_minus_30_to_1e30(dtype, options):
    x = truth.random(40, 24, dtype=torch.float64)
    for scale in (1e-30, 1e30):
        assert_gram((x * scale).to(dtype), **options)
    rows = x * torch.logspace(-30, 30, 40, dtype=torch.float64)[:, None]
    assert_gram(rows.to(dtype), normalize=True, center=options["center"])


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=str)
def test_zero_rows_count_as_zero(shape, dtype, center):
    x = truth.random(*shape, dtype=dtype)
    x[::5] = 0
    assert_gram(x, normalize=True, center=center)
    assert (truth.kernels.gram(x, normalize=True, center=center)[1][::5] == 0).all()


@pytest.mark.parametrize("noise", [1e-3, 1e-5, 1e-7])
def test_centering_at_collapse_does_not_cancel(noise):
    """G - b mu mu^T is off by 1e-16 b; with the mean taken off first, by 1e-16 b noise."""
    x = (truth.random(1, 24, dtype=torch.float64) + noise * truth.random(40, 24, dtype=torch.float64, seed=1)).float()
    gram, _ = truth.kernels.gram(x, normalize=False, center=True)
    exact = truth.to_numpy(x).astype(np.longdouble)
    exact = exact - exact.mean(0)
    np.testing.assert_allclose(truth.to_numpy(gram), (exact.T @ exact).astype(float), rtol=0, atol=40 * noise * 1e-15)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@every_option
def test_nan_stays_in_its_matrix(poison, options):
    clean = truth.random(3, 40, 24)
    dirty = clean.clone()
    dirty[1, 7, 3] = poison
    before, after = (truth.kernels.gram(x, **options)[0] for x in (clean, dirty))
    assert torch.equal(before[::2], after[::2])
    assert not after[1].isfinite().all()
