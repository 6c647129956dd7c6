"""Stage `spectral` of the native library: N = tr(G^1/2) and W = G^(-1/2), on every spectrum of the verified model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import truth

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.kinds]
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 128, 150, 255, 256, 300, 512]


def spectral(gram: np.ndarray, need_inverse_sqrt: bool = True) -> tuple[np.ndarray, np.ndarray]:
    nuclear_norm, w, in_float32 = truth.kernels.spectral(truth.tensor(gram), need_inverse_sqrt=need_inverse_sqrt)
    assert nuclear_norm.dtype == w.dtype == torch.float64
    assert in_float32.shape == (*gram.shape[:-2], int(need_inverse_sqrt))
    if in_float32.any():  # then W is float32 numbers
        assert torch.equal(w[in_float32[..., 0]], w[in_float32[..., 0]].float().double())
    return truth.to_numpy(nuclear_norm), truth.to_numpy(w)


def at_collapse() -> float:
    """Relative error of N. Triton's products leave out of it what is below 7e-7 of the largest singular value; the
    fused operator, which has E, does not (test_functional.py)."""
    return 1e-5 if truth.kernels is torch.ops.svmax_triton else 2e-7


def polar_of_shift(s: np.ndarray) -> float:
    """Error of P where s > 1e-4 s_1, per direction: half of what is added to s^2, in parts of it. Triton's products
    add it in parts of the Frobenius norm of G, 8 times the largest eigenvalue where 64 are as large."""
    if truth.kernels is not torch.ops.svmax_triton:
        return 0
    from svmax_ops.backends.triton import polar_express

    added = polar_express.SHIFT_OF_GRAM * polar_express.MARGIN * np.linalg.norm(s**2)
    return added / (2 * max(s[-1], 1e-4 * s[0]) ** 2)


def assert_spectral(e: np.ndarray) -> None:
    """N and W of the Gram matrix of e, and the polar factor they give."""
    tall = e.shape[0] >= e.shape[1]
    gram = e.T @ e if tall else e @ e.T
    nuclear_norm, w = spectral(gram)
    s = np.linalg.svd(e, compute_uv=False)
    # The contract at collapse; with a spread spectrum the poles' 4e-9.
    assert nuclear_norm == pytest.approx(s.sum(), rel=at_collapse() if s[0] > 1e3 * s[-1] else 5e-9)
    error = truth.polar_error(e @ w if tall else w @ e, e)
    assert error.excess <= truth.POLAR_EXCESS
    assert error.in_directions <= truth.polar_tolerance(s, torch.float32) + polar_of_shift(s)
    assert np.abs(w - w.T).max() <= 1e-6 * np.abs(w).max()
    alone, none = spectral(gram, need_inverse_sqrt=False)
    assert none.size == 0
    assert alone == pytest.approx(nuclear_norm, rel=5e-9)


@pytest.mark.parametrize("name", truth.spectra())
def test_every_spectrum_of_the_model(name):
    e = truth.embedding(truth.spectra()[name], normalize=True).astype(np.float32).astype(float)
    assert_spectral(e)
    assert_spectral(e[:100])


@pytest.mark.parametrize("n", SIZES)
def test_every_size(n):
    assert_spectral(truth.to_numpy(truth.random(n + n // 4 + 1, n, dtype=torch.float64)))


@pytest.mark.parametrize("n", [2, 9, 33, 128, 300])
@pytest.mark.parametrize("noise", [1e-2, 1e-5])
def test_every_size_at_collapse(n, noise):
    x = truth.to_numpy(truth.random(1, n) + noise * truth.random(n + 5, n, seed=1))
    assert_spectral(truth.embedding(x, normalize=True))


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 300])
def test_matrices_that_are_tridiagonal_already(n):
    """The reflectors of the tridiagonalisation have nothing to reflect."""
    root = np.diag(np.linspace(1, 2, n))
    for e in (np.eye(n), root, root[::-1], root + np.diag(np.full(n - 1, 0.3), 1), np.eye(n) * 1e-3):
        assert_spectral(e)
    blocks = np.kron(np.eye(n), truth.to_numpy(truth.random(3, 3, dtype=torch.float64)) + 3 * np.eye(3))
    assert_spectral(blocks)


@pytest.mark.parametrize("ratio", [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("n", [16, 128])
def test_known_singular_values(n, ratio):
    """From kappa(G) = 1e2 to 1e14: both sides of every threshold between float32, poles and eigenvalues."""
    u, v = (np.linalg.qr(truth.to_numpy(truth.random(n, n, dtype=torch.float64, seed=k)))[0] for k in (1, 2))
    assert_spectral(u * np.geomspace(1, 1 / ratio, n) @ v)
    assert_spectral(u * np.where(np.arange(n) < n // 2, 1, 1 / ratio) @ v)
    assert_spectral(u * np.where(np.arange(n) < 1, 1, 1 / ratio) @ v)


@pytest.mark.parametrize("scale", [1e-60, 1e-20, 1e20, 1e60])
def test_scale(scale):
    """Squares of float32 numbers from 1e-30 to 1e30."""
    for name in ("random", "collapse, noise 1e-4", "rank 8"):
        e = truth.embedding(truth.spectra()[name], normalize=True)
        norm, w = spectral(e.T @ e)
        scaled_norm, scaled_w = spectral(e.T @ e * scale)
        root = np.sqrt(scale)
        assert scaled_norm / root == pytest.approx(norm, rel=5e-8)
        p, scaled_p = e @ w, e @ scaled_w * root
        left, s, right = np.linalg.svd(e, full_matrices=False)
        k = s > 1e-4 * s[0]
        error = np.linalg.norm(left[:, k].T @ (scaled_p - p) @ right[k].T) / np.sqrt(k.sum())
        assert error <= 2 * truth.polar_tolerance(s, torch.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_zero_matrix(n):
    norm, w = spectral(np.zeros((n, n)))
    assert norm == 0
    assert np.isfinite(w).all()


def test_a_batch_is_its_matrices_one_by_one():
    x = truth.random(2, 5, 40, 24, dtype=torch.float64)
    x[0, 1] = 1
    x[1, 3, 5:] = 0
    gram = truth.to_numpy(x.mT @ x)
    norm, w = spectral(gram)
    assert norm.shape == (2, 5)
    assert w.shape == gram.shape
    for index in np.ndindex(2, 5):
        alone_norm, alone_w = spectral(gram[index])
        assert np.array_equal(alone_norm, norm[index])
        assert np.array_equal(alone_w, w[index])
    assert spectral(np.zeros((0, 4, 4)))[0].shape == (0,)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 2, 40, 300])
def test_nan_gives_nan_and_no_hang(n, poison):
    gram = np.stack([np.eye(n)] * 3)
    clean, _ = spectral(gram)
    gram[1, -1, 0] = gram[1, 0, -1] = poison
    norm, w = spectral(gram)
    assert np.isnan(norm[1])
    assert np.isnan(w[1]).all()
    assert np.array_equal(norm[::2], clean[::2])
    everything, w = spectral(np.full((n, n), poison))
    assert np.isnan(everything)
    assert np.isnan(w).all()
