"""The stages that `group=` stops between: those of `reference` against those of `native` and against NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.matrices import matrices
from svmax_ops.backends import BACKENDS
from svmax_ops.linalg import spectral_of_rows
from tests import truth

native, reference = BACKENDS[0], BACKENDS[-1]
every_option = pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
every_shape = pytest.mark.parametrize("shape", [(1, 1), (7, 5), (5, 7), (144, 128), (64, 144), (3, 5, 32, 16)], ids=str)


@every_option
@every_shape
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_gram(shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    x[..., :1, :] = 0
    (gram, norms), (expected, expected_norms) = (stages.gram(x, **options) for stages in (reference, native))
    assert gram.dtype == norms.dtype == torch.float64
    assert gram.shape == expected.shape
    assert norms.shape == expected_norms.shape
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-14 * max(expected.abs().max().item(), 1))
    torch.testing.assert_close(norms, expected_norms, rtol=1e-14, atol=0)


# Those that the kernels are tested on, and larger and smaller ones at collapse.
SPECTRA = truth.spectra() | {
    f"{b}x{d} {spectrum}": matrices(spectrum, b, d)
    for b, d in ((300, 256), (40, 24))
    for spectrum in ("collapse 1e-3", "collapse 1e-5", "collapse 1e-6", "collapse 1e-7")
}


def tall_embedding(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E, with zero rows below where b < d, and its singular values."""
    e = truth.embedding(x, normalize=True)
    e = np.concatenate([e, np.zeros((max(e.shape[1] - len(e), 0), e.shape[1]))])
    return e, np.linalg.svd(e, compute_uv=False)


def assert_spectral(
    results: Callable[[bool], tuple[torch.Tensor, ...]], e: np.ndarray, s: np.ndarray, rtol: float
) -> None:
    norm, weight = results(True)[:2]
    assert abs(norm.item() / s.sum() - 1) <= rtol
    error = truth.polar_error(e @ weight.numpy(), e)
    assert error.in_directions <= truth.polar_tolerance(s, torch.float64 if rtol == 1e-12 else torch.float32)
    assert error.excess <= truth.POLAR_EXCESS
    alone, nothing = results(False)[:2]
    assert abs(alone.item() / s.sum() - 1) <= rtol
    assert nothing.shape == (0, 0)


@pytest.mark.parametrize("stages", [reference, native], ids=lambda stages: stages.name)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_spectral(spectrum, stages):
    e, s = tall_embedding(SPECTRA[spectrum].astype(np.float32).astype(float))
    rtol = 6e-7 if spectrum == "rank 1" and stages is reference else 2e-7
    assert_spectral(lambda need: stages.spectral(torch.from_numpy(e.T @ e), need), e, s, rtol)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_spectral_of_rows(spectrum):
    e, s = tall_embedding(SPECTRA[spectrum])
    assert_spectral(lambda need: spectral_of_rows(torch.from_numpy(e), need), e, s, 1e-12)


def test_spectral_of_zeros_and_of_nan():
    gram = torch.zeros(3, 4, 4, dtype=torch.float64)
    gram[1, 2, 2] = float("nan")
    for stages in (reference, native):
        norm, weight, _ = stages.spectral(gram, True)
        assert norm[1].isnan()
        assert weight[1].isnan().all()
        assert (norm[::2] == 0).all()
        assert (weight[::2] == 0).all()


@every_option
@every_shape
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_backward(shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    x[..., :1, :] = 0
    _, norms = native.gram(x, **options)
    n = min(shape[-2:])
    weight = truth.random(*shape[:-2], n, n, dtype=torch.float64, seed=1)
    weight, grad = weight + weight.mT, truth.random(*shape[:-2], seed=2)
    in_float64 = torch.zeros(*shape[:-2], 1, dtype=torch.bool)
    dx, expected = (stages.backward(grad, x, weight, in_float64, norms, **options) for stages in (reference, native))
    assert dx.dtype == expected.dtype == dtype
    # One rounding of the result: the two may fall on neighbouring numbers.
    torch.testing.assert_close(dx.double(), expected.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-12)
    if options["normalize"]:
        assert (dx[..., 0, :] == 0).all()
