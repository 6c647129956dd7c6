"""The ops (csrc/schemas.cpp) by torch.linalg, in float64, on any device: the kernels of the backend ``reference``.

They are also what every other backend takes for what it has no kernel for: float64 input, which has no wider type to
accumulate its Gram matrix in, and the gradient of singular values, of which a Gram matrix without its eigenvectors
knows only the sum. On a GPU the decompositions wait for the host.

These carry no derivative: :mod:`svmax_ops.ops` gives all namespaces the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from svmax_ops.contracts import check_backward, check_gram, check_matrices, check_objective
from svmax_ops.formulas import (
    embedding,
    is_tall,
    objective_of,
    result_dtype,
    row_norms,
    without_null_direction,
)

_EPS = torch.finfo(torch.float64).eps


# ---- the three stages


def gram(x: Tensor, *, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    """``[..., b, d]`` -> the smaller Gram matrix ``[..., n, n]`` float64, row norms ``[..., b]`` (``[..., 0]``)."""
    check_matrices("gram", "x", x)
    e = embedding(x.to(torch.float64), normalize, center)[1]
    product = e.mT @ e if is_tall(x.shape[-2], x.shape[-1], center) else e @ e.mT
    return (product + product.mT) / 2, norms_of(x, normalize)  # torch's products are symmetric but for rounding


def spectral(gram: Tensor, *, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``[..., n, n]`` float64 -> N ``[...]``, G^(-1/2) ``[..., n, n]`` (``[..., 0, 0]``, when not needed), precision.

    N is good to 1e-7 at n = 128, to 5e-7 at rank one, where 127 roots of rounding noise add up.
    """
    check_gram(gram)
    gram, poison = _finite(gram)
    values, vectors = torch.linalg.eigh(gram) if need_inverse_sqrt else (torch.linalg.eigvalsh(gram), None)
    norm = values.clamp(min=0).sqrt().sum(-1) + poison
    if vectors is None:
        return norm, _nothing(gram), in_float64(gram, False)
    # eigh's values are wrong by up to 20 eps of the largest. Shifted by more than that W E is nowhere longer than one;
    # it matters in directions with s < 1e-5 s_1, and beyond the shift fades.
    noise, values = _EPS * values[..., -1:], values.clamp(min=0)
    shifted = values + 32 * noise / (1 + 1e-6 * values / torch.where(noise > 0, noise, 1))
    roots = torch.where(shifted > 0, shifted.rsqrt(), 0)
    w = (vectors * roots[..., None, :]) @ vectors.mT + poison[..., None, None]
    return norm, w, in_float64(gram, True)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    in_float32: Tensor,
    row_norms: Tensor,
    *,
    objective: str,
    normalize: bool,
    center: bool,
) -> Tensor:
    """grad ``[...]``, weight = slope * G^(-1/2) ``[..., n, n]`` -> dx ``[..., b, d]`` in x's dtype."""
    check_backward("backward", x, normalize, grad=grad, weight=weight, in_float32=in_float32, row_norms=row_norms)
    rows, e = embedding(x.to(torch.float64), normalize, center)
    b, d = x.shape[-2:]
    weight = without_null_direction(weight, b, d, center)
    g = grad[..., None, None] * (e @ weight if is_tall(b, d, center) else weight @ e)
    if normalize:  # dx = (g - (g.e) e) / |x|, of the rows before centring; zero for a zero row
        zero = row_norms[..., None] == 0
        g = (g - (g * rows).sum(-1, keepdim=True) * rows) / torch.where(zero, 1, row_norms[..., None])
        g = torch.where(zero, 0, g)
    return g.to(x.dtype)


# ---- the whole forward


