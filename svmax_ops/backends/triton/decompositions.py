"""What torch's decompositions serve: float64 input, which has no wider type to accumulate its Gram matrix in, and
singular values, of which matrix products know only the sum. On a GPU they wait for the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svmax_ops import derivatives
from svmax_ops.backends import reference

_EPS = torch.finfo(torch.float64).eps


def objective_by_svd(
    x: Tensor, objective: str, normalize: bool, center: bool, need_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Value ``[...]`` and slope times W ``[..., n, n]`` (``[..., 0, 0]`` without) of float64 ``[..., b, d]``."""
    b, d = x.shape[-2:]
    e = reference.embedding(x, normalize, center)[1]
    norm, w = reference.spectral_of_rows(e if reference.is_tall(b, d, center) else e.mT, need_gradient)
    slope, _ = derivatives.of_nuclear_norm(norm, objective, b, d, center)
    value = reference.from_nuclear_norm(norm, objective, b, d, center)
    return value.to(reference.result_dtype(x)), w * slope[..., None, None]


def singular_values_by_svd(x: Tensor, normalize: bool, center: bool) -> Tensor:
    """``[..., n]``, descending."""
    return reference.singular_values(x.detach(), normalize, center)


def singular_values_backward_by_decomposition(
    grad: Tensor, x: Tensor, gram: Tensor, row_norms: Tensor, normalize: bool, center: bool
) -> Tensor:
    """dX = U diag(g) V' = E W with W = V diag(g / s) V' (wide: W E), by the eigenvectors of the Gram matrix.

    For float64, where the Gram matrix has half of the digits, by those of E.
    """
    grad = grad.to(torch.float64)
    if x.dtype == torch.float64:
        e, poison = reference.finite(reference.embedding(x, normalize, center)[1])
        left, s, right = torch.linalg.svd(e, full_matrices=False)
        vectors = right.mT if reference.is_tall(*x.shape[-2:], center) else left
        over = torch.where(s > reference.cutoff(e, s), grad / s, 0)
    else:
        gram, poison = reference.finite(gram)
        values, vectors = torch.linalg.eigh(gram)
        # The shift of the stage `spectral`, so that |P| <= 1 + 1e-8 here too where s is rounding noise.
        s = (values.clamp(min=0) + 4 * _EPS * values[..., -1:]).sqrt()
        over = torch.where(s > 0, grad.flip(-1) / s, 0)
    weight = (vectors * (over * poison[..., None])[..., None, :]) @ vectors.mT
    return reference.backward(grad.new_ones(grad.shape[:-1]), x, weight, row_norms, normalize, center)
