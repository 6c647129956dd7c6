"""Interleaved timing: everything that is compared takes turns in one process, in many short rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds a call, over the rounds."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Timing:
        """Of the seconds of single calls."""
        return cls(*map(float, np.percentile(samples, [50, 20, 80])))

    def columns(self) -> dict[str, float]:
        """As the rows of benchmarks/results have it, in milliseconds."""
        return {f"{name}_ms": round(seconds * 1e3, 5) for name, seconds in self._asdict().items()}


def wall_clock(call: Callable[[], object], repeats: int) -> float:
    """Seconds a call, of ``repeats`` in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 50,
    round_seconds: float = 0.004,
    clock: Callable[[Callable[[], object], int], float] = wall_clock,
) -> dict[str, Timing]:
    """Time each call. A round runs every one of them for about ``round_seconds`` and the order turns with each round.

    What slows the machine down for a while then hits all alike; the median leaves out what hits one.
    """
    repeats = {name: max(1, round(round_seconds / clock(call, 3))) for name, call in calls.items()}
    names, samples = list(calls), {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                calls[name]()  # brings code and data of this one back into the caches
                samples[name].append(clock(calls[name], repeats[name]))
    finally:
        gc.enable()
    return {name: Timing.of(samples[name]) for name in names}
