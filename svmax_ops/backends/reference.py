"""The backend ``reference``: torch.linalg in float64, on any device (:mod:`svmax_ops.linalg`).

It is the fallback where there is no kernel, and serves the other backends' float64 input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svmax_ops import linalg
from svmax_ops.backends.base import Backend, missing_names
from svmax_ops.ops import define, register_rules

NAMESPACE = "svmax_reference"
KERNELS: dict[str, Callable[..., Any]] = {
    "gram": linalg.gram,
    "spectral": linalg.spectral,
    "backward": linalg.backward,
    "objective": linalg.objective,
    "singular_values": linalg.singular_values,
}


class Reference(Backend):
    name = "reference"
    devices = None

    def __init__(self) -> None:
        define(NAMESPACE, KERNELS)
        if self.missing() is None:
            register_rules(NAMESPACE)
        super().__init__(NAMESPACE)

    def missing(self) -> str | None:
        return missing_names()
