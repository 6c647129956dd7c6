"""torch.compile without graph breaks or a recompilation for each batch size; torch.export; FakeTensor and meta."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

import svmax_ops
from svmax_ops import SVMaxLoss, mean_singular_value, nuclear_norm, spectrum, svdvals, svmax_loss
from tests import truth

pytestmark = pytest.mark.each_value
FUNCTIONS = {
    "svmax_loss": svmax_loss,
    "svmax_loss_unbounded": partial(svmax_loss, bounded=False, normalize=False),
    "svmax_loss centered": partial(svmax_loss, center=True),
    "mean_singular_value": mean_singular_value,
    "nuclear_norm": nuclear_norm,
    "svdvals": svdvals,
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
# Graphs and fake tensors are what our ops must serve; the reference backend is plain torch code.
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def with_gradient(function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def assert_same(function, compiled, x: torch.Tensor) -> None:
    rtol = {torch.bfloat16: 1e-2, torch.float32: 2e-6, torch.float64: 1e-11}[x.dtype]
    for actual, expected in zip(with_gradient(compiled, x), with_gradient(function, x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * expected.abs().max().item())


@DTYPES
@every_function
def test_one_graph_with_gradient(backend, function, dtype):
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_same(function, compiled, truth.random(40, 24, dtype=dtype))
    assert_same(function, compiled, truth.random(2, 24, 40, dtype=dtype))


@every_function
@pytest.mark.parametrize("sizes", [(40, 48, 57, 64, 100), (12, 9, 20, 15, 7)], ids=["b > d", "b < d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_batch_sizes_do_not_recompile(backend, function, sizes, dtype):
    """The first size compiles, the second tells torch that it varies, then nothing more."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for b in sizes:
        assert_same(function, compiled, truth.random(b, 24, dtype=dtype))
    assert counter.frame_count <= 2


@every_function
def test_a_batch_size_marked_dynamic_compiles_once(backend, function):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for b in (40, 64, 57):
        x = truth.random(b, 24)
        torch._dynamo.mark_dynamic(x, 0, min=25, max=4096)
        torch.testing.assert_close(compiled(x), function(x), rtol=2e-6, atol=1e-6)
    assert counter.frame_count == 1


def test_a_training_step_through_inductor(backend):
    """The default compiler, the module, a layer before it and a loss beside it, batch sizes varying."""
    torch.manual_seed(0)
    layer, criterion = torch.nn.Linear(16, 12), SVMaxLoss(0.1)

    def step(x: torch.Tensor) -> torch.Tensor:
        embeddings = layer(x)
        return criterion(embeddings) + embeddings.square().mean()

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for b in (20, 33):
        x = truth.random(b, 16)
        expected = torch.autograd.grad(step(x), layer.weight)[0]
        torch.testing.assert_close(torch.autograd.grad(compiled(x), layer.weight)[0], expected, rtol=1e-4, atol=1e-6)


def test_telemetry_compiles(backend):
    x = truth.random(40, 24)
    compiled = torch.compile(spectrum, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(x), spectrum(x), strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_backend_is_a_constant_of_the_graph(native):
    """Another choice of backend compiles another graph; it is neither ignored nor a break."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(svmax_loss, fullgraph=True, backend=counter)
    x = truth.random(40, 24)
    for name in (native, "reference", native):
        with svmax_ops.use_backend(name):
            torch.testing.assert_close(compiled(x), svmax_loss(x), rtol=2e-6, atol=0)
    namespaces = [
        {n.target.namespace for n in graph.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
        for graph in counter.graphs
    ]
    assert counter.frame_count == 2, namespaces


@pytest.mark.parametrize("function", [svmax_loss, svdvals], ids=lambda f: f.__name__)
def test_compiled_autograd_of_transforms(backend, function):
    x = truth.random(3, 20, 12)
    gradient = torch.func.vmap(torch.func.grad(lambda m: function(m).sum()))
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), gradient(x), rtol=1e-4, atol=1e-6)


class Wrapped(torch.nn.Module):
    """What torch.export takes."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@DTYPES
@every_function
def test_export_with_a_dynamic_batch_size(backend, function, dtype):
    x = truth.random(40, 24, dtype=dtype)
    batch = torch.export.Dim("batch", min=25, max=4096)
    program = torch.export.export(Wrapped(function), (x,), dynamic_shapes={"x": {0: batch}})
    for b in (40, 64):
        x = truth.random(b, 24, dtype=dtype)
        torch.testing.assert_close(program.module()(x), function(x), rtol=2e-6, atol=1e-6)


def test_an_exported_program_is_saved_and_loaded(backend, tmp_path):
    x = truth.random(40, 24)
    program = torch.export.export(SVMaxLoss(), (x,))
    torch.export.save(program, tmp_path / "loss.pt2")
    loaded = torch.export.load(tmp_path / "loss.pt2").module()
    torch.testing.assert_close(loaded(x), SVMaxLoss()(x))


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (3, 5, 8, 6), (0, 8, 6)], ids=str)
@every_function
def test_fake_and_meta_tensors_have_the_shapes_of_real_ones(backend, function, shape, dtype):
    real = with_gradient(function, truth.random(*shape, dtype=dtype))
    with FakeTensorMode():
        fake = with_gradient(function, torch.empty(shape, dtype=dtype))
    meta = with_gradient(function, torch.empty(shape, dtype=dtype, device="meta"))
    for a, b, c in zip(real, fake, meta, strict=True):
        assert a.shape == b.shape == c.shape
        assert a.dtype == b.dtype == c.dtype
        assert b.device.type == a.device.type
        assert c.device.type == "meta"
