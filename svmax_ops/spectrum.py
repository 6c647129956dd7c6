"""Telemetry: what the singular values say about a batch of embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from svmax_ops import functional


class Spectrum(NamedTuple):
    """The singular values of a batch of embeddings and what is read off them; none carries a gradient."""

    singular_values: Tensor
    """``[..., min(b, d)]``, descending."""
    mean: Tensor
    """``[...]``: their sum divided by d (eq. 1)."""
    lower: float
    """L: the mean when all embeddings are collapsed onto one direction."""
    upper: float
    """U: the mean when they are spread evenly over all directions."""
    spread: Tensor
    """``[...]``: (mean - L) / (U - L); 0 collapsed, 1 spread evenly."""
    effective_rank: Tensor
    """``[...]``: exp of the entropy of the singular values divided by their sum; 0 for a zero matrix."""
    condition: Tensor
    """``[...]``: the largest singular value divided by the smallest; inf when that is zero."""


@torch.no_grad()
def spectrum(embeddings: Tensor, *, normalize: bool = True, center: bool = False) -> Spectrum:
    r"""Singular values of a batch of embeddings with spread, effective rank and condition, for logging.

    Args:
        embeddings: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        normalize: divide each row by its L2 norm first. ``False`` trusts that they have unit norm.
        center: subtract the mean of the (normalised) rows first.
    Returns:
        A :class:`Spectrum`; float64 for float64 input, float32 otherwise; no gradient.
    Raises:
        TypeError: ``embeddings`` is not a dense tensor of one of these dtypes.
        ValueError: fewer than two dimensions, b = 0 or d = 0, or U equals L (see :func:`singular_value_bounds`).
    Source: bounds from Taha et al., "SVMax: A Feature Embedding Regularizer", section 3; effective rank from
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).

    >>> report = spectrum(torch.eye(8))
    >>> round(report.spread.item(), 4), round(report.effective_rank.item(), 4), report.condition.item()
    (1.0, 8.0, 1.0)
    """
    options = {"normalize": normalize, "center": center}
    singular_values = functional.singular_values("spectrum", "embeddings", embeddings, **options)
    lower, upper = functional.bounds("spectrum", "embeddings", embeddings.shape, center=center)
    d = embeddings.shape[-1]
    total = singular_values.sum(-1)
    mean = total / d
    share = singular_values / torch.where(total == 0, 1, total)[..., None]
    entropy = -torch.xlogy(share, share).sum(-1)
    smallest = singular_values[..., -1]
    return Spectrum(
        singular_values=singular_values,
        mean=mean,
        lower=lower,
        upper=upper,
        spread=(mean - lower) / (upper - lower),
        effective_rank=torch.where(total == 0, 0, entropy.exp()),
        condition=torch.where(smallest == 0, torch.inf, singular_values[..., 0] / smallest),
    )
