"""The Triton kernels as ops, and the backend ``triton`` of them: for GPUs without the CUDA kernels, other vendors' too.

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

from svmax_ops.backends.base import Backend, missing_names
from svmax_ops.ops import define, register_rules

NAMESPACE = "svmax_triton"
OLDEST = (3, 6)
"""The oldest Triton that serves; compiled with up to 3.9, run with 3.8."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ("cuda", "xpu", "meta") + (("cpu",) if INTERPRETED else ())
"""The types of devices that are served; ROCm's GPUs are of type "cuda"."""

_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows")


def missing() -> str | None:
    """Why the kernels cannot run on any GPU, or None."""
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


def _kernel(name: str) -> Callable[..., Any]:
    def call(*args: Tensor, **options: Any) -> Any:
        from svmax_ops.backends.triton import ops

        # Triton launches on the current device, which need not be that of the tensors.
        with torch.accelerator.device_index(None if args[0].device.type == "cpu" else args[0].device.index):
            return getattr(ops, name)(*args, **options)

    return call


class Triton(Backend):
    name = "triton"
    devices = DEVICES

    def __init__(self) -> None:
        self.missing_library = missing_names() or missing()
        if self.missing_library is None:
            names = ("gram", "spectral", "backward", "objective", "singular_values")
            define(NAMESPACE, {name: _kernel(name) for name in names})
            register_rules(NAMESPACE)
            super().__init__(NAMESPACE)

    def missing(self) -> str | None:
        """Why the kernels can run on no device of this machine."""
        if self.missing_library or INTERPRETED or torch.cuda.is_available() or torch.xpu.is_available():
            return self.missing_library
        return "torch sees no GPU here (TRITON_INTERPRET=1 runs the kernels on a CPU, for tests)"

    def missing_for(self, x: Tensor) -> str | None:
        return self.missing_library if self.serves(x) else self.missing()  # a tensor is there, so its GPU is
