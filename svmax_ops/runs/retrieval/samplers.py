"""Batches of p classes x l pictures (paper, section 4), in an order that a checkpoint can keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from svmax_ops.runs.errors import UserError


class ClassBatches:
    """An endless stream of batches of p classes with l pictures each, the rows of a class side by side.

    A pass takes the classes in a random order without replacement and drops the last, partial batch; then the next
    pass begins. The pictures of a class are drawn without replacement, with it only where the class has fewer than l.

    Args:
        labels: ``[n]``, the class of each picture.
        p: classes a batch.
        l: pictures a class.
        seed: of the order.
    """

    def __init__(self, labels: Tensor, p: int, l: int, seed: int) -> None:  # noqa: E741 - the paper's letter
        counts = labels.unique(return_counts=True)[1]
        self.members = labels.argsort(stable=True).split(counts.tolist())
        if p > len(self.members):
            raise UserError(
                f"--batch-size {p * l} needs {p} training classes of {l} pictures, the data has {len(self.members)};"
                f" at most {len(self.members) * l}."
            )
        self.p, self.l = p, l
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.next = 0

    def __next__(self) -> Tensor:
        """Indices ``[p * l]`` of the next batch."""
        if self.next + self.p > len(self.order):
            self.order = torch.randperm(len(self.members), generator=self.generator)
            self.next = 0
        classes = self.order[self.next : self.next + self.p]
        self.next += self.p
        return torch.cat([self._pick(self.members[label]) for label in classes.tolist()])

    def _pick(self, members: Tensor) -> Tensor:
        if len(members) >= self.l:
            return members[torch.randperm(len(members), generator=self.generator)[: self.l]]
        return members[torch.randint(len(members), (self.l,), generator=self.generator)]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "order": self.order, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.order, self.next = state["order"], state["next"]