def objective(
    x: Tensor, *, objective: str, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f(N) ``[...]``, slope * G^(-1/2) ``[..., n, n]`` (``[..., 0, 0]`` when not needed), its precision, row norms."""
    check_matrices("objective", "x", x)
    check_objective(objective, x, center)
    b, d = x.shape[-2:]
    e = embedding(x.to(torch.float64), normalize, center)[1]
    norm, w = spectral_of_rows(e if is_tall(b, d, center) else e.mT, need_gradient)
    f = objective_of(objective, b, d, center)
    value = f.value(norm).to(result_dtype(x))
    return value, w * f.slope(norm)[..., None, None], in_float64(x, need_gradient), norms_of(x, normalize)


def singular_values(
    x: Tensor, *, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values ``[..., n]``, descending; the Gram matrix ``[..., n, n]`` (``[..., 0, 0]``) and row norms."""
    check_matrices("singular_values", "x", x)
    e, poison = _finite(embedding(x.to(torch.float64), normalize, center)[1])
    values = (torch.linalg.svdvals(e) + poison[..., None]).to(result_dtype(x))
    if not need_gradient:
        return values, _nothing(e), norms_of(x, normalize)
    if x.dtype == torch.float64:  # the backward decomposes E again instead
        n = values.shape[-1]
        return values, e.new_zeros((*x.shape[:-2], n, n)), norms_of(x, normalize)
    return values, *gram(x, normalize=normalize, center=center)


def singular_values_backward(
    backward: Callable[..., Tensor],
    grad: Tensor,
    x: Tensor,
    gram: Tensor,
    row_norms: Tensor,
    *,
    normalize: bool,
    center: bool,
) -> Tensor:
    """dX = U diag(g) V' = E W with W = V diag(g / s) V' (wide: W E), by the eigenvectors of the Gram matrix.

    For float64, where the Gram matrix has half of the digits, by those of E. ``backward`` is the stage of the library
    that the op belongs to.
    """
    check_backward("singular_values_backward", x, normalize, grad=grad, gram=gram, row_norms=row_norms)
    if x.dtype == torch.float64:
        e, poison = _finite(embedding(x, normalize, center)[1])
        left, s, right = torch.linalg.svd(e, full_matrices=False)
        vectors = right.mT if is_tall(x.shape[-2], x.shape[-1], center) else left
        over = torch.where(s > cutoff(e, s), grad / s, 0)
    else:
        gram, poison = _finite(gram)
        values, vectors = torch.linalg.eigh(gram)
        # The shift of the stage `spectral`, so that |P| <= 1 + 1e-8 here too where s is rounding noise. A zero matrix
        # has the smallest number there is room for instead of zeros: its E, which is zero, makes zeros of W.
        values.clamp_(min=1e-300)
        over = grad.flip(-1) * torch.add(values, values[..., -1:], alpha=4 * _EPS).rsqrt_()
    weight = (vectors * over[..., None, :]) @ vectors.mT
    options = {"objective": "nuclear_norm", "normalize": normalize, "center": center}
    return backward(1 + poison, x, weight, in_float64(x, True), row_norms, **options)


# ---- parts that several of them share


def spectral_of_rows(e: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    """N ``[...]`` and W ``[..., d, d]`` (``[..., 0, 0]``) of rows ``[..., m, d]`` float64, m >= d.

    From E itself: no squared condition number.
    """
    e, poison = _finite(e)
    if not need_inverse_sqrt:
        return torch.linalg.svdvals(e).sum(-1) + poison, _nothing(e)
    _, s, vh = torch.linalg.svd(e, full_matrices=False)
    roots = torch.where(s > cutoff(e, s), 1 / s, 0)
    return s.sum(-1) + poison, (vh.mT * roots[..., None, :]) @ vh + poison[..., None, None]


def cutoff(e: Tensor, s: Tensor) -> Tensor:
    """Singular values up to here are rounding: their directions get no gradient, as in that of smallest norm."""
    return max(e.shape[-2:]) * _EPS * s[..., :1]


def norms_of(x: Tensor, normalize: bool) -> Tensor:
    """The row norms, as an op returns them."""
    x = x.to(torch.float64)
    return row_norms(x) if normalize else x.new_empty((*x.shape[:-2], 0))


def in_float64(x: Tensor, needed: bool) -> Tensor:
    """The precision of W, as an op returns it, where all products are made in float64."""
    return x.new_zeros((*x.shape[:-2], 1 if needed else 0), dtype=torch.bool)


def _nothing(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-2], 0, 0), dtype=torch.float64)


def _finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices with zeros for NaN and inf, which torch.linalg refuses, and what to add: NaN to those, else 0."""
    return x.nan_to_num(0.0, 0.0, 0.0), (x * 0).sum((-2, -1))
