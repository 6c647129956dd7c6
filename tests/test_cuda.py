"""What only a GPU can show: graphs, streams, devices, sizes beyond 2^31. Skipped as a whole where there is none.

The kernels themselves are tested without a GPU in tests/host and in Triton's interpreter; on a GPU every test of tests/
runs with the backends cuda and triton too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import svmax_ops
from svmax_ops import SVMaxLoss, nuclear_norm, svdvals, svmax_loss
from tests import truth
from tests.available import here

if not torch.cuda.is_available():  # Triton's kernels would run in its interpreter
    pytest.skip("torch sees no GPU here", allow_module_level=True)

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.parametrize("native", here("cuda", "triton"), indirect=True),
]
of_cuda_kernels = pytest.mark.leave_out(
    lambda of: of["native"] != "cuda", "what the Triton kernels leave to torch.linalg, or have no memory for"
)

# n on both sides of every size that a kernel is made for, b < d, batches, and many rows.
SHAPES = [
    *((n + 16, n) for n in (4, 16, 17, 32, 33, 64, 65, 128, 129, 192, 193, 256, 257, 400)),
    *((n, n + 16) for n in (16, 32, 64, 128, 192, 300)),
    (64, 128),
    (1000, 64, 32),
    (5000, 48),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
FUNCTIONS = {"svmax_loss": svmax_loss, "centered": lambda x: svmax_loss(x, center=True), "nuclear_norm": nuclear_norm}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def step(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def needs_memory(gigabytes: float) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes:g} GB of GPU memory, {free / 1e9:.1f} GB are free")


@pytest.fixture
def second_device() -> torch.device:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, this machine has {torch.cuda.device_count()}")
    return torch.device("cuda:1")


@every_shape
@every_function
def test_a_gpu_agrees_with_the_cpu(function, shape):
    x = truth.random(*shape)
    value, dx = step(function, x)
    expected, expected_dx = step(function, x.cpu())
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(dx.cpu(), expected_dx, rtol=0, atol=1e-5 * expected_dx.abs().max().item())


@every_shape
@pytest.mark.parametrize("function", [svmax_loss, svdvals], ids=["svmax_loss", "svdvals"])
def test_two_runs_give_the_same_bits(function, shape):
    x = truth.random(*shape)
    first = step(function, x)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, step(function, x), strict=True))


@every_shape
@every_function
def test_a_graph_of_forward_and_backward_replays_on_new_data(function, shape):
    x = truth.random(*shape).requires_grad_()

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        value = function(x)
        return value, torch.autograd.grad(value.sum(), x)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    for seed in (1, 2, 1):
        fresh = truth.random(*shape, seed=seed)
        with torch.no_grad():
            x.copy_(fresh)
        graph.replay()
        for actual, expected in zip(results, step(function, fresh), strict=True):
            assert torch.equal(actual, expected)


@of_cuda_kernels
@every_shape
def test_singular_values_can_be_captured(shape):
    x = truth.random(*shape)
    svdvals(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values = svdvals(x)
    graph.replay()
    assert torch.equal(values, svdvals(x))


@every_shape
@every_function
def test_nothing_waits_for_the_device(function, shape):
    x = truth.random(*shape)
    step(function, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(function, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_function
def test_work_is_done_on_the_current_stream(function):
    """What the side stream is still busy with must come first; the default stream would read x too early."""
    fresh = truth.random(144, 128, seed=1)
    expected = step(function, fresh)
    x, large = truth.random(144, 128), torch.ones(4096, 4096)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(20):
            large = (large @ large).clamp(0, 1)  # milliseconds
        x.copy_(fresh * large[0, 0])
        results = step(function, x)
    torch.cuda.current_stream().wait_stream(side)
    for actual, wanted in zip(results, expected, strict=True):
        assert torch.equal(actual, wanted)


@every_function
def test_the_default_stream_and_a_side_stream_at_once(function):
    inputs = [truth.random(144, 128, seed=seed) for seed in range(4)]
    expected = [step(function, x) for x in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    for _ in range(20):
        results = []
        for x, stream in zip(inputs, streams, strict=True):
            with torch.cuda.stream(stream):
                results.append(step(function, x))
        torch.cuda.synchronize()
        for actual, wanted in zip(results, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(actual, wanted, strict=True))


@every_shape
def test_a_device_that_is_not_the_current_one(second_device, shape):
    x = truth.random(*shape)
    expected = step(svmax_loss, x)
    with torch.cuda.device(0):
        actual = step(svmax_loss, x.to(second_device))
        assert torch.cuda.current_device() == 0
    for a, b in zip(actual, expected, strict=True):
        assert a.device == second_device
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=0)


def test_backward_refuses_tensors_of_two_devices():
    x = truth.random(2, 8, 6)
    options = {"objective": "nuclear_norm", "normalize": True, "center": False}
    value, weight, narrow, norms = truth.kernels.objective(x, **options, need_gradient=True)
    for grad, w, n in ((value.cpu(), weight, norms), (value, weight.cpu(), norms), (value, weight, norms.cpu())):
        with pytest.raises(RuntimeError, match=r"svmax::backward.*device"):
            truth.kernels.backward(grad, x, w, narrow, n, **options)


def test_backward_refuses_tensors_of_two_gpus(second_device):
    x = truth.random(2, 8, 6)
    options = {"objective": "nuclear_norm", "normalize": True, "center": False}
    value, weight, narrow, norms = truth.kernels.objective(x, **options, need_gradient=True)
    with pytest.raises(RuntimeError, match=r"svmax::backward.*weight.*device"):
        truth.kernels.backward(value, x, weight.to(second_device), narrow, norms, **options)


@of_cuda_kernels
def test_a_backend_is_asked_for_the_device_that_it_serves():
    x = truth.random(20, 12)
    with pytest.raises(ValueError, match=r"svmax_loss: backend 'cuda'.*cpu"):
        svmax_loss(x.cpu())
    with svmax_ops.use_backend("cpu"), pytest.raises(ValueError, match=r"svmax_loss: backend 'cpu'.*cuda"):
        svmax_loss(x)
    with svmax_ops.use_backend("reference"):
        expected = svmax_loss(x)
    with svmax_ops.use_backend("auto"):
        assert torch.equal(svmax_loss(x.cpu()), svmax_loss(x.cpu()))
        torch.testing.assert_close(svmax_loss(x), expected, rtol=1e-6, atol=0)


@of_cuda_kernels
def test_more_than_2_to_the_31_elements():
    """A block of rows repeated k times: s grows by sqrt(k), and each copy has the block's P divided by that."""
    needs_memory(16)
    block, k = truth.random(4096, 128, dtype=torch.bfloat16), 4097
    x = block.repeat(k, 1).requires_grad_()
    assert x.numel() > 2**31
    value = nuclear_norm(x)
    (dx,) = torch.autograd.grad(value, x)
    expected, p = step(nuclear_norm, block.float())
    torch.testing.assert_close(value.detach(), expected * math.sqrt(k), rtol=1e-6, atol=0)
    for rows in (dx[:4096], dx[-4096:]):
        error = (rows.float() * math.sqrt(k) - p).abs().max() / p.abs().max()
        assert error <= 2**-8  # the rounding of dx to bfloat16


