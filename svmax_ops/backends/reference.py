"""The reference: torch.linalg in float64, on any device, differentiated by torch itself.

Fallback where there is no kernel, oracle of the tests and baseline of the benchmarks in one. Its second derivative is
torch's own, with 1 / (s_i^2 - s_j^2): NaN at exactly repeated singular values, where the native kernels' is finite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def objective(x: Tensor, name: str, normalize: bool, center: bool) -> Tensor:
    """``[..., b, d]`` -> ``[...]``: the nuclear norm of x, or the function of it that ``name`` says."""
    s, poison = _thin_singular_values(x, normalize, center)
    # Directions without a singular value get no gradient: the backward of svdvals would send the arbitrary vectors of
    # the null space. The smallest-norm subgradient leaves them out, as the kernels do.
    cutoff = max(x.shape[-2:]) * torch.finfo(torch.float64).eps * s.detach()[..., :1]
    nuclear_norm = torch.where(s > cutoff, s, s.detach()).sum(-1)
    value = from_nuclear_norm(nuclear_norm, name, x.shape[-2], x.shape[-1], center)
    return (value * poison).to(result_dtype(x))


def singular_values(x: Tensor, normalize: bool, center: bool) -> Tensor:
    """``[..., b, d]`` -> ``[..., min(b, d)]``, descending."""
    s, poison = _thin_singular_values(x, normalize, center)
    return (s * poison[..., None]).to(result_dtype(x))


def result_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 input, float32 otherwise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def from_nuclear_norm(nuclear_norm: Tensor, name: str, b: int, d: int, center: bool) -> Tensor:
    """The objective ``name`` as a function of the nuclear norm: s_mu = N / d, eq. 1 and eq. 4."""
    if name == "nuclear_norm":
        return nuclear_norm
    if name == "mean_singular_value":
        return nuclear_norm / d
    if name == "svmax_loss_unbounded":
        return nuclear_norm / -d
    # sym_min and sym_sqrt keep b symbolic under torch.compile: one graph for every batch size.
    upper = torch.sym_sqrt(torch.sym_min(b - 1 if center else b, d) * b) / d
    lower = 0.0 if center else torch.sym_sqrt(b) / d
    return torch.exp((upper - nuclear_norm / d) / (upper - lower))


def normalized_rows(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm; a zero row stays zero and gets a zero gradient (no epsilon)."""
    # The largest entry first: rows of 1e-200 have a norm, though their squares underflow.
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    norms = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return torch.where(largest == 0, 0, scaled / torch.where(largest == 0, 1, norms))


def _thin_singular_values(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """Singular values of E, and per matrix 1 or, where it holds a NaN or inf, NaN (then the values mean nothing)."""
    x = x.to(torch.float64)
    finite = x.detach().isfinite().all(-1).all(-1)
    poison = torch.where(finite, 1.0, math.nan).to(torch.float64)
    x = x * poison[..., None, None]  # whose backward makes the whole gradient of such a matrix NaN
    e = normalized_rows(x) if normalize else x
    if center:
        e = e - e.mean(-2, keepdim=True)
    # torch.linalg raises on NaN; such a matrix is decomposed as zeros, and its result is multiplied by NaN afterwards.
    e = torch.where(finite[..., None, None], e, 0)
    return torch.linalg.svdvals(e), poison
