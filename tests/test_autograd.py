"""torch.autograd: derivatives of any order, what is kept for backward, threads, autocast."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import svmax_ops
from svmax_ops import mean_singular_value, nuclear_norm, svdvals, svmax_loss
from svmax_ops.backends import triton_library
from tests import truth

FUNCTIONS = {
    "svmax_loss": svmax_loss,
    "svmax_loss_unbounded": partial(svmax_loss, bounded=False),
    "mean_singular_value": mean_singular_value,
    "nuclear_norm": nuclear_norm,
    "svdvals": svdvals,
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
every_option = pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
OBJECTIVES = [name for name in FUNCTIONS if name != "svdvals"]
where_differentiable = pytest.mark.leave_out(
    lambda of: of["options"]["center"] and of["shape"][-2] <= of["shape"][-1] and of["function"] is svdvals,
    "the last singular value of b <= d centred rows is zero: no derivative exists",
)


@pytest.mark.each_value
@every_option
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3)], ids=str)
@every_function
@where_differentiable
def test_gradcheck_with_forward_mode(backend, function, shape, options):
    x = truth.random(*shape, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(
        partial(function, **options), x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


@every_option
@pytest.mark.parametrize("shape", [(5, 3), (3, 5)], ids=str)
@every_function
@where_differentiable
def test_gradgradcheck(backend, function, shape, options):
    x = truth.random(*shape, dtype=torch.float64).requires_grad_()
    torch.autograd.gradgradcheck(partial(function, **options), x)


@every_option
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 20, 8)], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_second_derivatives_match_torch(backend, objective, shape, dtype, options):
    """float32 takes the kernels, which gradgradcheck cannot: against torch's own second derivative in float64."""
    x, v = truth.random(*shape, dtype=dtype).requires_grad_(), truth.random(*shape, dtype=dtype, seed=1)
    (dx,) = torch.autograd.grad(FUNCTIONS[objective](x, **options).sum(), x, create_graph=True)
    (actual,) = torch.autograd.grad((dx * v).sum(), x)
    full = x.detach().double().requires_grad_()
    (dx,) = torch.autograd.grad(truth.loss_expression(full, objective, **options).sum(), full, create_graph=True)
    (expected,) = torch.autograd.grad((dx * v.double()).sum(), full)
    # 1e-5: P in float32 (2e-6) and the incoming v - (v.e) e; bfloat16 rounds the result, and dx on the way.
    rtol = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=rtol * expected.abs().max().item())


@every_option
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 20, 8)], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_forward_mode_matches_torch(backend, objective, shape, dtype, options):
    x, v = truth.random(*shape, dtype=dtype), truth.random(*shape, dtype=dtype, seed=1)
    value, actual = torch.func.jvp(partial(FUNCTIONS[objective], **options), (x,), (v,))
    expression = partial(truth.loss_expression, objective=objective, **options)
    expected_value, expected = torch.func.jvp(expression, (x.double(),), (v.double(),))
    scale = expected.abs() + v.double().norm(dim=(-2, -1)) * (expected_value.abs() / x.double().norm(dim=(-2, -1)))
    assert ((actual.double() - expected).abs() <= (1e-11 if dtype == torch.float64 else 2e-6) * scale).all()
    assert torch.equal(value, FUNCTIONS[objective](x, **options)) or torch.allclose(
        value.double(), expected_value, rtol=3e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (6, 6)], ids=str)
def test_second_derivative_at_repeated_singular_values(backend, shape, dtype):
    """The nuclear norm is smooth wherever no singular value is zero: our rules do without 1 / (s_i^2 - s_j^2)."""
    x, v = (torch.eye(*shape, dtype=dtype) * 2).requires_grad_(), truth.random(*shape, dtype=dtype)
    (p,) = torch.autograd.grad(nuclear_norm(x), x, create_graph=True)
    (actual,) = torch.autograd.grad((p * v).sum(), x)
    expected = truth.polar_derivative(truth.to_numpy(x), truth.to_numpy(v))
    atol = (1e-11 if dtype == torch.float64 else 5e-6) * np.abs(expected).max()
    np.testing.assert_allclose(truth.to_numpy(actual), expected, rtol=0, atol=atol)
    tangent = torch.func.jvp(torch.func.grad(nuclear_norm), (x.detach(),), (v,))[1]
    np.testing.assert_allclose(truth.to_numpy(tangent), expected, rtol=0, atol=atol)


