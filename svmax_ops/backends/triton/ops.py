"""What the ops of triton_library.py do: the kernels of this package.

float64 input, which has no wider type to accumulate its Gram matrix in, and singular values, of which matrix products
know only the sum, are served by torch's decompositions; on a GPU those wait for the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svmax_ops.backends import reference
from svmax_ops.backends.triton.backward import launch_backward
from svmax_ops.backends.triton.contracts import check_gram, check_kept, check_matrices, check_objective
from svmax_ops.backends.triton.decompositions import (
    objective_by_svd,
    singular_values_backward_by_decomposition,
    singular_values_by_svd,
)
from svmax_ops.backends.triton.gram import launch_gram
from svmax_ops.backends.triton.objective import OBJECTIVES, launch_objective
from svmax_ops.backends.triton.rows import rows_of
from svmax_ops.backends.triton.spectral import launch_spectral


def gram(x: Tensor, *, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    check_matrices("gram", "x", x)
    if not _has_kernels(x):
        gram, norms = reference.gram(x, normalize, center)
        return (gram + gram.mT) / 2, norms  # torch's products are symmetric but for rounding
    rows = rows_of(x, normalize, center)
    gram = launch_gram(rows)
    return gram.view(*x.shape[:-2], *gram.shape[1:]), rows.norms.view(*x.shape[:-2], -1)


def spectral(gram: Tensor, *, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    check_gram(gram)
    if gram.numel() == 0:
        return reference.spectral(gram, need_inverse_sqrt)
    norm, w = launch_spectral(gram.reshape(-1, *gram.shape[-2:]), need_inverse_sqrt)
    return norm.view(gram.shape[:-2]), w.view(*gram.shape[:-2], *w.shape[1:])


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, row_norms: Tensor, *, objective: str, normalize: bool, center: bool
) -> Tensor:
    check_kept("backward", x, grad, 1, "weight", weight, row_norms, normalize)
    if not _has_kernels(x):
        return reference.backward(grad, x, weight, row_norms, normalize, center)
    weight = weight.reshape(-1, *weight.shape[-2:]).contiguous()
    dx = launch_backward(grad.reshape(-1).contiguous(), rows_of(x, normalize, center, row_norms), weight)
    return dx.view(x.shape)


def objective(
    x: Tensor, *, objective: str, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    check_matrices("objective", "x", x)
    check_objective(objective, OBJECTIVES, x, center)
    batch = x.shape[:-2]
    if not _has_kernels(x):
        value, weight = objective_by_svd(x, objective, normalize, center, need_gradient)
        return value, weight, _norms(x, normalize)
    rows = rows_of(x, normalize, center)
    value, weight = launch_objective(rows, objective, need_gradient)
    return value.view(batch), weight.view(*batch, *weight.shape[1:]), rows.norms.view(*batch, -1)


def singular_values(
    x: Tensor, *, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    check_matrices("singular_values", "x", x)
    values = singular_values_by_svd(x, normalize, center)
    if need_gradient:
        return values, *gram(x, normalize=normalize, center=center)
    return values, values.new_empty((*x.shape[:-2], 0, 0), dtype=torch.float64), _norms(x, normalize)


def singular_values_backward(
    grad: Tensor, x: Tensor, gram: Tensor, row_norms: Tensor, *, normalize: bool, center: bool
) -> Tensor:
    each = min(x.shape[-2:])
    check_kept("singular_values_backward", x, grad, each, "gram", gram, row_norms, normalize)
    return singular_values_backward_by_decomposition(grad, x, gram, row_norms, normalize, center)


def _has_kernels(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.numel() > 0


def _norms(x: Tensor, normalize: bool) -> Tensor:
    x = x.to(torch.float64)
    return reference.row_norms(x) if normalize else x.new_empty((*x.shape[:-2], 0))
