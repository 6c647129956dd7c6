"""What every kernel in Python relies on, checked for callers of torch.ops: as csrc/contracts.h, with its words."""

from __future__ import annotations

import torch
from torch import Tensor

from svmax_ops.formulas import OBJECTIVES, bounds_differ

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _require(holds: bool, op: str, sentence: str) -> None:
    if not holds:
        raise RuntimeError(f"svmax::{op}: {sentence}")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def check_matrices(op: str, name: str, x: Tensor) -> None:
    _require(x.dtype in _FLOATS, op, f"{name} must be float16, bfloat16, float32 or float64, got {_dtype(x)}")
    _require(x.dim() >= 2, op, f"{name} must be [..., b, d], at least 2 dimensions, got {list(x.shape)}")
    b, d = x.shape[-2:]
    _require(b > 0 and d > 0, op, f"{name} must be [..., b, d] with b >= 1 and d >= 1, got {list(x.shape)}")


def check_gram(gram: Tensor) -> None:
    check_matrices("spectral", "gram", gram)
    good = gram.dtype == torch.float64 and gram.shape[-1] == gram.shape[-2]
    _require(good, "spectral", f"gram must be [..., n, n] in float64, got {list(gram.shape)} in {_dtype(gram)}")


def check_objective(objective: str, x: Tensor, center: bool) -> None:
    known = f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}"
    _require(objective in OBJECTIVES, "objective", f"objective must be {known}, got {objective}")
    conditions, wanted = bounds_differ(x.shape[-2], x.shape[-1], center)
    good = objective != "svmax_loss" or all(conditions)
    _require(good, "objective", f"svmax_loss needs {wanted}, got x {list(x.shape)}; U equals L")


def check_backward(op: str, x: Tensor, normalize: bool, **given: Tensor) -> None:
    """What a backward op takes beside x, by its name: the gradient of the result, and what the forward op returned."""
    check_matrices(op, "x", x)
    b, d = x.shape[-2:]
    n = min(b, d)
    single, double = ("float32",), ("float64",)
    wanted = {
        "grad": ((n,) if "gram" in given else (), single + double),
        "weight": ((n, n), double),
        "gram": ((n, n), double),
        "in_float32": ((1,), ("bool",)),
        "row_norms": ((b if normalize else 0,), double),
    }
    for name, tensor in given.items():
        shape, dtypes = [*x.shape[:-2], *wanted[name][0]], wanted[name][1]
        good = list(tensor.shape) == shape and _dtype(tensor) in dtypes
        source = ", " if name == "grad" else ", as the forward op returned it; "
        got = f"got {list(tensor.shape)} in {_dtype(tensor)}"
        _require(good, op, f"{name} must be {shape} in {' or '.join(dtypes)}{source}{got}")
        _require(tensor.device == x.device, op, f"{name} must be on x's device {x.device}, got {tensor.device}")