@every_function
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_two_backwards_with_retain_graph(backend, function, dtype):
    x = truth.random(3, 20, 12, dtype=dtype).requires_grad_()
    value = function(x).sum()
    value.backward(retain_graph=True)
    first = x.grad.clone()
    x.grad = None
    value.backward()
    assert torch.equal(x.grad, first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        value.backward()


@every_function
def test_gradients_accumulate(backend, function):
    x = truth.random(20, 12).requires_grad_()
    function(x).sum().backward()
    first = x.grad.clone()
    function(x).sum().backward()
    torch.testing.assert_close(x.grad, 2 * first, rtol=0, atol=0)


@every_function
def test_no_gradient_is_recorded_where_none_is_wanted(backend, function):
    x = truth.random(20, 12).requires_grad_()
    assert function(x).requires_grad
    assert not function(x.detach()).requires_grad
    with torch.no_grad():
        assert not function(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(function(x), function(x.detach()))
    torch.testing.assert_close(function(x).detach(), function(x.detach()), rtol=2e-7, atol=0)


@every_option
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 20, 8)], ids=str)
@every_function
def test_what_is_kept_for_backward_is_x_itself_and_one_small_matrix(native, function, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype).requires_grad_()
    kept: list[torch.Tensor] = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        function(x, **options)
    itself = [t for t in kept if t.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()]
    others = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept if not any(t is i for i in itself)
    }
    assert len(itself) == 1
    assert itself[0].data_ptr() == x.data_ptr()
    matrices, n = x[..., 0, 0].numel(), min(shape[-2:])
    assert sum(others.values()) <= matrices * (n * n * 8 + shape[-2] * 8 + 1)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_a_change_of_x_before_backward_is_noticed(native, dtype):
    x = truth.random(20, 12, dtype=dtype).requires_grad_() * 1
    loss = svmax_loss(x)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.processes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.leave_out(
    lambda of: of["backend"] == "host", "the kernels' host build is chosen for the whole process, not for a thread"
)
@pytest.mark.leave_out(
    lambda of: of["backend"] == "triton" and triton_library.INTERPRETED,
    "Triton's interpreter has one state for all threads",
)
def test_four_threads_at_once_give_what_one_gives(backend, dtype):
    inputs = [
        truth.random(*shape, dtype=dtype, seed=i) for i, shape in enumerate([(144, 64), (20, 40), (3, 32, 16), (8, 8)])
    ]

    def work(x: torch.Tensor) -> list[torch.Tensor]:
        x = x.detach().requires_grad_()
        results = [svmax_loss(x), svdvals(x, normalize=True), nuclear_norm(x, center=True)]
        return [r.detach() for r in results] + [torch.autograd.grad(r.sum(), x)[0] for r in results]

    expected = [work(x) for x in inputs]
    failures: list[str] = []
    start = threading.Barrier(4)

    def run(me: int) -> None:
        torch.set_num_threads(1)  # LAPACK's results depend on it, and a new thread starts with torch's default
        with svmax_ops.use_backend(backend):  # the choice is of one thread
            start.wait(600)
            for turn in range(40):
                k = (me + turn) % 4  # all the same matrix at times, different ones at others
                if not all(torch.equal(a, b) for a, b in zip(work(inputs[k]), expected[k], strict=True)):
                    failures.append(f"thread {me}, turn {turn}, matrix {k}")

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(600)
    assert not any(t.is_alive() for t in threads)
    assert not failures, failures[:3]


@every_function
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(backend, function, dtype, autocast_dtype):
    x = truth.random(20, 12, dtype=dtype).requires_grad_()
    expected = function(x)
    (dx,) = torch.autograd.grad(expected.sum(), x)
    with torch.autocast(x.device.type, autocast_dtype):
        actual = function(x)
        (inside,) = torch.autograd.grad(actual.sum(), x, retain_graph=True)
    (outside,) = torch.autograd.grad(actual.sum(), x)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)
    assert torch.equal(inside, dx)
    assert torch.equal(outside, dx)


def test_autocast_with_the_layer_before(backend):
    """A linear layer gives bfloat16 embeddings; the loss is float32 and so are the gradients of its weights."""
    layer, images = torch.nn.Linear(16, 12), truth.random(20, 16)
    with torch.autocast(images.device.type, torch.bfloat16):
        embeddings = layer(images)
        loss = svmax_loss(embeddings)
    assert embeddings.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    expected = truth.value(truth.to_numpy(embeddings), "svmax_loss", normalize=True)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()


def test_checkpointing_recomputes_the_same_gradient(backend):
    from torch.utils.checkpoint import checkpoint

    x = truth.random(20, 12).requires_grad_()
    expected = torch.autograd.grad(svmax_loss(x), x)[0]
    actual = torch.autograd.grad(checkpoint(svmax_loss, x, use_reentrant=False), x)[0]
    assert torch.equal(actual, expected)
