"""The reference: torch.linalg in float64, on any device, differentiated by torch itself.

Fallback where there is no kernel, oracle of the tests and baseline of the benchmarks in one. Its second derivative is
torch's own, with 1 / (s_i^2 - s_j^2): NaN at exactly repeated singular values, where the native kernels' is finite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from svmax_ops.torch_internals import is_unknown, larger, root, smaller

namespace = ""


def objective(x: Tensor, name: str, normalize: bool, center: bool) -> Tensor:
    """``[..., b, d]`` -> ``[...]``: the nuclear norm of x, or the function of it that ``name`` says."""
    s, poison = _thin_singular_values(x, normalize, center)
    # Directions without a singular value get no gradient: the backward of svdvals would send the arbitrary vectors of
    # the null space. The smallest-norm subgradient leaves them out, as the kernels do.
    nuclear_norm = torch.where(s > cutoff(x, s.detach()), s, s.detach()).sum(-1)
    value = from_nuclear_norm(nuclear_norm, name, x.shape[-2], x.shape[-1], center)
    return (value * poison).to(result_dtype(x))


def singular_values(x: Tensor, normalize: bool, center: bool) -> Tensor:
    """``[..., b, d]`` -> ``[..., min(b, d)]``, descending."""
    s, poison = _thin_singular_values(x, normalize, center)
    return (s * poison[..., None]).to(result_dtype(x))


def result_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 input, float32 otherwise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def from_nuclear_norm(nuclear_norm: Tensor, name: str, b: int | Tensor, d: int, center: bool) -> Tensor:
    """The objective ``name`` as a function of the nuclear norm: s_mu = N / d, eq. 1 and eq. 4."""
    if name == "nuclear_norm":
        return nuclear_norm
    if name == "mean_singular_value":
        return nuclear_norm / d
    if name == "svmax_loss_unbounded":
        return nuclear_norm / -d
    # b stays symbolic under torch.compile: one graph for every batch size. Where b is a tensor, its number is nothing
    # that the host knows.
    minimum, sqrt = (torch.clamp_max, torch.sqrt) if isinstance(b, Tensor) else (smaller, root)
    upper = sqrt(minimum(b - 1 if center else b, d) * b) / d
    lower = 0.0 if center else sqrt(b) / d
    return torch.exp((upper - nuclear_norm / d) / (upper - lower))


def normalized_rows(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm; a zero row stays zero and gets a zero gradient (no epsilon)."""
    # The largest entry first: rows of 1e-200 have a norm, though their squares underflow.
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    norms = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return torch.where(largest == 0, 0, scaled / torch.where(largest == 0, 1, norms))


# ---- the three stages, with the signatures of csrc/schemas.cpp; they carry no derivative


