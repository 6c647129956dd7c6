"""torch.compile without graph breaks or a recompilation for each batch size; torch.export; FakeTensor and meta."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
import torch._dynamo.compiled_autograd
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


def in_a_thread(function) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()


@pytest.mark.processes
def test_the_compiled_choice_is_back_after_blocks_of_two_threads_overlap(native):
    ours, theirs = svmax_ops.use_backend("reference"), svmax_ops.use_backend("cpu")
    ours.__enter__()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with theirs:
            entered.set()
            leave.wait(120)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(120)
    ours.__exit__(None, None, None)
    leave.set()
    thread.join(120)
    graphs = CompileCounterWithBackend("aot_eager")
    torch.compile(svmax_loss, fullgraph=True, backend=graphs)(truth.random(8, 4))
    assert any(n.target == torch.ops.svmax.objective.default for n in graphs.graphs[0].graph.nodes)


@pytest.mark.skipif(torch.__version__ < (2, 14), reason="before 2.14 torch.compile cannot see a thread's own choice")
def test_a_compiled_function_runs_on_its_own_threads_backend(native):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(svmax_loss, fullgraph=True, backend=counter)
    x = truth.random(8, 4)
    with svmax_ops.use_backend("reference"):
        in_a_thread(lambda: compiled(x))  # which has no block
        compiled(x)
    ours = [any(n.target == torch.ops.svmax.objective.default for n in g.graph.nodes) for g in counter.graphs]
    assert ours == [True, False]


@pytest.mark.parametrize("function", [svmax_loss, svdvals], ids=lambda f: f.__name__)
def test_compiled_autograd_of_transforms(backend, function):
    x = truth.random(3, 20, 12)
    gradient = torch.func.vmap(torch.func.grad(lambda m: function(m).sum()))
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), gradient(x), rtol=1e-4, atol=1e-6)


def through_compiled_autograd(backward) -> None:
    """Call ``backward`` under compiled autograd; a graph that breaks is an error."""
    torch._dynamo.compiled_autograd.reset()
    with torch._dynamo.compiled_autograd._enable(partial(torch.compile, fullgraph=True, backend="aot_eager")):
        backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_function
@pytest.mark.filterwarnings("default")  # torch's own, while it reads the graph of the reference
def test_compiled_autograd(backend, function, dtype):
    x = truth.random(20, 12, dtype=dtype).requires_grad_()
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    value = function(x).sum()
    through_compiled_autograd(value.backward)
    torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-7)


def test_compiled_autograd_of_the_gradient(native):
    x, v = truth.random(20, 12).requires_grad_(), truth.random(20, 12, seed=1)
    results = []
    for how in (lambda backward: backward(), through_compiled_autograd):
        x.grad = None
        (dx,) = torch.autograd.grad(svmax_loss(x), x, create_graph=True)
        how((dx * v).sum().backward)
        results.append(x.grad)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_compiled_autograd_keeps_the_graphs_of_different_options_apart(native):
    """By the same graph a centred loss would get the plain one's gradient, or each would push the other out."""
    x = truth.random(20, 12).requires_grad_()
    for options in ({}, {"center": True}, {"normalize": False}):
        (expected,) = torch.autograd.grad(nuclear_norm(x, **options), x)
        x.grad = None
        through_compiled_autograd(nuclear_norm(x, **options).backward)
        torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-7)


@pytest.fixture
def unknown_sizes():
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield


BOUNDED = (FUNCTIONS["svmax_loss"], FUNCTIONS["svmax_loss centered"])


@every_function
@pytest.mark.filterwarnings("default")  # torch tells of its own graph's assertions
def test_a_batch_size_that_is_unknown_while_compiling(backend, function, unknown_sizes):
    """Rows chosen by a mask: one graph for every number of them, which refuses too few when it runs."""
    x = truth.random(30, 12).requires_grad_()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x, mask: function(x[mask]), fullgraph=True, backend=counter)
    for b in (20, 9):  # more rows than dimensions, and fewer
        mask = torch.arange(30) < b
        results = compiled(x, mask), function(x[mask])
        torch.testing.assert_close(*results, rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(*(torch.autograd.grad(r.sum(), x)[0] for r in results), rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 1
    said, rows = (r"U equals L", 1) if function in BOUNDED else (r"b >= 1 and d >= 1", 0)
    with pytest.raises(RuntimeError, match=said if torch.__version__ >= (2, 14) else None):
        compiled(x, torch.arange(30) < rows)


def test_export_of_rows_that_are_chosen_by_a_mask(backend):
    class Chosen(torch.nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return svmax_loss(x[mask])

    x = truth.random(30, 12)
    program = torch.export.export(Chosen(), (x, torch.arange(30) < 20)).module()
    for b in (20, 9):
        torch.testing.assert_close(program(x, torch.arange(30) < b), svmax_loss(x[:b]), rtol=2e-6, atol=0)
    with pytest.raises(RuntimeError):
        program(x, torch.arange(30) < 1)


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
