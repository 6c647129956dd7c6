"""Stage `backward` of the native library: dX = slope E W (or W E), through the rows' normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import truth

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.kinds]
every_option = pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5), (5, 7), (33, 31), (144, 128), (64, 144), (1030, 70), (3, 5, 32, 16)]
# Half of the last place of the result's type.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 1e-13}


def inverse_sqrt(x: torch.Tensor, normalize: bool, center: bool) -> np.ndarray:
    """G^(-1/2) by eigh, without the directions that have no eigenvalue."""
    e = truth.embedding(truth.to_numpy(x), normalize, center)
    gram = e.swapaxes(-1, -2) @ e if truth.is_tall(e.shape, center) else e @ e.swapaxes(-1, -2)
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-12 * values[..., -1:]
    roots = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)
    return (vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2)


def run(
    x: torch.Tensor, w: np.ndarray, grad: np.ndarray, normalize: bool, center: bool, narrow: bool = False
) -> torch.Tensor:
    """``narrow``: whether the products may be made in float32."""
    _, row_norms = truth.kernels.gram(x, normalize=normalize, center=center)
    options = {"objective": "nuclear_norm", "normalize": normalize, "center": center}
    grad = truth.tensor(np.asarray(grad)).to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    w = truth.tensor(w)
    in_float32 = torch.full((*x.shape[:-2], 1), narrow, device=w.device)
    return truth.kernels.backward(grad, x, w, in_float32, row_norms, **options)


def assert_backward(x: torch.Tensor, normalize: bool, center: bool) -> None:
    full = truth.to_numpy(x)
    e = truth.embedding(full, normalize, center)
    w = inverse_sqrt(x, normalize, center)
    grad = truth.to_numpy(truth.random(*x.shape[:-2], seed=9, dtype=torch.float32))
    dx = run(x, w, grad, normalize, center)
    assert dx.dtype == x.dtype
    assert dx.shape == x.shape
    assert dx.is_contiguous()
    p = e @ w if truth.is_tall(x.shape, center) else w @ e
    # `center` needs no step of its own here: the columns of P sum to zero.
    expected = truth.through_rows(full, grad[..., None, None] * p, normalize, center=False)
    product = 1e-13  # of float64 products: what is left is the rounding of the result and of E and W
    norms = truth.row_norms(full) if normalize else np.ones((*full.shape[:-1], 1))
    size = np.abs(grad)[..., None, None] / np.where(norms == 0, 1, norms)
    conditioning = 1e-15 * np.linalg.norm(w, 2, axis=(-2, -1))[..., None, None] * np.sqrt(x.shape[-2] * x.shape[-1])
    smallest = torch.finfo(dx.dtype).smallest_normal * torch.finfo(dx.dtype).eps
    tolerance = ROUNDING[x.dtype] * np.abs(expected) + (product + conditioning) * size + smallest
    assert (np.abs(truth.to_numpy(dx) - expected) <= 1.001 * tolerance).all()


@every_option
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.leave_out(lambda of: of["options"]["center"] and of["shape"][-2] == 1, "one row minus its mean is zero")
def test_every_shape_and_dtype(shape, dtype, options):
    assert_backward(truth.random(*shape, dtype=dtype), **options)


@every_option
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(288, 256), (300, 512), (512, 300)], ids=str)
def test_one_large_matrix_on_two_threads(two_threads, shape, dtype, options):
    assert_backward(truth.random(*shape, dtype=dtype), **options)


@every_option
@pytest.mark.parametrize("shape", [(144, 128), (40, 24), (24, 40), (300, 512)], ids=str)
def test_float32_weights_may_be_multiplied_in_float32(shape, options):
    """Where kappa(G) is small W comes as float32 numbers, and one product in float32 costs 1e-6 (ALGORITHM.md)."""
    x = truth.random(*shape)
    full = truth.to_numpy(x)
    e = truth.embedding(full, **options)
    w = inverse_sqrt(x, **options).astype(np.float32).astype(float)
    dx = run(x, w, np.array(1.0), **options)
    p = e @ w if truth.is_tall(shape, options["center"]) else w @ e
    expected = truth.through_rows(full, p, options["normalize"], center=False)
    error = np.linalg.norm(truth.to_numpy(dx) - expected) / np.linalg.norm(expected)
    assert error <= 1e-6


@every_option
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=str)
def test_strides(shape, dtype, options):
    wide = truth.random(2, 2 * shape[0], 2 * shape[1], dtype=dtype)
    assert_backward(wide[:, ::2, 1::2], **options)
    assert_backward(truth.random(2, *shape[::-1], dtype=dtype).mT, **options)
    assert_backward(truth.random(1, *shape, dtype=dtype).expand(3, *shape), **options)


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=str)
def test_zero_rows_get_a_zero_gradient(shape, dtype, center):
    x = truth.random(*shape, dtype=dtype)
    x[::5] = 0
    if not center:  # centred, a zero row is minus the mean, and its part of P is not projected but dropped
        assert_backward(x, normalize=True, center=False)
    w = inverse_sqrt(x, True, center)
    assert (run(x, w, np.array(1.0), True, center)[::5] == 0).all()


@every_option
def test_a_zero_incoming_gradient_gives_zero(options):
    x = truth.random(2, 20, 12)
    w = inverse_sqrt(x, **options)
    dx = run(x, w, np.array([0.0, 1.0]), **options)
    assert (dx[0] == 0).all()
    assert (dx[1] != 0).any()


@every_option
@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=str)
def test_nan_in_x_or_in_the_incoming_gradient(shape, options):
    x = truth.random(3, *shape)
    w = inverse_sqrt(x, **options)
    clean = run(x, w, np.ones(3), **options)
    dirty = run(x, w, np.array([1.0, np.nan, 1.0]), **options)
    assert dirty[1].isnan().all()
    assert torch.equal(dirty[::2], clean[::2])
