"""The Triton kernels as ops: for GPUs where the package was installed without a compiler, and for other vendors' GPUs.

Triton itself is imported when one of them first runs. Under ``TRITON_INTERPRET=1``, which has to be set before Python
starts, they run on CPU tensors, slowly: for tests.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from svmax_ops.torch_internals import keep, kept

NAMESPACE = "svmax_triton"
OLDEST = (3, 6)
"""Of Triton; compiled with up to 3.9, run with 3.8."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ("cuda", "xpu", "meta") + (("cpu",) if INTERPRETED else ())
"""What is served; ROCm's GPUs are of type "cuda"."""

SCHEMAS = (
    "gram(Tensor x, *, bool normalize, bool center) -> (Tensor gram, Tensor row_norms)",
    "spectral(Tensor gram, *, bool need_inverse_sqrt) -> (Tensor nuclear_norm, Tensor inverse_sqrt)",
    "backward(Tensor grad, Tensor x, Tensor weight, Tensor row_norms, *, str objective, bool normalize, bool center)"
    " -> Tensor",
    "objective(Tensor x, *, str objective, bool normalize, bool center, bool need_gradient=False)"
    " -> (Tensor value, Tensor weight, Tensor row_norms)",
    "singular_values(Tensor x, *, bool normalize, bool center, bool need_gradient=False)"
    " -> (Tensor values, Tensor gram, Tensor row_norms)",
    "singular_values_backward(Tensor grad, Tensor x, Tensor gram, Tensor row_norms, *, bool normalize, bool center)"
    " -> Tensor",
)
"""Word for word those of csrc/schemas.cpp, which says what they take and return."""

_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows")


def _unavailable() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; pip install triton"
    for name in _DISTRIBUTIONS:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
            return f"Triton {found} is too old; the kernels need {'.'.join(map(str, OLDEST))} or newer"
        return None
    return "a Triton of unknown version is installed; pip install triton"


unavailable = _unavailable()
"""Why the kernels cannot run on any GPU, or None."""


def unavailable_anywhere() -> str | None:
    """The same; without a GPU here, that."""
    if unavailable or INTERPRETED or torch.cuda.is_available() or torch.xpu.is_available():
        return unavailable
    return "torch sees no GPU here (TRITON_INTERPRET=1 runs the kernels on a CPU, for tests)"


def _op(name: str) -> Callable[..., Any]:
    def call(*args: Tensor, **options: Any) -> Any:
        from svmax_ops.backends.triton import ops

        # Triton launches on the current device, which need not be that of the tensors.
        with torch.accelerator.device_index(None if args[0].device.type == "cpu" else args[0].device.index):
            return getattr(ops, name)(*args, **options)

    return call


def _define() -> None:
    """Define the ops, where no earlier import of this package in this process has.

    Raises:
        ImportError: one has, and they differ from these.
    """
    ops = getattr(torch.ops, NAMESPACE)
    before = kept(ops, "definitions")
    if before is None:
        library = torch.library.Library(NAMESPACE, "DEF")
        for schema in SCHEMAS:
            library.define(schema)
            name = schema.partition("(")[0]
            library.impl(name, _op(name), "CompositeExplicitAutograd")
        keep(ops, "definitions", (SCHEMAS, library))
    elif before[0] != SCHEMAS:
        raise ImportError("svmax_ops: this process has imported another version of it; restart Python to use this one.")


if unavailable is None:
    from svmax_ops.ops import functions_of, register_rules

    _define()
    register_rules(NAMESPACE)
    objective, singular_values, gram, spectral, backward, namespace = functions_of(NAMESPACE)