def gram(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """``[..., b, d]`` -> the smaller Gram matrix ``[..., n, n]`` float64, row norms ``[..., b]`` (``[..., 0]``)."""
    x = x.detach().to(torch.float64)
    e = embedding(x, normalize, center)[1]
    norms = row_norms(x) if normalize else x.new_empty((*x.shape[:-2], 0))
    return (e.mT @ e if is_tall(*x.shape[-2:], center) else e @ e.mT), norms


def spectral(gram: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    """``[..., n, n]`` float64 -> N ``[...]``, G^(-1/2) ``[..., n, n]`` (``[..., 0, 0]`` when not needed).

    N is good to 1e-7 at n = 128, to 5e-7 at rank one, where 127 roots of rounding noise add up.
    """
    gram, poison = finite(gram.detach())
    values, vectors = torch.linalg.eigh(gram) if need_inverse_sqrt else (torch.linalg.eigvalsh(gram), None)
    norm = values.clamp(min=0).sqrt().sum(-1) * poison
    if vectors is None:
        return norm, gram.new_empty((*gram.shape[:-2], 0, 0))
    # eigh's values are wrong by up to 20 eps of the largest. Shifted by more than that W E is nowhere longer than one;
    # it matters in directions with s < 1e-5 s_1, and beyond the shift fades.
    noise, values = torch.finfo(torch.float64).eps * values[..., -1:], values.clamp(min=0)
    shifted = values + 32 * noise / (1 + 1e-6 * values / torch.where(noise > 0, noise, 1))
    roots = torch.where(shifted > 0, shifted.rsqrt(), 0)
    return norm, (vectors * roots[..., None, :]) @ vectors.mT * poison[..., None, None]


def spectral_of_rows(e: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    """The same from rows ``[..., m, d]`` float64, m >= d, for W ``[..., d, d]``: no squared condition number."""
    e, poison = finite(e.detach())
    if not need_inverse_sqrt:
        return torch.linalg.svdvals(e).sum(-1) * poison, e.new_empty((*e.shape[:-2], 0, 0))
    _, s, vh = torch.linalg.svd(e, full_matrices=False)
    roots = torch.where(s > cutoff(e, s), 1 / s, 0)
    return s.sum(-1) * poison, (vh.mT * roots[..., None, :]) @ vh * poison[..., None, None]


def backward(grad: Tensor, x: Tensor, weight: Tensor, row_norms: Tensor, normalize: bool, center: bool) -> Tensor:
    """grad ``[...]``, weight = slope * G^(-1/2) ``[..., n, n]`` -> dx ``[..., b, d]`` in x's dtype."""
    rows, e = embedding(x.detach().to(torch.float64), normalize, center)
    b, d = x.shape[-2:]
    weight = without_null_direction(weight, b, d, center)
    g = grad[..., None, None] * (e @ weight if is_tall(b, d, center) else weight @ e)
    if normalize:  # dx = (g - (g.e) e) / |x|, of the rows before centring; zero for a zero row
        zero = row_norms[..., None] == 0
        g = (g - (g * rows).sum(-1, keepdim=True) * rows) / torch.where(zero, 1, row_norms[..., None])
        g = torch.where(zero, 0, g)
    return g.to(x.dtype)


# ---- what several of them need


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


def row_norms(x: Tensor) -> Tensor:
    """``[..., b, d]`` -> ``[..., b]``: L2 norms, the largest entry taken out of the squares."""
    largest = x.abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    return (largest * torch.linalg.vector_norm(scaled, dim=-1, keepdim=True))[..., 0]


def embedding(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """The rows, normalised, and E, with their mean taken off.

    Twice: at collapse onto one direction the rounding of the mean is large beside E, and an SVD would find it as a
    singular value of its own.
    """
    rows = e = normalized_rows(x) if normalize else x
    for _ in range(2 if center else 0):
        e = e - e.mean(-2, keepdim=True)
    return rows, e


def finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each matrix, or zeros in its place where it holds a NaN or inf (torch.linalg refuses it), and 1 or then NaN."""
    finite = x.isfinite().all(-1).all(-1)
    return torch.where(finite[..., None, None], x, 0), torch.where(finite, 1.0, math.nan).to(torch.float64)


def cutoff(e: Tensor, s: Tensor) -> Tensor:
    """Singular values up to here are rounding: their directions get no gradient."""
    return larger(*e.shape[-2:]) * torch.finfo(torch.float64).eps * s[..., :1]


def _thin_singular_values(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """Singular values of E, and per matrix 1 or, where it holds a NaN or inf, NaN (then the values mean nothing)."""
    x = x.to(torch.float64)
    _, poison = finite(x.detach())
    x = x * poison[..., None, None]  # whose backward makes the whole gradient of such a matrix NaN
    e = finite(embedding(x, normalize, center)[1])[0]
    b, d = e.shape[-2:]
    if is_unknown(b >= d):  # the backward of svdvals asks; with d zero rows more there are enough, and d - n zeros
        return torch.linalg.svdvals(pad(e, (0, 0, 0, d)))[..., : smaller(b, d)], poison
    return torch.linalg.svdvals(e), poison
