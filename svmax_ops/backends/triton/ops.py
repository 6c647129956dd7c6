"""The ops of triton_library.py: the kernels of this package, and torch.linalg for what they do not serve.

That is float64 input, which has no wider type to accumulate its Gram matrix in, and singular values, of which matrix
products know only the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svmax_ops import linalg
from svmax_ops.backends.triton.backward import launch_backward
from svmax_ops.backends.triton.gram import launch_gram
from svmax_ops.backends.triton.objective import launch_objective
from svmax_ops.backends.triton.rows import rows_of
from svmax_ops.backends.triton.spectral import launch_spectral
from svmax_ops.contracts import check_backward, check_gram, check_matrices, check_objective

singular_values = linalg.singular_values


def gram(x: Tensor, *, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    check_matrices("gram", "x", x)
    if not _has_kernels(x):
        return linalg.gram(x, normalize=normalize, center=center)
    rows = rows_of(x, normalize, center)
    gram = launch_gram(rows)
    return gram.view(*x.shape[:-2], *gram.shape[1:]), rows.norms.view(*x.shape[:-2], -1)


def spectral(gram: Tensor, *, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor, Tensor]:
    check_gram(gram)
    if gram.numel() == 0:
        return linalg.spectral(gram, need_inverse_sqrt=need_inverse_sqrt)
    norm, w = launch_spectral(gram.reshape(-1, *gram.shape[-2:]), need_inverse_sqrt)
    w = w.view(*gram.shape[:-2], *w.shape[1:])
    return norm.view(gram.shape[:-2]), w, linalg.in_float64(gram, need_inverse_sqrt)


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
    if not _has_kernels(x):
        options = {"normalize": normalize, "center": center}
        return linalg.backward(grad, x, weight, in_float32, row_norms, objective=objective, **options)
    check_backward("backward", x, normalize, grad=grad, weight=weight, in_float32=in_float32, row_norms=row_norms)
    weight = weight.reshape(-1, *weight.shape[-2:]).contiguous()
    dx = launch_backward(grad.reshape(-1).contiguous(), rows_of(x, normalize, center, row_norms), weight)
    return dx.view(x.shape)


def objective(
    x: Tensor, *, objective: str, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not _has_kernels(x):
        options = {"normalize": normalize, "center": center, "need_gradient": need_gradient}
        return linalg.objective(x, objective=objective, **options)
    check_matrices("objective", "x", x)
    check_objective(objective, x, center)
    batch = x.shape[:-2]
    rows = rows_of(x, normalize, center)
    value, weight = launch_objective(rows, objective, need_gradient)
    weight = weight.view(*batch, *weight.shape[1:])
    return value.view(batch), weight, linalg.in_float64(x, need_gradient), rows.norms.view(*batch, -1)


def _has_kernels(x: Tensor) -> bool:
    return x.dtype in (torch.float16, torch.bfloat16, torch.float32) and x.numel() > 0
