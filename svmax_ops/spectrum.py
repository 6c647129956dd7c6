"""Telemetry: what the singular values say about a batch of embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from svmax_ops import functional
from svmax_ops.formulas import row_norms
from svmax_ops.torch_internals import root, smaller


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
    """``[...]``: 0 for embeddings collapsed onto one direction, 1 for embeddings spread evenly over all; in [0, 1]."""
    effective_rank: Tensor
    """``[...]``: exp of the entropy of the singular values divided by their sum; 0 for a zero matrix."""
    condition: Tensor
    """``[...]``: the largest singular value divided by the smallest; inf when that is zero."""


@torch.no_grad()
def spectrum(embeddings: Tensor, *, normalize: bool = True, center: bool = False) -> Spectrum:
    r"""Singular values of a batch of embeddings with spread, effective rank and condition, for logging.

    .. math:: \text{spread} = \frac{N / R - 1}{\sqrt{n} - 1}, \quad \text{centred: } \frac{N}{R \sqrt{k}}

    with N the sum of the singular values, R the Frobenius norm of the (normalised) rows before centring,
    :math:`n = \min(b, d)` and :math:`k = \min(b - 1, d)`. For rows of unit norm that is (mean - L) / (U - L); zero
    rows and rows that are not normalised keep it in [0, 1]. It is 0 for a zero matrix.

    Args:
        embeddings: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        normalize: divide each row by its L2 norm first. ``lower`` and ``upper`` are for rows of unit norm.
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
        spread=_spread(singular_values, embeddings, normalize, center),
        effective_rank=torch.where(total == 0, 0, entropy.exp()),
        condition=torch.where(smallest == 0, torch.inf, singular_values[..., 0] / smallest),
    )


def _spread(singular_values: Tensor, embeddings: Tensor, normalize: bool, center: bool) -> Tensor:
    b, d = embeddings.shape[-2:]
    s = singular_values.double()
    if not center:
        size = _norm(s)
    elif normalize:
        size = (embeddings != 0).any(-1).sum(-1).double().sqrt()
    else:
        size = _norm(row_norms(embeddings.double()))
    collapsed, even = (0.0 if center else 1.0), root(smaller(b - 1 if center else b, d))
    sum_over_size = s.sum(-1) / torch.where(size == 0, 1, size)
    spread = ((sum_over_size - collapsed) / (even - collapsed)).clamp(0, 1)  # rounding can leave the interval
    return torch.where(size == 0, 0, spread).to(singular_values.dtype)


def _norm(x: Tensor) -> Tensor:
    """L2 norm of the last dimension; squares of float64 numbers neither overflow nor vanish."""
    return row_norms(x[..., None, :])[..., 0]
