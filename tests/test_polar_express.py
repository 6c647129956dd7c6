"""Matrices beyond one thread block, by matrix products alone (csrc/cuda/polar_express.h): results. Its coefficients are
tested in steps/test_quintics.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.matrices import matrices
from tests import truth

SHAPES = [(200, 256), (288, 256), (256, 256)]
SPECTRA = [
    "random",
    "decay",
    "two levels",
    "rank 8",
    "rank 1",
    "rows twice",
    *(f"collapse 1e-{k}" for k in range(1, 8)),
]


def spectrum(name: str, b: int, d: int) -> np.ndarray:
    """Row-normalised [b, d], rounded to float32 before."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, d))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    n = len(s)
    if name == "decay":
        x = u * np.geomspace(1, 1e-6, n) @ vt
    elif name == "two levels":  # half of the directions at the end of what must be right
        x = u * np.where(np.arange(n) % 2, 1, 2e-4) @ vt
    elif name == "rank 8":
        x = u[:, :8] @ vt[:8]
    elif name == "rank 1":
        x = np.ones((b, 1)) @ x[:1]
    elif name == "rows twice":
        x = np.repeat(x[: b // 2], 2, 0)
    elif name.startswith("collapse"):
        x = matrices(name, b, d)
    return x.astype(np.float32).astype(float)


def objective(x: np.ndarray, **options: bool) -> tuple[torch.Tensor, np.ndarray]:
    """The nuclear norm, and W."""
    options = {"normalize": True, "center": False, "need_gradient": True} | options
    norm, w, _, _ = truth.kernels.objective(truth.tensor(x).float(), objective="nuclear_norm", **options)
    return norm, truth.to_numpy(w)


def polar(e: np.ndarray, w: np.ndarray) -> np.ndarray:
    return e @ w if e.shape[0] >= e.shape[1] else w @ e


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_every_spectrum_keeps_the_contract(name, shape):
    x = spectrum(name, *shape)
    e = truth.embedding(x, normalize=True)
    norm, w = objective(x)
    s = np.linalg.svd(e, compute_uv=False)
    assert norm.item() == pytest.approx(s.sum(), rel=truth.NUCLEAR_RTOL[torch.float32])
    error = truth.polar_error(polar(e, w), e)
    assert error.excess <= truth.POLAR_EXCESS
    assert error.in_directions <= truth.polar_tolerance(s, torch.float32)
    assert objective(x, need_gradient=False)[0] == norm


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", SPECTRA)
def test_of_a_gram_matrix_alone_the_polar_factor_is_as_good(name):
    """The nuclear norm is not, where a Gram matrix has lost the small singular values (csrc/cuda/by_products.h)."""
    e = truth.embedding(spectrum(name, 288, 256), normalize=True)
    norm, w, _ = truth.kernels.spectral(truth.tensor(e.T @ e), need_inverse_sqrt=True)
    s = np.linalg.svd(e, compute_uv=False)
    assert norm.item() == pytest.approx(s.sum(), rel=5e-9 if s[0] < 1e4 * s[-1] else 1e-5)
    error = truth.polar_error(polar(e, truth.to_numpy(w)), e)
    assert error.excess <= truth.POLAR_EXCESS
    assert error.in_directions <= truth.polar_tolerance(s, torch.float32)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("size", [10, 100])
def test_negative_eigenvalues_of_a_gram_matrix_do_not_run_away(size):
    """Rounding makes them of that many units, where many equal rows are summed."""
    v = np.linalg.qr(truth.to_numpy(truth.random(256, 256, dtype=torch.float64)))[0]
    eigenvalues = np.where(np.arange(256) == 0, 1, -size * np.finfo(float).eps)
    norm, w, _ = truth.kernels.spectral(truth.tensor(v * eigenvalues @ v.T), need_inverse_sqrt=True)
    assert norm.item() == pytest.approx(1, abs=1e-4)
    assert np.linalg.norm(truth.to_numpy(w), 2) <= 1e8


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_rows(shape):
    row = truth.to_numpy(truth.random(1, shape[1]))
    x = np.repeat(row, 20 * shape[0], 0)
    norm, w = objective(x)
    assert norm.item() == pytest.approx(np.sqrt(len(x)), rel=2e-7)
    e = truth.embedding(x, normalize=True)
    assert np.linalg.norm(polar(e, w), 2) == pytest.approx(1, abs=2e-7)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zero_matrix(shape, normalize):
    norm, w = objective(np.zeros(shape), normalize=normalize)
    assert norm == 0
    assert (w == 0).all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_nan_stays_in_its_matrix(shape, poison, options):
    x = truth.to_numpy(truth.random(3, *shape))
    clean_norm, clean_w = objective(x, **options)
    x[1, 7, 3] = poison
    norm, w = objective(x, **options)
    assert norm[1].isnan()
    assert np.isnan(w[1]).all()
    assert torch.equal(norm[::2], clean_norm[::2])
    assert np.array_equal(w[::2], clean_w[::2])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale(scale):
    x = truth.to_numpy(truth.random(288, 256))
    norm, _ = objective(x, normalize=False)
    scaled, _ = objective(x * scale, normalize=False)
    assert scaled.item() / scale == pytest.approx(norm.item(), rel=2e-7)
