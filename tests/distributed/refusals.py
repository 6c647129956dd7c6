"""Checks of what a group refuses: the same clear error on every rank."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch.autograd import forward_ad

from svmax_ops import SVMaxLoss, nuclear_norm, svmax_loss
from tests import truth


def refused(match: str, rows: tuple[int, ...], d: int = 4, **options: object) -> None:
    x = truth.random(rows[dist.get_rank()], d)
    with pytest.raises(ValueError, match=match):
        svmax_loss(x, group=dist.group.WORLD, **options)


def a_rank_with_another_dimension(rank: int, world: int) -> None:
    x = truth.random(2, 3, 5 + rank, 7 if rank == 1 else 8)
    said = (
        r"^svmax_loss: all ranks of group must .* same dtype and shape but for the number of rows b, got"
        r" svmax_loss of \[2, 3, b, 8\] torch.float32 with normalize=True, center=False on rank 0, 2;"
        r" svmax_loss of \[2, 3, b, 7\] torch.float32 with normalize=True, center=False on rank 1\.$"
    )
    for _ in range(2):  # a refusal is not remembered as an agreement
        with pytest.raises(ValueError, match=said):
            svmax_loss(x, group=dist.group.WORLD)


def a_rank_with_another_dtype(rank: int, world: int) -> None:
    x = truth.random(5, 8, dtype=torch.float16 if rank == 2 else torch.float32)
    with pytest.raises(ValueError, match=r"float32 .* on rank 0, 1; .*float16 .* on rank 2\.$"):
        svmax_loss(x, group=dist.group.WORLD)


def a_rank_with_another_function(rank: int, world: int) -> None:
    x = truth.random(5, 8)
    calls = (svmax_loss, nuclear_norm, SVMaxLoss(bounded=False, center=True, group=dist.group.WORLD))
    options = {} if rank == 2 else {"group": dist.group.WORLD}
    said = (
        r"svmax_loss of .* on rank 0; nuclear_norm of .*normalize=False, .* on rank 1;"
        r" svmax_loss \(svmax_loss_unbounded\) of .*center=True on rank 2\.$"
    )
    with pytest.raises(ValueError, match=said):
        calls[rank](x, **options)


def too_few_rows_together(rank: int, world: int) -> None:
    refused(
        r"^svmax_loss: the ranks of group must hold .*min\(b, d\) >= 2 together, got \[1, 4\]; U equals L", (0, 1, 0)
    )
    refused(r"b >= 2 when centred together, got \[1, 4\]", (0, 1, 0), center=True)
    refused(r"min\(b, d\) >= 2 together, got \[9, 1\]", (4, 0, 5), d=1)
    refused(r"at least one row together, got none", (0, 0, 0), bounded=False)


def one_row_is_enough_where_there_is_no_bound(rank: int, world: int) -> None:
    x = truth.random(int(rank == 1), 4)
    value = svmax_loss(x, bounded=False, group=dist.group.WORLD)
    assert abs(value.item() + 0.25) <= 1e-7


def a_group_of_other_ranks(rank: int, world: int) -> None:
    group = dist.new_group([0, 2])
    if rank == 1:
        with pytest.raises(ValueError, match=r"^svmax_loss: group must be one that this process is a member of"):
            svmax_loss(truth.random(5, 4), group=group)


def a_group_that_was_destroyed(rank: int, world: int) -> None:
    group = dist.new_group()
    x = truth.random(5, 4)
    svmax_loss(x, group=group)
    dist.destroy_process_group(group)
    with pytest.raises(ValueError, match=r"^svmax_loss: group must be one that exists in this process"):
        svmax_loss(x, group=group)


def a_second_derivative(rank: int, world: int) -> None:
    for dtype, center in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
        x = truth.random(5, 4, dtype=dtype, seed=rank).requires_grad_()
        value = svmax_loss(x, center=center, group=dist.group.WORLD)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)  # alone it does no harm
        with pytest.raises(NotImplementedError, match=r"^svmax_loss: group= has a first derivative .* only"):
            torch.autograd.grad(gradient.square().sum(), x)


def forward_mode_and_transforms(rank: int, world: int) -> None:
    x = truth.random(5, 4, seed=rank)
    refusal = pytest.raises(NotImplementedError, match=r"^svmax_loss: group= has a first derivative .* only")
    with refusal, forward_ad.dual_level():
        svmax_loss(forward_ad.make_dual(x, torch.ones_like(x)), group=dist.group.WORLD)
    for transform in (torch.func.grad, torch.func.vmap):
        with refusal:
            transform(lambda rows: svmax_loss(rows, group=dist.group.WORLD))(
                x[None] if transform is torch.func.vmap else x
            )


COMPILED = {  # transform -> what it makes of a function of x, for torch.compile
    "grad": torch.func.grad,
    "grad_and_value": torch.func.grad_and_value,
    "vjp": lambda f: lambda x: torch.func.vjp(f, x)[1](x.new_ones(())),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),)),
    "vmap": lambda f: lambda x: torch.func.vmap(f)(x[None]),
    "jacrev": torch.func.jacrev,
    "hessian": torch.func.hessian,
    "grad of grad": lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum()),
}


def compiled_transforms(rank: int, world: int) -> None:
    """Never a gradient of zero without a word: Dynamo once traced one."""
    for dtype, center in ((torch.float32, False), (torch.float64, True)):
        x = truth.random(5, 4, dtype=dtype, seed=rank)
        for name in COMPILED if world == 1 and not center else ("grad", "jvp", "vmap"):
            torch._dynamo.reset()
            f = COMPILED[name](lambda x, center=center: svmax_loss(x, center=center, group=dist.group.WORLD))
            with pytest.raises(NotImplementedError, match=r"^svmax_loss: group= has a first derivative .* only"):
                print(name, torch.compile(f, backend="eager")(x))


def compiled_forward_mode_and_second_derivatives(rank: int, world: int) -> None:
    def tangent(x: torch.Tensor) -> torch.Tensor:
        with forward_ad.dual_level():
            return svmax_loss(forward_ad.make_dual(x, torch.ones_like(x)), group=dist.group.WORLD)

    def penalty(x: torch.Tensor) -> torch.Tensor:
        value = svmax_loss(x, group=dist.group.WORLD)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return value + gradient.square().sum()

    for dtype in (torch.float32, torch.float64):
        x = truth.random(5, 4, dtype=dtype, seed=rank)
        torch._dynamo.reset()
        with pytest.raises(NotImplementedError, match=r"^svmax_loss: group= has a first derivative .* only"):
            torch.compile(tangent, backend="eager")(x)
        with pytest.raises(NotImplementedError, match=r"^svmax_loss: group= has a first derivative .* only"):
            torch.compile(penalty, backend="eager")(x.requires_grad_()).backward()
        with pytest.raises(RuntimeError, match=r"does not currently support double backward"):
            torch.compile(penalty, backend="aot_eager")(x).backward()


def a_compiled_gradient_is_there(rank: int, world: int) -> None:
    """By backward() through what is compiled, and by torch.autograd.grad inside of it."""
    for dtype, center in ((torch.float32, False), (torch.float64, True)):
        torch._dynamo.reset()

        def loss(x: torch.Tensor, center: bool = center) -> torch.Tensor:
            return svmax_loss(x, center=center, group=dist.group.WORLD)

        def inside(x: torch.Tensor, loss=loss) -> torch.Tensor:
            return torch.autograd.grad(loss(x), x)[0]

        x = truth.random(5, 4, dtype=dtype, seed=rank).requires_grad_()
        (expected,) = torch.autograd.grad(loss(x), x)
        (actual,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(x), x)
        assert expected.abs().max() > 0
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(torch.compile(inside, backend="aot_eager")(x), expected, rtol=1e-6, atol=1e-7)


def a_module_with_a_group_is_not_copied(rank: int, world: int) -> None:
    """torch refuses it; the docstring says so."""
    for how in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="ProcessGroup"):
            how(SVMaxLoss(group=dist.group.WORLD))


CHECKS = [
    a_rank_with_another_dimension,
    a_rank_with_another_dtype,
    a_rank_with_another_function,
    too_few_rows_together,
    one_row_is_enough_where_there_is_no_bound,
    a_group_of_other_ranks,
    a_group_that_was_destroyed,
    a_second_derivative,
    forward_mode_and_transforms,
    compiled_transforms,
    compiled_forward_mode_and_second_derivatives,
    a_compiled_gradient_is_there,
    a_module_with_a_group_is_not_copied,
]
