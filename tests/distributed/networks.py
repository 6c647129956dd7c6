"""Checks of training over the ranks: DistributedDataParallel, fully_shard, torch.compile, autocast."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import svmax_ops
from svmax_ops import SVMaxLoss, mean_singular_value, nuclear_norm, svdvals, svmax_loss
from tests import truth

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
ROWS = (5, 19)  # of each of 2 ranks
DIMENSION = 12


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, DIMENSION))
    nn.init.ones_(model[-1].bias)  # nearly collapsed
    return model


def batch(step: int = 0) -> torch.Tensor:
    return truth.random(sum(ROWS), 16, seed=step)


def loss_of(embeddings: torch.Tensor, group: dist.ProcessGroup | None, **options: bool) -> torch.Tensor:
    """A mean over the rows of all ranks, as averaging adds it up, and SVMax of them."""
    rows = sum(ROWS) if group is None else sum(ROWS) / len(ROWS)
    return 0.01 * (embeddings - 1).square().sum() / rows + SVMaxLoss(group=group, **options)(embeddings)


def train(model: nn.Module, group: dist.ProcessGroup | None) -> list[float]:
    """SVMax's loss before each of ten steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    values = []
    for step in range(10):
        x = batch(step)
        embeddings = model(x if group is None else x.split(ROWS)[dist.get_rank()])
        values.append(svmax_loss(embeddings.detach(), group=group).item())
        optimizer.zero_grad()
        loss_of(embeddings, group).backward()
        optimizer.step()
    return values


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def assert_gradients(model: nn.Module, alone: nn.Module) -> None:
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert (whole(ours.grad) - theirs.grad).norm() <= 2e-6 * theirs.grad.norm()


