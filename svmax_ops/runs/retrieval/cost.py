"""The share of a training step that SVMax takes, beside what torch's own SVD would take: measured inside the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from svmax_ops import svmax_loss


class Clock:
    """Seconds of work since it was made: of the processors, by all threads of this process, or of the GPU.

    The processors' time leaves out most of what other programs take. A GPU is seldom shared, and the process runs ahead
    of it: the GPU's own events tell when the work was done.

    Args:
        device: where the work is done.
        thread: count the thread alone that asks.
    """

    def __init__(self, device: torch.device, thread: bool = False) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._cpu = time.thread_time if thread else time.process_time
        self._begin = self._now()

    def seconds(self) -> float:
        end = self._now()
        if self._stream is None:
            return end - self._begin
        end.synchronize()
        return self._begin.elapsed_time(end) / 1000

    def _now(self) -> Any:
        return self._cpu() if self._stream is None else self._stream.record_event(torch.cuda.Event(enable_timing=True))


class Cost:
    """Collects times while the run goes on; the two competitors take turns on the batch just trained on."""

    def __init__(self, bounded: bool, center: bool) -> None:
        self.svmax = lambda x: svmax_loss(x, bounded=bounded, center=center)
        self.seconds: dict[str, list[float]] = {"step": [], "svmax": [], "torch_svd": []}

    def step(self, seconds: float) -> None:
        self.seconds["step"].append(seconds)

    def measure(self, activations: Tensor) -> None:
        """Time forward and backward of both on ``[b, d]``, in alternating order.

        With one thread: on a busy machine several of them spend most of their time waiting for each other, in loops
        that take the processor (a median of 98 ms for torch's SVD, where one thread takes 4).
        """
        turns: list[tuple[str, Callable[[Tensor], Tensor]]] = [("svmax", self.svmax), ("torch_svd", _torch_svd)]
        if len(self.seconds["svmax"]) % 2:
            turns.reverse()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for name, function in turns:
            x = activations.detach().clone().requires_grad_()
            clock = Clock(x.device, thread=True)
            function(x).backward()
            self.seconds[name].append(clock.seconds())
        torch.set_num_threads(threads)

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


def sentence(cost: dict[str, float], device: torch.device) -> str:
    of_what = "GPU time" if device.type == "cuda" else "processor time"
    return (
        f"SVMax took {cost['svmax_ms']:.2f} ms of a step's {cost['step_ms']:.1f} ms of {of_what}"
        f" ({cost['svmax_share']:.1%}); through torch.linalg.svdvals it would be {cost['torch_svd_ms']:.2f} ms"
        f" ({cost['torch_svd_share']:.1%})."
    )


def _torch_svd(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(F.normalize(x)).sum()
