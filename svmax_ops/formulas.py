r"""The formulas that every part of the operator needs: the embedding matrix E, the objectives, their bounds.

E are the rows of the input, each divided by its L2 norm and less their mean where that is asked for. An objective is a
function f of the nuclear norm :math:`N = \sum_i \sigma_i(E)`, and its gradient :math:`f'(N)` times the polar factor.
Nothing here is differentiated: see :mod:`svmax_ops.derivatives`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from svmax_ops.torch_internals import root, smaller


def result_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 input, float32 otherwise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# ---- the embedding matrix


def row_norms(x: Tensor) -> Tensor:
    """``[..., b, d]`` -> ``[..., b]``: L2 norms, the largest entry taken out of the squares."""
    largest = x.abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    norms: Tensor = largest * torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return norms[..., 0]


def normalized_rows(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm; a zero row stays zero and gets a zero gradient (no epsilon)."""
    # The largest entry first: rows of 1e-200 have a norm, though their squares underflow.
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    norms = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return torch.where(largest == 0, 0, scaled / torch.where(largest == 0, 1, norms))


def embedding(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """The rows, normalised, and E, with their mean taken off.

    Twice: at collapse onto one direction the rounding of the mean is large beside E, and an SVD would find it as a
    singular value of its own.
    """
    rows = e = normalized_rows(x) if normalize else x
    for _ in range(2 if center else 0):
        e = e - e.mean(-2, keepdim=True)
    return rows, e


def is_tall(b: int, d: int, center: bool) -> bool:
    """Whether the smaller Gram matrix is E'E ``[d, d]``, not EE' ``[b, b]``.

    The rows of a centred E add up to zero, so EE' has the null vector of ones, and the backward counts on knowing it:
    for b = d, centred, EE' is taken.
    """
    return (b - 1 if center else b) >= d


def without_null_direction(weight: Tensor, b: int, d: int, center: bool) -> Tensor:
    """W ``[..., n, n]``, the mean of its rows taken off where E is centred and wide.

    Along the null vector of ones, which EE' then has, W is 1 / sqrt(shift): it would multiply what rounding has left
    of the sum of E's rows, 3e-3 of P at noise 1e-6.
    """
    return weight - weight.mean(-2, keepdim=True) if center and not is_tall(b, d, center) else weight


# ---- the objectives


def bounds(b: Any, d: int, center: bool) -> tuple[Any, Any]:
    """L and U, the least and the greatest mean singular value of b rows of unit norm (paper, section 3).

    They are floats; symbolic where a size is, under torch.compile, for one graph for every batch size; and tensors
    where b is one, whose number the host does not know.
    """
    minimum, sqrt = (torch.clamp_max, torch.sqrt) if isinstance(b, Tensor) else (smaller, root)
    return 0.0 if center else sqrt(b) / d, sqrt(minimum(b - 1 if center else b, d) * b) / d


def bounds_differ(b: Any, d: Any, center: bool) -> tuple[tuple[Any, ...], str]:
    """Conditions that all hold where L < U, and their words; otherwise there is one direction, and U equals L."""
    return ((b >= 2,), "b >= 2 when centred") if center else ((b >= 2, d >= 2), "min(b, d) >= 2")


class Linear(NamedTuple):
    """f = N / divisor."""

    divisor: float

    def value(self, nuclear_norm: Tensor) -> Tensor:
        return nuclear_norm / self.divisor

    def slope(self, nuclear_norm: Tensor) -> Tensor:
        return torch.full_like(nuclear_norm, 1 / self.divisor)

    def curvature(self, nuclear_norm: Tensor) -> Tensor:
        return torch.zeros_like(nuclear_norm)


class Bounded(NamedTuple):
    """f = exp((U - N / d) / (U - L)), eq. 4."""

    upper: Any  # U; a float, a symbol or a tensor, as `bounds` gives it
    width: Any  # U - L
    d: int

    def value(self, nuclear_norm: Tensor) -> Tensor:
        return torch.exp((self.upper - nuclear_norm / self.d) / self.width)

    def slope(self, nuclear_norm: Tensor) -> Tensor:
        slope: Tensor = self.value(nuclear_norm) / (-self.width * self.d)
        return slope

    def curvature(self, nuclear_norm: Tensor) -> Tensor:
        curvature: Tensor = self.value(nuclear_norm) / (self.width * self.d) ** 2
        return curvature


OBJECTIVES = ("nuclear_norm", "mean_singular_value", "svmax_loss_unbounded", "svmax_loss")


def objective_of(name: str, b: Any, d: int, center: bool) -> Linear | Bounded:
    """The objective of b rows ``[b, d]`` with this name of OBJECTIVES: N, s_mu = N / d, eq. 1 or eq. 4."""
    if name != "svmax_loss":
        return Linear({"nuclear_norm": 1, "mean_singular_value": d, "svmax_loss_unbounded": -d}[name])
    lower, upper = bounds(b, d, center)
    return Bounded(upper, upper - lower, d)
