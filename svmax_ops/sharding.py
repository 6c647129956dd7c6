"""DTensor: how the ops are computed on a tensor that is spread over a mesh of processes.

A matrix is computed by every process as a whole, as torch does it for its own SVD: rows and columns are gathered
first. Matrices of a batch stay where they are. ``group=`` moves less: d * d numbers instead of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from svmax_ops.torch_internals import constant_while_compiling, keep, kept

# op -> (its results, its tensor arguments, how many dimensions of the first argument belong to one matrix)
_OPS = {
    "gram": (2, 1, 2),
    "spectral": (3, 1, 2),
    "objective": (4, 1, 2),
    "singular_values": (3, 1, 2),
    "backward": (1, 5, 0),
    "singular_values_backward": (1, 4, 1),
}


@constant_while_compiling
def register() -> None:
    """Tell torch.distributed.tensor, which the caller has imported, of the ops that are defined; once a process."""
    for ops in (torch.ops.svmax, torch.ops.svmax_triton, torch.ops.svmax_reference):
        if not hasattr(ops, "objective") or kept(ops, "sharding"):
            continue
        from torch.distributed.tensor.experimental import register_sharding

        for name, counts in _OPS.items():
            register_sharding(getattr(ops, name).default)(_rule(*counts))
        keep(ops, "sharding", True)


def _rule(results: int, arguments: int, own_dimensions: int) -> Callable[..., Any]:
    """torch's rule of an op: the placements of its results and its tensor arguments that go together."""

    def placements(first: Any, *others: Any, **options: Any) -> list[tuple[list[Any], list[Any]]]:
        from torch.distributed.tensor import Replicate, Shard

        # Results and arguments all have the same batch dimensions, which come first.
        batch_dimensions = [Shard(i) for i in range(first.ndim - own_dimensions)]
        return [([each] * results, [each] * arguments) for each in (Replicate(), *batch_dimensions)]

    return placements
