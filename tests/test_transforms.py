"""torch.func: vmap, grad, jvp, vjp, jacobians and their compositions agree with the batched call."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from svmax_ops import mean_singular_value, nuclear_norm, svdvals, svmax_loss
from tests import truth

SCALARS = {
    "svmax_loss": svmax_loss,
    "svmax_loss centered": partial(svmax_loss, center=True),
    "svmax_loss_unbounded": partial(svmax_loss, bounded=False),
    "mean_singular_value": mean_singular_value,
    "nuclear_norm": nuclear_norm,
    "svdvals squared": lambda x: svdvals(x).square().sum(-1),
}
every_scalar = pytest.mark.parametrize("function", SCALARS.values(), ids=SCALARS)
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 5e-6, torch.float64: 1e-10}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == expected.dtype
    atol = TOLERANCE[dtype] * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def gradients(function, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


@DTYPES
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("function", [*SCALARS.values(), svdvals], ids=[*SCALARS, "svdvals"])
def test_vmap_over_any_dimension(backend, function, dim, dtype):
    x = truth.random(5, 20, 12, dtype=dtype)
    assert_close(vmap(function, in_dims=dim)(x.movedim(0, dim)), function(x), dtype)
    nested = truth.random(2, 3, 8, 6, dtype=dtype)
    assert_close(
        vmap(vmap(function), in_dims=1, out_dims=1)(nested.transpose(0, 1).transpose(0, 1)), function(nested), dtype
    )


@DTYPES
@every_scalar
def test_grad_and_vmap_of_grad_and_grad_of_vmap(backend, function, dtype):
    x = truth.random(5, 20, 12, dtype=dtype)
    expected = gradients(function, x)
    assert_close(grad(function)(x[0]), expected[0], dtype)
    assert_close(vmap(grad(function))(x), expected, dtype)
    assert_close(grad(lambda x: vmap(function)(x).sum())(x), expected, dtype)


@DTYPES
@every_scalar
def test_jacobians(backend, function, dtype):
    x = truth.random(2, 5, 3, dtype=dtype)
    expected = gradients(function, x)
    for jacobian in (jacrev(function)(x), jacfwd(function)(x)):
        assert jacobian.shape == (2, 2, 5, 3)
        assert_close(torch.stack([jacobian[0, 0], jacobian[1, 1]]).to(dtype), expected, dtype)
        assert (jacobian[0, 1] == 0).all()
        assert (jacobian[1, 0] == 0).all()
    assert_close(jacrev(function, chunk_size=1)(x), jacrev(function)(x), dtype)


@DTYPES
@every_scalar
def test_jvp_and_vjp_agree(backend, function, dtype):
    x, v = truth.random(3, 20, 12, dtype=dtype), truth.random(3, 20, 12, dtype=dtype, seed=1)
    value, tangent = jvp(function, (x,), (v,))
    again, pullback = vjp(function, x)
    assert_close(value, again, dtype)
    expected = (pullback(torch.ones_like(again))[0].double() * v.double()).sum((-2, -1))
    # The sum of b d products cancels: relative to their size.
    scale = (pullback(torch.ones_like(again))[0].double() * v.double()).abs().sum((-2, -1))
    assert ((tangent.double() - expected).abs() <= TOLERANCE[dtype] * scale).all()
    assert_close(vmap(lambda x, v: jvp(function, (x,), (v,))[1])(x, v), tangent, dtype)
    assert_close(vmap(lambda v: jvp(function, (x,), (v,))[1])(torch.stack([v, 2 * v]))[1], 2 * tangent, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_scalar
def test_hessian_of_every_composition(backend, function, dtype):
    x = truth.random(4, 3, dtype=dtype)
    reverse = jacrev(grad(function))(x)
    assert_close(reverse.flatten(2).flatten(0, 1), reverse.flatten(2).flatten(0, 1).T, dtype)
    for other in (hessian(function), jacfwd(grad(function)), jacfwd(jacrev(function))):
        assert_close(other(x), reverse, dtype)
    batch = truth.random(3, 4, 3, dtype=dtype, seed=2)
    assert_close(vmap(hessian(function))(batch), torch.stack([hessian(function)(m) for m in batch]), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_per_sample_weights_through_vmap(backend, dtype):
    """A loss of several heads with a weight each: vmap over both arguments, differentiated in both."""
    x, weights = truth.random(4, 20, 12, dtype=dtype), truth.random(4, dtype=dtype, seed=1)
    dx, dw = grad(lambda x, w: vmap(lambda x, w: w * svmax_loss(x))(x, w).sum(), argnums=(0, 1))(x, weights)
    assert_close(dx, gradients(svmax_loss, x) * weights[:, None, None], dtype)
    assert_close(dw, svmax_loss(x), dtype)
