"""The share of a training step that SVMax takes, beside what torch's own SVD would take: measured inside the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from svmax_ops import svmax_loss


class Cost:
    """Collects times while the run goes on; the two competitors take turns on the batch just trained on."""

    def __init__(self, bounded: bool, center: bool) -> None:
        self.svmax = lambda x: svmax_loss(x, bounded=bounded, center=center)
        self.seconds: dict[str, list[float]] = {"step": [], "svmax": [], "torch_svd": []}

    def step(self, seconds: float) -> None:
        self.seconds["step"].append(seconds)

    def measure(self, activations: Tensor) -> None:
        """Time forward and backward of both on ``[b, d]``, in alternating order."""
        turns: list[tuple[str, Callable[[Tensor], Tensor]]] = [("svmax", self.svmax), ("torch_svd", _torch_svd)]
        if len(self.seconds["svmax"]) % 2:
            turns.reverse()
        for name, function in turns:
            x = activations.detach().clone().requires_grad_()
            begin = time.perf_counter()
            function(x).backward()
            self.seconds[name].append(time.perf_counter() - begin)

    def result(self) -> dict[str, float]:
        """Medians in milliseconds, and the shares: of this run's step, and of one with torch's SVD in SVMax's place."""
        step, svmax, torch_svd = (1000 * median(self.seconds[name]) for name in ("step", "svmax", "torch_svd"))
        return {
            "step_ms": step,
            "svmax_ms": svmax,
            "torch_svd_ms": torch_svd,
            "svmax_share": svmax / step,
            "torch_svd_share": torch_svd / (step - svmax + torch_svd),
        }


def sentence(cost: dict[str, float]) -> str:
    return (
        f"SVMax took {cost['svmax_ms']:.2f} ms of a step of {cost['step_ms']:.1f} ms ({cost['svmax_share']:.1%});"
        f" through torch.linalg.svdvals it would be {cost['torch_svd_ms']:.2f} ms ({cost['torch_svd_share']:.1%})."
    )


def _torch_svd(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(F.normalize(x)).sum()