@pytest.mark.parametrize("layout", ["rows", "columns", "matrices"])
def test_strides_beyond_2_to_the_31(layout):
    needs_memory(6)
    far = 2**31 + 64
    storage = torch.zeros(2 * far // 2 + 4096, dtype=torch.bfloat16)
    shape, strides = {
        "rows": ((2, 12), (far, 1)),
        "columns": ((12, 2), (2, far)),
        "matrices": ((2, 20, 12), (far, 12, 1)),
    }[layout]
    x = storage.as_strided(shape, strides)
    x.copy_(truth.random(*shape))
    for actual, expected in zip(step(svmax_loss, x), step(svmax_loss, x.contiguous()), strict=True):
        assert torch.equal(actual, expected)


def test_65536_rows():
    x = truth.random(65_536, 128)
    value, dx = step(svmax_loss, x)
    full = truth.to_numpy(x)
    np.testing.assert_allclose(truth.to_numpy(value), truth.value(full, "svmax_loss", normalize=True), rtol=1e-5)
    g = truth.slope(full, "svmax_loss", normalize=True) * truth.polar_factor(truth.embedding(full, True))
    expected = truth.through_rows(full, g, normalize=True, center=False)
    # So many rows are spread evenly, and the projection leaves almost nothing of P: its rounding is what P had.
    size = np.max(np.linalg.norm(g, axis=-1) / truth.row_norms(full)[:, 0])
    np.testing.assert_allclose(truth.to_numpy(dx), expected, rtol=0, atol=4e-6 * size)


@pytest.mark.parametrize("shape", [(100_000, 8, 4), (100_000, 4, 8), (70_000, 1, 2), (3, 40_000, 6, 6)], ids=str)
def test_more_matrices_than_a_grid_has_blocks(shape):
    x = truth.random(*shape)
    values, dx = step(nuclear_norm, x)
    full = truth.to_numpy(x)
    np.testing.assert_allclose(truth.to_numpy(values), truth.value(full, "nuclear_norm"), rtol=2e-7)
    # kappa(G) of a square matrix is anything among so many: only the others have a P that is sharp.
    if shape[-2] != shape[-1]:
        expected = truth.polar_factor(full)
        error = np.linalg.norm(truth.to_numpy(dx) - expected, axis=(-2, -1))
        assert np.median(error) <= 1e-6
        assert np.linalg.norm(truth.to_numpy(dx), 2, axis=(-2, -1)).max() <= 1 + truth.POLAR_EXCESS
    np.testing.assert_allclose(
        truth.to_numpy(svdvals(x)).sum(-1), truth.value(full, "nuclear_norm"), rtol=5e-7, atol=1e-6
    )


def test_a_matrix_has_the_same_bits_alone_and_in_a_batch():
    x = truth.random(9, 144, 128)
    together, dx = step(svmax_loss, x)
    for i, matrix in enumerate(x):
        value, alone = step(svmax_loss, matrix)
        assert torch.equal(value, together[i])
        assert torch.equal(alone, dx[i])


def test_no_memory_is_kept_from_call_to_call():
    x = truth.random(144, 128)
    step(svmax_loss, x)
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        step(svmax_loss, x)
    assert torch.cuda.memory_allocated() == before


def test_a_compiled_training_step_with_cuda_graphs():
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer, criterion = torch.nn.Linear(64, 48), SVMaxLoss(0.1)

    def loss(x: torch.Tensor) -> torch.Tensor:
        embeddings = layer(x)
        return criterion(embeddings) + embeddings.square().mean()

    compiled = torch.compile(loss, fullgraph=True, mode="reduce-overhead")
    for seed in range(4):  # recorded at the second call, replayed from the third on
        x = truth.random(100, 64, seed=seed)
        expected = torch.autograd.grad(loss(x), layer.weight)[0]
        torch.compiler.cudagraph_mark_step_begin()
        actual = torch.autograd.grad(compiled(x), layer.weight)[0]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
