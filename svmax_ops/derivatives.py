r"""Directional derivatives of the singular values and of the gradients made from them, in float64 by torch.linalg.svd.

With :math:`E = U \mathrm{diag}(s) V^\top` a spectral function has the gradient :math:`Z = U \mathrm{diag}(g) V^\top`.
Along a direction :math:`\dot E`, with :math:`C = U^\top \dot E V`, A and B its symmetric and antisymmetric part,

.. math::
    \dot s = \mathrm{diag}(C), \qquad \dot Z = U K V^\top
        + (I - UU^\top) \dot E V \mathrm{diag}(g/s) V^\top + U \mathrm{diag}(g/s) U^\top \dot E (I - VV^\top),

    K_{ij} = A_{ij} \frac{g_i - g_j}{s_i - s_j} + B_{ij} \frac{g_i + g_j}{s_i + s_j}, \qquad K_{ii} = \dot g_i .

For the nuclear norm g is constant and the quotient with :math:`s_i - s_j` is absent: repeated singular values are
harmless. These serve second derivatives and forward mode only; the ordinary gradient is the kernels' work.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from svmax_ops.formulas import embedding, objective_of, row_norms


class _Path(NamedTuple):
    """E and its decomposition at x, and how E moves along v."""

    e0: Tensor  # the normalised rows, before centring
    e0_dot: Tensor
    norms: tuple[Tensor, Tensor] | None  # [..., b, 1] of the rows, 1 for a zero row, and how they move; if normalised
    u: Tensor
    s: Tensor
    vh: Tensor
    e_dot: Tensor
    c: Tensor
    inside: Tensor  # [..., n]: 1 where the singular value is more than rounding noise, NaN for NaN or inf input


def _path(x: Tensor, v: Tensor, normalize: bool, center: bool) -> _Path:
    x, v = x.to(torch.float64), v.to(torch.float64)
    finite = x.isfinite().all(-1).all(-1)[..., None, None]
    x = torch.where(finite, x, 0)  # torch.linalg refuses NaN; the mask `inside` makes the results NaN
    moving_norms = None
    e0, e0_dot = x, v
    if normalize:
        norms = row_norms(x)[..., None]
        v = torch.where(norms == 0, 0, v)  # a zero row stays zero
        norms = torch.where(norms == 0, 1, norms)
        e0 = x / norms
        norms_dot = (v * e0).sum(-1, keepdim=True)
        e0_dot = (v - norms_dot * e0) / norms
        moving_norms = norms, norms_dot
    e, e_dot = embedding(e0, False, center)[1], embedding(e0_dot, False, center)[1]
    u, s, vh = torch.linalg.svd(e, full_matrices=False)
    inside = (s > max(x.shape[-2:]) * torch.finfo(torch.float64).eps * s[..., :1]).to(torch.float64)
    inside = torch.where(finite[..., 0], inside, math.nan)
    return _Path(e0, e0_dot, moving_norms, u, s, vh, e_dot, u.mT @ e_dot @ vh.mT, inside)


def _quotient(numerator: Tensor, denominator: Tensor, tiny: Tensor) -> Tensor:
    negligible = denominator.abs() <= tiny
    return torch.where(negligible, 0, numerator / torch.where(negligible, 1, denominator))


def _move(path: _Path, g: Tensor, g_dot: Tensor) -> Tensor:
    """The derivative of the gradient with respect to x, for slopes g [..., n] that move by g_dot."""
    u, s, vh, c = path.u, path.s, path.vh, path.c
    g, g_dot = g * path.inside, g_dot * path.inside
    tiny = torch.finfo(torch.float64).eps * s[..., :1]
    g_i, g_j, s_i, s_j = g[..., :, None], g[..., None, :], s[..., :, None], s[..., None, :]
    symmetric, antisymmetric = (c + c.mT) / 2, (c - c.mT) / 2
    k = symmetric * _quotient(g_i - g_j, s_i - s_j, tiny[..., None])
    k = k + antisymmetric * _quotient(g_i + g_j, s_i + s_j, tiny[..., None]) + torch.diag_embed(g_dot)
    ratio = _quotient(g, s, tiny)
    right = path.e_dot @ vh.mT
    left = u.mT @ path.e_dot
    z_dot = (u @ k + (right - u @ c) * ratio[..., None, :]) @ vh + u @ (ratio[..., :, None] * (left - c @ vh))
    if path.norms is None:
        return z_dot
    # dx = (Z - (Z.e) e) / |x|, moved along with Z, e and |x|.
    z = (u * g[..., None, :]) @ vh
    (norms, norms_dot), e, e_dot = path.norms, path.e0, path.e0_dot
    along = (z * e).sum(-1, keepdim=True)
    along_dot = (z_dot * e + z * e_dot).sum(-1, keepdim=True)
    moved = (z_dot - along_dot * e - along * e_dot - (z - along * e) * (norms_dot / norms)) / norms
    return torch.where((e == 0).all(-1, keepdim=True), moved * 0, moved)  # * 0: a NaN matrix stays NaN


def _slopes(path: _Path, objective: str, shape: torch.Size, center: bool) -> tuple[Tensor, Tensor, Tensor]:
    """f', f'' and dN along the path, for the objective f(N)."""
    f, nuclear_norm = objective_of(objective, shape[-2], shape[-1], center), path.s.sum(-1)
    n_dot = (path.c.diagonal(dim1=-2, dim2=-1) * path.inside).sum(-1)
    return f.slope(nuclear_norm), f.curvature(nuclear_norm), n_dot


def objective_tangent(x: Tensor, v: Tensor, *, objective: str, normalize: bool, center: bool) -> Tensor:
    """``[...]``: the derivative of an objective at x ``[..., b, d]`` along v."""
    path = _path(x, v, normalize, center)
    slope, _, n_dot = _slopes(path, objective, x.shape, center)
    return slope * n_dot


def singular_values_tangent(x: Tensor, v: Tensor, *, normalize: bool, center: bool) -> Tensor:
    """``[..., n]``: the derivative of the singular values at x ``[..., b, d]`` along v."""
    path = _path(x, v, normalize, center)
    return path.c.diagonal(dim1=-2, dim2=-1) * path.inside


def of_objective_gradient(
    x: Tensor, v: Tensor, grad: Tensor, grad_dot: Tensor | None, *, objective: str, normalize: bool, center: bool
) -> tuple[Tensor, Tensor]:
    """The gradient ``grad * df/dx`` along v (and grad_dot): (df along v ``[...]``, derivative ``[..., b, d]``)."""
    path = _path(x, v, normalize, center)
    slope, curvature, n_dot = _slopes(path, objective, x.shape, center)
    grad = grad.to(torch.float64)
    moved = grad * curvature * n_dot + (0 if grad_dot is None else grad_dot.to(torch.float64) * slope)
    ones = torch.ones_like(path.s)
    return slope * n_dot, _move(path, (grad * slope)[..., None] * ones, moved[..., None] * ones)


def of_singular_values_gradient(
    x: Tensor, v: Tensor, grad: Tensor, grad_dot: Tensor | None, *, normalize: bool, center: bool
) -> tuple[Tensor, Tensor]:
    """``U diag(grad) V'`` along v (and grad_dot): (ds along v ``[..., n]``, derivative ``[..., b, d]``)."""
    path = _path(x, v, normalize, center)
    grad = grad.to(torch.float64)
    moved = torch.zeros_like(grad) if grad_dot is None else grad_dot.to(torch.float64)
    return path.c.diagonal(dim1=-2, dim2=-1) * path.inside, _move(path, grad, moved)
