"""DTensor: how the ops are computed on a tensor that is spread over a mesh of processes.

A matrix is computed by every process as a whole, as torch does it for its own SVD: rows and columns are gathered
first. Matrices of a batch stay where they are. ``group=`` moves less: d * d numbers instead of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from svmax_ops.torch_internals import constant_while_compiling, keep, kept

# op -> (how many of each result's dimensions belong to one matrix, the same of each tensor argument)
_OWN_DIMENSIONS = {
    "gram": ((2, 1), (2,)),
    "spectral": ((0, 2), (2,)),
    "objective": ((0, 2, 1), (2,)),
    "singular_values": ((1, 2, 1), (2,)),
    "backward": ((2,), (0, 2, 2, 1)),
    "singular_values_backward": ((2,), (1, 2, 2, 1)),
}


@constant_while_compiling
def register() -> None:
    """Tell torch.distributed.tensor, which the caller has imported, of the ops that are defined; once a process."""
    for ops in (torch.ops.svmax, torch.ops.svmax_triton):
        if not hasattr(ops, "objective") or kept(ops, "sharding"):
            continue
        from torch.distributed.tensor.experimental import register_sharding

        for name, own in _OWN_DIMENSIONS.items():
            register_sharding(getattr(ops, name).default)(_rule(*own))
        keep(ops, "sharding", True)


def _rule(results: tuple[int, ...], arguments: tuple[int, ...]) -> Callable[..., Any]:
    """torch's rule of an op: the placements of its results and arguments that belong together."""

    def placements(*args: Any, **options: Any) -> list[tuple[list[Any], list[Any]]]:
        from torch.distributed.tensor import Replicate, Shard

        # Every argument has the same batch dimensions; further tensors follow as keyword arguments nowhere.
        batch = args[0].ndim - arguments[0]
        found = [([Replicate()] * len(results), [Replicate()] * len(arguments))]
        return found + [([Shard(i)] * len(results), [Shard(i)] * len(arguments)) for i in range(batch)]

    return placements
