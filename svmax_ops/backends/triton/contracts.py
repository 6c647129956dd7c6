"""What every kernel relies on, checked for callers of torch.ops: as csrc/contracts.h, with its words."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _require(holds: bool, op: str, sentence: str) -> None:
    if not holds:
        raise RuntimeError(f"svmax::{op}: {sentence}")


def check_matrices(op: str, name: str, x: Tensor) -> None:
    _require(x.dtype in _FLOATS, op, f"{name} must be float16, bfloat16, float32 or float64, got {_dtype(x)}")
    _require(x.dim() >= 2, op, f"{name} must be [..., b, d], at least 2 dimensions, got {list(x.shape)}")
    b, d = x.shape[-2:]
    _require(b > 0 and d > 0, op, f"{name} must be [..., b, d] with b >= 1 and d >= 1, got {list(x.shape)}")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def check_gram(gram: Tensor) -> None:
    check_matrices("spectral", "gram", gram)
    good = gram.dtype == torch.float64 and gram.shape[-1] == gram.shape[-2]
    _require(good, "spectral", f"gram must be [..., n, n] in float64, got {list(gram.shape)} in {_dtype(gram)}")


def check_objective(objective: str, known: tuple[str, ...], x: Tensor, center: bool) -> None:
    _require(objective in known, "objective", f"objective must be one of {', '.join(known)}; got {objective}")
    b, d = x.shape[-2:]
    wanted = "b >= 2 when centred" if center else "min(b, d) >= 2"
    good = objective != "svmax_loss" or (b if center else min(b, d)) >= 2
    _require(good, "objective", f"svmax_loss needs {wanted}, got x {list(x.shape)}; U equals L")


def check_kept(
    op: str, x: Tensor, grad: Tensor, each: int, name: str, kept: Tensor, norms: Tensor, normalize: bool
) -> None:
    """What the backward op of ``op`` takes: grad with ``each`` numbers a matrix, and what the forward op returned."""
    check_matrices(op, "x", x)
    b, d = x.shape[-2:]
    matrices = x.shape[:-2].numel()
    good = grad.numel() == matrices * each and grad.dtype in (torch.float32, torch.float64)
    got = f"got {list(grad.shape)} in {_dtype(grad)}"
    _require(good, op, f"grad must be float32 or float64 with {each} numbers for each of {matrices} matrices, {got}")
    for of, tensor, numbers in ((name, kept, min(b, d) ** 2), ("row_norms", norms, b if normalize else 0)):
        good = tensor.dtype == torch.float64 and tensor.numel() == matrices * numbers
        wanted = f"float64 with {numbers} numbers for each of {matrices} matrices, as the forward op returned it"
        _require(good, op, f"{of} must be {wanted}; got {list(tensor.shape)} in {_dtype(tensor)}")
    for of, tensor in (("grad", grad), (name, kept), ("row_norms", norms)):
        _require(tensor.device == x.device, op, f"{of} must be on x's device, {x.device}; it is on {tensor.device}")
