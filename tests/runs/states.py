"""Comparing what runs end with."""

from __future__ import annotations

from typing import Any

import torch


def equal(one: Any, other: Any) -> bool:
    """Containers of tensors and plain values, to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one.equal(other) if isinstance(one, torch.Tensor) else one == other
