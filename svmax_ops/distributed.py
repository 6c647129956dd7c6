"""The batch of a whole process group: the stages of every rank, with one all-reduce between `gram` and `spectral`.

The Gram matrix of all rows is the sum of those of each rank's rows, so d * d float64 numbers (and a row count) cross
the network, whatever the batch. Each rank decomposes the sum by itself, to the same bits on machines of a kind, and
takes the gradient of its own rows: the backward does not communicate.

The d x d Gram matrix serves too where all ranks together hold fewer than d rows, and any rank none: missing rows are
zero rows. A rank-deficient one costs float32 input no accuracy that the contract promises (at 64x128 the nuclear norm
is within 1e-7), and to gather the rows instead the host would have to wait for their number in every step. float64
input, which has no wider type to accumulate in, gathers the triangular factors of each rank's rows and takes their SVD.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from svmax_ops.formulas import bounds_differ, normalized_rows, objective_of, result_dtype
from svmax_ops.linalg import in_float64, spectral_of_rows
from svmax_ops.ops import Functions
from svmax_ops.torch_internals import has_tangent, is_unknown, transforms_are_active

if TYPE_CHECKING:
    from svmax_ops.backends import Backend


def objective(
    function: str, x: Tensor, name: str, normalize: bool, center: bool, group: dist.ProcessGroup, stages: Backend
) -> Tensor:
    """``[..., b, d]`` of each rank -> ``[...]``, equal on every rank: the objective ``name`` of the rows of all ranks.

    The gradient is the number of ranks times that of this value: averaged over the ranks, as DistributedDataParallel
    and fully_shard do it, it gives a network what one process with all rows would.

    Raises:
        ValueError: the ranks disagree about anything but b, or b of all ranks is too small; on every rank, by the first
            call with these arguments. Under torch.compile nothing is exchanged to find out.
        NotImplementedError: a second derivative, forward mode, or a transform of torch.func.
    """
    _refuse_transforms(function, x)
    if not torch.compiler.is_compiling():
        _check(function, group)
        of = name.removesuffix("_unbounded")
        _agree(function, _Call(of, name, normalize, center, x.dtype, tuple(x.shape[:-2]), x.shape[-1]), x, group)
    b, d = x.shape[-2:]
    exact = x.dtype == torch.float64
    dtype = result_dtype(x)
    if center or exact:
        x = x.to(torch.float64)
        x, normalize = normalized_rows(x) if normalize else x, False
    if center:
        # P's columns sum to zero over all ranks, so no gradient goes through the mean. Twice: at collapse the rounding
        # of the first mean is large beside what is left, in a direction along which W is 1 / sqrt(shift).
        for _ in range(2):
            total, rows = _summed(x.detach().sum(-2), b, group)
            x = x - (total / rows)[..., None, :]
    unknown = is_unknown(b < d)
    if unknown or b < d:
        x = pad(x, (0, 0, 0, d if unknown else d - b))  # zero rows: `gram` gives [d, d] on every rank
    nuclear_norm, kept, rows = _stages_of_all(x, b, normalize, exact, group, stages)
    if kept is not None:
        options = dist.get_world_size(group), normalize, stages.namespace, function
        nuclear_norm = _with_gradient(nuclear_norm, x, *kept, *options)
    return objective_of(name, rows, d, center).value(nuclear_norm).to(dtype)


def _stages_of_all(
    x: Tensor, b: int, normalize: bool, exact: bool, group: dist.ProcessGroup, stages: Backend
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None, Tensor]:
    """N ``[...]``, what the backward needs, and the number of rows of all ranks; nothing of it carries a gradient.

    x ``[..., b or zero rows up to d, d]``. Where x wants a gradient, that is W ``[..., d, d]``, its precision and the
    row norms, as the stages give them.
    """
    need_gradient = torch.is_grad_enabled() and x.requires_grad
    with torch.no_grad():
        if exact:
            row_norms = x.new_empty((*x.shape[:-2], 0))
            triangles, rows = _gathered(torch.linalg.qr(x, mode="r").R, b, group)
            nuclear_norm, inverse_sqrt = spectral_of_rows(triangles, need_gradient)
            in_float32 = in_float64(triangles, need_gradient)
        else:
            gram, row_norms = stages.gram(x, normalize, False)
            gram, rows = _summed(gram, b, group)
            nuclear_norm, inverse_sqrt, in_float32 = stages.spectral(gram, need_gradient)
    return nuclear_norm, (inverse_sqrt, in_float32, row_norms) if need_gradient else None, rows


# ---- the gradient, as ops: torch.compile looks into an autograd function, and would take its gradient for a constant


@torch.library.custom_op("svmax_group::with_gradient", mutates_args=())
def _with_gradient(
    nuclear_norm: Tensor,
    x: Tensor,
    inverse_sqrt: Tensor,
    in_float32: Tensor,
    row_norms: Tensor,
    ranks: int,
    normalize: bool,
    namespace: str,
    function: str,
) -> Tensor:
    """The nuclear norm as a function of x: its gradient is the stage `backward`, times the number of ranks."""
    return nuclear_norm.clone()


@_with_gradient.register_fake
def _(nuclear_norm: Tensor, *unused: Any) -> Tensor:
    return torch.empty_like(nuclear_norm)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:5])
    ctx.options = inputs[5:]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, inverse_sqrt, in_float32, row_norms = ctx.saved_tensors
    ranks, normalize, namespace, function = ctx.options
    with torch.no_grad():  # the stage's own derivative is that of the local rows alone
        stages = Functions(namespace)
        dx = stages.backward(grad * ranks, x, inverse_sqrt, in_float32, row_norms, normalize, False)
    return None, _once_differentiable(dx, grad, x, function), *[None] * 7


_with_gradient.register_autograd(_gradient, setup_context=_keep)


@torch.library.custom_op("svmax_group::once_differentiable", mutates_args=())
def _once_differentiable(dx: Tensor, grad: Tensor, x: Tensor, function: str) -> Tensor:
    """dx, the gradient at ``grad`` and ``x``, which says so when it is differentiated once more."""
    return dx.clone()


@_once_differentiable.register_fake
def _(dx: Tensor, grad: Tensor, x: Tensor, function: str) -> Tensor:
    return torch.empty_like(dx)


def _keep_function(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.function = inputs[-1]


def _refuse_second_derivative(ctx: Any, grad: Tensor) -> Any:
    raise NotImplementedError(_only_backward(ctx.function))


_once_differentiable.register_autograd(_refuse_second_derivative, setup_context=_keep_function)


def _only_backward(function: str) -> str:
    return (
        f"{function}: group= has a first derivative by backward() or torch.autograd.grad only, no second one, no"
        " forward mode and no torch.func; without group= there are all of them."
    )


# ---- what crosses the network


def _summed(x: Tensor, b: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """x and the number of rows, summed over the ranks."""
    both = torch.cat([x.flatten(), x.new_full((1,), b)])
    dist.all_reduce(both, group=group)
    return both[:-1].view(x.shape), both[-1]


def _gathered(x: Tensor, b: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """x ``[..., d, d]`` of every rank below each other ``[..., ranks * d, d]``, and the number of rows of all."""
    both = torch.cat([x.flatten(), x.new_full((1,), b)])
    parts = [torch.empty_like(both) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, both, group=group)
    return torch.cat([part[:-1].view(x.shape) for part in parts], -2), torch.stack(parts)[:, -1].sum()


# ---- what is refused


class _Call(NamedTuple):
    """The part of a call that all ranks must agree about; the number of rows is each rank's own."""

    function: str
    objective: str
    normalize: bool
    center: bool
    dtype: torch.dtype
    batch: tuple[int, ...]
    d: int

    def __str__(self) -> str:
        shape = ", ".join(map(str, (*self.batch, "b", self.d)))
        what = self.function if self.objective == self.function else f"{self.function} ({self.objective})"
        return f"{what} of [{shape}] {self.dtype} with normalize={self.normalize}, center={self.center}"


