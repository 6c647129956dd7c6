"""The target: eight Gaussians on a circle (paper, section 4.2), and how much of it a set of samples covers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import svmax_ops
from svmax_ops.runs.gan.config import MODES, fixed_mode_weights

RADIUS = 2.0
STD = 0.02
NEAR, WIDE = 0.2, 0.5
"""Distances from a mode's centre: its 3 standard deviations are finer than a generator at this learning rate is."""
COVERED = 0.01
"""Of the samples, for a mode to count."""


def centres() -> Tensor:
    """Of the modes: ``[8, 2]`` float64."""
    angles = torch.arange(MODES, dtype=torch.float64) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], 1)


def mode_weights(text: str, seed: int) -> Tensor:
    """``[8]`` float64, adding up to one: "uniform", "random" (by ``seed``), or eight numbers between commas.

    Raises:
        UserError: it is none of these.
    """
    fixed = fixed_mode_weights(text)
    if fixed is None:
        weights = torch.rand(MODES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    else:
        weights = torch.tensor(fixed, dtype=torch.float64)
    return weights / weights.sum()


def draw(count: int, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Real samples: ``[count, 2]`` float32."""
    modes = torch.multinomial(weights, count, replacement=True, generator=generator)
    return centres().float()[modes] + STD * torch.randn(count, 2, generator=generator)


def coverage(samples: Tensor, batch_size: int) -> dict[str, Any]:
    """What ``samples`` ``[n, 2]`` have of the ring.

    ``modes``, ``modes_wide``: modes with at least 1 % of the samples within 0.2 and within 0.5 of their centre.
    ``high_quality``, ``high_quality_wide``: share of the samples within 0.2 and 0.5 of any. ``radius_99``: 99 % of the
    samples are nearer to the origin. ``singular_values``, ``singular_values_centred``: as they are on average of a
    batch of ``batch_size`` of them. None stands for what is not finite.
    """
    distances = torch.cdist(samples.double(), centres(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, mode = distances.min(1)
    result: dict[str, Any] = {}
    for name, distance in (("", NEAR), ("_wide", WIDE)):
        near = nearest <= distance
        counts = torch.bincount(mode[near], minlength=MODES)
        result[f"modes{name}"] = int((counts >= COVERED * len(samples)).sum())
        result[f"high_quality{name}"] = near.double().mean().item()
    finite = bool(samples.isfinite().all())
    result["radius_99"] = samples.double().norm(dim=1).quantile(0.99).item() if finite else None
    for name, center in (("singular_values", False), ("singular_values_centred", True)):
        scale = math.sqrt(batch_size / len(samples))
        result[name] = (scale * svmax_ops.svdvals(samples.double(), center=center)).tolist() if finite else None
    return result