def data_parallel(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    mesh = dist.init_device_mesh("cpu", (len(ROWS),))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def assert_one_step(rank: int, wrap: Callable[[nn.Module], nn.Module]) -> None:
    for options in ({}, {"bounded": False}, {"center": True}, {"normalize": False}):
        alone = network()
        model = wrap(copy.deepcopy(alone))
        loss_of(model(batch().split(ROWS)[rank]), dist.group.WORLD, **options).backward()
        loss_of(alone(batch()), None, **options).backward()
        assert_gradients(model, alone)


def assert_ten_steps(wrap: Callable[[nn.Module], nn.Module]) -> None:
    alone = network()
    model = wrap(copy.deepcopy(alone))
    over_ranks, expected = train(model, dist.group.WORLD), train(alone, None)
    assert expected[-1] < 0.8 * expected[0]  # so that there is something to be equal in
    torch.testing.assert_close(over_ranks, expected, rtol=1e-5, atol=0)
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert (whole(ours) - theirs).norm() <= 1e-5 * theirs.norm()


def gradients_after_data_parallel(rank: int, world: int) -> None:
    assert_one_step(rank, data_parallel)


def gradients_after_fully_shard(rank: int, world: int) -> None:
    assert_one_step(rank, sharded)


def ten_steps_after_data_parallel(rank: int, world: int) -> None:
    assert_ten_steps(data_parallel)


def ten_steps_after_fully_shard(rank: int, world: int) -> None:
    assert_ten_steps(sharded)


def without_averaging_the_gradient_is_divided_by_the_ranks(rank: int, world: int) -> None:
    model, alone = network(), network()
    loss_of(model(batch().split(ROWS)[rank]), dist.group.WORLD).backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= world
    loss_of(alone(batch()), None).backward()
    assert_gradients(model, alone)


def the_readme_does_so(rank: int, world: int) -> None:
    (snippet,) = re.findall(r"^```python\n(import torch\.distributed .*?)^```", README, re.DOTALL | re.MULTILINE)
    alone = network()
    model = DistributedDataParallel(copy.deepcopy(alone))
    known = {
        "svmax_ops": svmax_ops,
        "model": model,
        "images": batch().split(ROWS)[rank],
        "labels": None,
        "criterion": lambda embeddings, labels: 0,
    }
    exec(snippet, known)
    known["loss"].backward()
    svmax_loss(alone(batch())).backward()
    assert_gradients(model, alone)


def autocast_changes_nothing(rank: int, world: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = batch().split(ROWS)[rank].to(dtype).requires_grad_()
        plain = svmax_loss(x, group=dist.group.WORLD)
        (gradient,) = torch.autograd.grad(plain, x)
        with torch.autocast("cpu", torch.bfloat16):
            value = svmax_loss(x, group=dist.group.WORLD)
        assert torch.equal(value, plain)
        assert torch.equal(torch.autograd.grad(value, x)[0], gradient)


def assert_compiles(rank: int, backend: str, cases: Iterable[tuple[dict[str, bool], torch.dtype]]) -> None:
    """Without a graph break, and with one graph more for all other numbers of rows."""
    from torch._dynamo.testing import CompileCounterWithBackend

    for options, dtype in cases:
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(backend)
        compiled = torch.compile(svmax_loss, fullgraph=True, backend=counter)
        for rows in ((20, 13), (15, 40), (32, 16)):
            x = truth.random(rows[rank], DIMENSION, dtype=dtype, seed=rank).requires_grad_()
            assert_same(*(f(x, **options, group=dist.group.WORLD) for f in (compiled, svmax_loss)), x)
        assert counter.frame_count == 2


def assert_same(value: torch.Tensor, expected: torch.Tensor, x: torch.Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=2e-7, atol=0)
    (gradient,), (wanted,) = (torch.autograd.grad(v, x) for v in (value, expected))
    assert (gradient - wanted).norm() <= 4e-6 * wanted.norm()  # each is good to 2e-6


def compiled_by_dynamo(rank: int, world: int) -> None:
    assert_compiles(rank, "eager", [({}, torch.float32)])


def compiled_ahead_of_time(rank: int, world: int) -> None:
    assert_compiles(rank, "aot_eager", [({}, torch.float32), ({}, torch.float64)])


def compiled_ahead_of_time_with_options(rank: int, world: int) -> None:
    for options in ({"center": True}, {"bounded": False, "normalize": False}):
        assert_compiles(rank, "aot_eager", [(options, torch.float32)])


def compiled_by_inductor(rank: int, world: int) -> None:
    assert_compiles(rank, "inductor", [({"center": True}, torch.float32)])


def compiled_with_fewer_rows_than_dimensions(rank: int, world: int) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(svmax_loss, fullgraph=True, backend="aot_eager")
    for rows in ((3, 4), (0, 7), (20, 2)):
        x = truth.random(rows[rank], DIMENSION, seed=rank).requires_grad_()
        assert_same(*(f(x, group=dist.group.WORLD) for f in (compiled, svmax_loss)), x)


def compiled_with_rows_chosen_by_a_mask(rank: int, world: int) -> None:
    """Whose number is unknown while compiling."""
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, mask: svmax_loss(x[mask], group=dist.group.WORLD), fullgraph=True, backend="aot_eager"
    )
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for rows in ((20, 13), (3, 4)):
            x, mask = truth.random(30, DIMENSION, seed=rank).requires_grad_(), torch.arange(30) < rows[rank]
            assert_same(compiled(x, mask), svmax_loss(x[mask], group=dist.group.WORLD), x)


def compiled_autograd(rank: int, world: int) -> None:
    import torch._dynamo.compiled_autograd

    for options, dtype in (({}, torch.float32), ({"center": True}, torch.float32), ({}, torch.float64)):
        torch._dynamo.reset()
        torch._dynamo.compiled_autograd.reset()
        x = truth.random((20, 13)[rank], DIMENSION, dtype=dtype, seed=rank).requires_grad_()
        (expected,) = torch.autograd.grad(svmax_loss(x, **options, group=dist.group.WORLD), x)
        value = svmax_loss(x, **options, group=dist.group.WORLD)
        graph_compiler = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")
        with torch._dynamo.compiled_autograd._enable(graph_compiler):
            value.backward()
        assert (x.grad - expected).norm() <= 1e-6 * expected.norm()


def a_dtensor_is_the_whole_batch(rank: int, world: int) -> None:
    mesh = dist.init_device_mesh("cpu", (world,))
    functions = {f.__name__: f for f in (svmax_loss, mean_singular_value, nuclear_norm, svdvals)}
    functions["SVMaxLoss"] = SVMaxLoss(0.1, center=True)
    functions["spectrum"] = lambda x: svmax_ops.spectrum(x).effective_rank
    spread = [((21, DIMENSION), Shard(0)), ((5, DIMENSION), Shard(1)), ((4, 8, 6), Shard(0)), ((8, 6), Replicate())]
    for name, function in functions.items():
        for shape, placement in spread:
            for backend, dtype in (("auto", torch.float32), ("auto", torch.float64), ("reference", torch.float32)):
                x = truth.random(*shape, dtype=dtype).requires_grad_()
                over = distribute_tensor(x.detach(), mesh, [placement]).requires_grad_()
                with svmax_ops.use_backend(backend):
                    expected, actual = function(x), function(over)
                assert isinstance(actual, DTensor)
                torch.testing.assert_close(whole(actual), expected, rtol=2e-6, atol=1e-6)
                if name != "spectrum":
                    expected.sum().backward()
                    actual.sum().backward()
                    torch.testing.assert_close(whole(over.grad), x.grad, rtol=1e-4, atol=1e-6)
    batch = distribute_tensor(truth.random(4, 8, 6), mesh, [Shard(0)])
    assert svmax_loss(batch).placements == (Shard(0),)  # its matrices stay where they are


def a_compiled_dtensor(rank: int, world: int) -> None:
    torch._dynamo.reset()
    mesh = dist.init_device_mesh("cpu", (world,))
    x = truth.random(20, DIMENSION).requires_grad_()
    over = distribute_tensor(x.detach(), mesh, [Shard(0)]).requires_grad_()
    torch.compile(svmax_loss, fullgraph=True, backend="aot_eager")(over).backward()
    svmax_loss(x).backward()
    torch.testing.assert_close(whole(over.grad), x.grad, rtol=1e-4, atol=1e-6)


def a_dtensor_and_a_group_are_one_too_many(rank: int, world: int) -> None:
    over = distribute_tensor(truth.random(20, DIMENSION), dist.init_device_mesh("cpu", (world,)), [Shard(0)])
    said = r"^svmax_loss: embeddings must be a plain tensor.*got a DTensor; pass embeddings\.to_local\(\), or leave"
    with pytest.raises(TypeError, match=said):
        svmax_loss(over, group=dist.group.WORLD)
    value = svmax_loss(over.to_local(), group=dist.group.WORLD)
    torch.testing.assert_close(value, whole(svmax_loss(over)), rtol=2e-7, atol=0)


CHECKS = [
    gradients_after_data_parallel,
    gradients_after_fully_shard,
    ten_steps_after_data_parallel,
    ten_steps_after_fully_shard,
    without_averaging_the_gradient_is_divided_by_the_ranks,
    the_readme_does_so,
    autocast_changes_nothing,
    compiled_by_dynamo,
    compiled_ahead_of_time,
    compiled_ahead_of_time_with_options,
    compiled_by_inductor,
    compiled_with_fewer_rows_than_dimensions,
    compiled_with_rows_chosen_by_a_mask,
    compiled_autograd,
    a_dtensor_is_the_whole_batch,
    a_compiled_dtensor,
    a_dtensor_and_a_group_are_one_too_many,
]
