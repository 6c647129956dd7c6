"""The checks that every kernel in Python relies on, for callers of torch.ops: as csrc/contracts.h, with its words."""

from __future__ import annotations

import torch
from torch import Tensor

from svmax_ops.formulas import OBJECTIVES, bounds_differ

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _refuse(op: str, sentence: str) -> None:
    raise RuntimeError(f"svmax::{op}: {sentence}")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def check_matrices(op: str, name: str, x: Tensor) -> None:
    if x.dtype not in _FLOATS:
        _refuse(op, f"{name} must be float16, bfloat16, float32 or float64, got {_dtype(x)}")
    if x.dim() < 2:
        _refuse(op, f"{name} must be [..., b, d], at least 2 dimensions, got {list(x.shape)}")
    b, d = x.shape[-2:]
    if b < 1 or d < 1:
        _refuse(op, f"{name} must be [..., b, d] with b >= 1 and d >= 1, got {list(x.shape)}")


def check_gram(gram: Tensor) -> None:
    square = gram.dim() >= 2 and gram.shape[-1] == gram.shape[-2] > 0
    if gram.dtype != torch.float64 or not square:
        got = f"got {list(gram.shape)} in {_dtype(gram)}"
        _refuse("spectral", f"gram must be [..., n, n] with n >= 1 in float64, {got}")


def check_objective(objective: str, x: Tensor, center: bool) -> None:
    if objective not in OBJECTIVES:
        _refuse("objective", f"objective must be {', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}, got {objective}")
    conditions, wanted = bounds_differ(x.shape[-2], x.shape[-1], center)
    if objective == "svmax_loss" and not all(conditions):
        _refuse("objective", f"svmax_loss needs {wanted}, got x {list(x.shape)}; U equals L")


def check_backward(op: str, x: Tensor, normalize: bool, **given: Tensor) -> None:
    """Check the arguments of a backward op beside x, by their names: grad, and what the forward op returned."""
    check_matrices(op, "x", x)
    batch, (b, d) = x.shape[:-2], x.shape[-2:]
    n = min(b, d)
    each: dict[str, tuple[int, ...]] = {
        "grad": (n,) if "gram" in given else (),
        "weight": (n, n),
        "gram": (n, n),
        "in_float32": (1,),
        "row_norms": (b if normalize else 0,),
    }
    for name, tensor in given.items():
        shape, dtypes = (*batch, *each[name]), _KEPT_IN.get(name, (torch.float64,))
        if tensor.shape != shape or tensor.dtype not in dtypes:
            wanted = f"{list(shape)} in {' or '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)}"
            source = ", " if name == "grad" else ", as the forward op returned it; "
            _refuse(op, f"{name} must be {wanted}{source}got {list(tensor.shape)} in {_dtype(tensor)}")
        if tensor.device != x.device:
            _refuse(op, f"{name} must be on x's device {x.device}, got {tensor.device}")


_KEPT_IN = {"grad": (torch.float32, torch.float64), "in_float32": (torch.bool,)}
