"""How embeddings lie on the unit circle, and how good they are for retrieval."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from svmax_ops import spectrum
from svmax_ops.runs.measures import Measure
from svmax_ops.runs.retrieval.evaluation import recalls

BINS = 72  # of 5 degrees
TRAINING = {
    "loss": Measure("loss"),
    "ranking_loss": Measure("ranking loss"),
    "spread": Measure("spread", 3),
}
"""What the progress shows of a step, by its key in metrics.jsonl."""
MEASURES = {
    "s_1": Measure("s₁", 2),
    "s_2": Measure("s₂", 2),
    "spread": TRAINING["spread"],
    "centred_spread": Measure("centred spread", 3),
    "angular_entropy": Measure("angular entropy", 3),
    "largest_gap": Measure("largest empty arc", 0, "°"),
    "mean_length": Measure("mean vector", 2),
    "recall_at_1": Measure("R@1", 1, "%", 100),
}
"""Of a set of embeddings, by its key in metrics.jsonl: the name and the digits, in progress, tables and figures."""
EVALUATION = {"epoch": Measure("epoch", 0), **MEASURES}
"""What the progress tells of an evaluation."""


def measure(embeddings: Tensor, labels: Tensor) -> dict[str, Any]:
    """What is logged of an evaluation.

    Args:
        embeddings: ``[n, 2]``, n >= 2, of unit length.
        labels: int64 ``[n]``.
    Returns:
        ``s_1``, ``s_2``: see :func:`singular_values`. ``spread`` and ``centred_spread``: 0 collapsed, 1 even. The three
        of :func:`on_circle`. ``recall_at_1``: the share whose nearest other, in float64, is of the same class; a tie
        with another class is a miss. ``classes``: the number of classes.
    """
    s_1, s_2 = singular_values(embeddings)
    plain, centred = spectrum(embeddings.double()), spectrum(embeddings.double(), center=True)
    return {
        "s_1": s_1,
        "s_2": s_2,
        "spread": plain.spread.item(),
        "centred_spread": centred.spread.item(),
        **on_circle(embeddings),
        **recalls(embeddings, labels, (1,)),
        "classes": len(labels.unique()),
    }


def singular_values(embeddings: Tensor) -> tuple[float, float]:
    """Both of ``[n, 2]`` unit vectors, divided by sqrt(n), which is the one of collapsed embeddings.

    Their squares add up to 1; where they are equal, both are 0.707.
    """
    first, second = (spectrum(embeddings.double()).singular_values / math.sqrt(len(embeddings))).tolist()
    return first, second


def on_circle(embeddings: Tensor) -> dict[str, float]:
    """Of unit vectors ``[n, 2]``: ``angular_entropy``, ``largest_gap`` and ``mean_length``.

    ``angular_entropy``: of the shares of the 72 sectors of 5 degrees, divided by log 72; 1 is uniform, 0 one sector.
    ``largest_gap``: degrees of the largest arc without an embedding. ``mean_length``: of the mean vector; 1 is
    collapsed, 0 balanced.
    """
    counts = histogram(embeddings)
    share = counts / counts.sum()
    angles = _degrees(embeddings).sort().values
    return {
        "angular_entropy": (-torch.xlogy(share, share).sum() / math.log(BINS)).item(),
        "largest_gap": torch.cat([angles[1:], angles[:1] + 360]).sub(angles).max().item(),
        "mean_length": embeddings.double().mean(0).norm().item(),
    }


def histogram(embeddings: Tensor) -> Tensor:
    """float64 ``[72]``: how many of ``[n, 2]`` embeddings lie in each sector of 5 degrees, from angle 0 on."""
    sector = (_degrees(embeddings) * (BINS / 360)).long() % BINS  # 360 itself is 0, by rounding
    return torch.bincount(sector, minlength=BINS).double()


def _degrees(embeddings: Tensor) -> Tensor:
    """Angles ``[n]`` in [0, 360], float64, from the first axis anticlockwise."""
    x, y = embeddings.double().unbind(-1)
    return torch.atan2(y, x).rad2deg() % 360
