"""What is logged of a retrieval run: the name and the digits of each number."""

from __future__ import annotations

import re

from svmax_ops.runs.measures import Measure

_RECALL = "recall_at_"
TRAINING = {
    "loss": Measure("loss"),
    "ranking_loss": Measure("ranking loss"),
    "spread": Measure("spread", 3),
}
"""What the progress shows of a step, by its key in metrics.jsonl."""
MEASURES = {"nmi": Measure("NMI", 2), "spread": TRAINING["spread"], "effective_rank": Measure("effective rank", 1)}
"""Of an evaluation, by its key in metrics.jsonl; after R@K, of the K that the data set is judged by."""
TIMES = {"step_ms": Measure("step", 2, "ms"), "svmax_ms": Measure("SVMax", 2, "ms")}
TIMES["torch_svd_ms"] = Measure("torch SVD", 2, "ms")
"""Of a step and, of it, SVMax; and what torch's SVD would take instead."""


def recall(k: int) -> Measure:
    return Measure(f"R@{k}", 1, "%", 100)


def k_of(name: str) -> int | None:
    """K, of the key of R@K; None of another."""
    found = re.fullmatch(rf"{_RECALL}(\d+)", name)
    return int(found[1]) if found else None


def measure_of(name: str) -> Measure | None:
    """Of a key in metrics.jsonl or in a table; None where it is not a number that was measured."""
    k = k_of(name)
    return recall(k) if k is not None else {**MEASURES, **TIMES}.get(name)