_agreed: WeakKeyDictionary[dist.ProcessGroup, set[_Call]] = WeakKeyDictionary()


def _agree(function: str, call: _Call, x: Tensor, group: dist.ProcessGroup) -> None:
    """Refuse on every rank what the ranks cannot compute together. Exchanged once: it makes the host wait."""
    agreed = _agreed.setdefault(group, set())
    if call in agreed:
        return
    calls: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(calls, (call, x.shape[-2]), group=group)
    ranks = defaultdict(list)
    for rank, (other, _) in enumerate(calls):
        ranks[other].append(str(rank))
    if len(ranks) > 1:
        said = "; ".join(f"{other} on rank {', '.join(where)}" for other, where in ranks.items())
        raise ValueError(
            f"{function}: all ranks of group must call the same function on embeddings of the same dtype and"
            f" shape but for the number of rows b, got {said}."
        )
    b = sum(rows for _, rows in calls)
    if b < 1:
        raise ValueError(f"{function}: the ranks of group must hold at least one row together, got none.")
    conditions, wanted = bounds_differ(b, call.d, call.center)
    if call.objective == "svmax_loss" and not all(conditions):
        raise ValueError(
            f"{function}: the ranks of group must hold [..., b, d] with {wanted} together, got [{b}, {call.d}];"
            " U equals L. Use bounded=False."
        )
    agreed.add(call)


def _refuse_transforms(function: str, x: Tensor) -> None:
    """Also while compiling: Dynamo evaluates both questions, and would trace a gradient of zero without a word."""
    if has_tangent(x) or transforms_are_active():
        raise NotImplementedError(_only_backward(function))


def _check(function: str, group: Any) -> None:
    if not dist.is_available():
        raise ValueError(f"{function}: group must be None: torch {torch.__version__} is a build without distributed.")
    if not isinstance(group, dist.ProcessGroup):
        if group == dist.GroupMember.NON_GROUP_MEMBER:  # what new_group returns to the other ranks
            raise ValueError(f"{function}: group must be one that this process is a member of; it is not.")
        raise TypeError(
            f"{function}: group must be a torch.distributed.ProcessGroup or None, got {type(group).__name__}."
            " A DeviceMesh has them: mesh.get_group()."
        )
    try:
        dist.get_rank(group)
    except ValueError as error:
        raise ValueError(f"{function}: group must be one that exists in this process: {error}") from None
