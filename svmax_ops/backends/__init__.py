"""Chooses which backend serves a tensor: in Python, before the dispatcher, so that torch.compile sees a constant."""

from __future__ import annotations

import os
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from types import ModuleType
from typing import Any

from torch import Tensor

from svmax_ops.backends import native, reference

NAMES = ("auto", "cpu", "cuda", "triton", "reference")


def _known(name: str, said_by: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{said_by}: unknown backend {name!r}; accepted: {', '.join(NAMES)}.")
    return name


_requested: ContextVar[str] = ContextVar(
    "svmax_backend", default=_known(os.environ.get("SVMAX_BACKEND", "auto"), "SVMAX_BACKEND")
)


class use_backend(ContextDecorator):  # noqa: N801 - used like a function, as torch.no_grad is
    """Context manager and decorator: the functions of this package run on the named backend, in this thread.

    Args:
        name: "auto" (the fastest that is available for the tensor's device), "cpu", "cuda", "triton" or
            "reference" (torch.linalg in float64). The environment variable ``SVMAX_BACKEND`` sets the default.
    Raises:
        ValueError: an unknown name. A known backend that is not available raises RuntimeError when a function
            is called; it is never silently replaced.

    >>> import torch, svmax_ops
    >>> with use_backend("reference"):
    ...     svmax_ops.nuclear_norm(torch.eye(2)).item()
    2.0
    """

    def __init__(self, name: str) -> None:
        self.name = _known(name, "use_backend")
        self._tokens: list[Token[str]] = []

    def _recreate_cm(self) -> use_backend:
        return use_backend(self.name)  # a decorated function may run in several threads at once

    def __enter__(self) -> None:
        self._tokens.append(_requested.set(self.name))

    def __exit__(self, *exc: Any) -> None:
        _requested.reset(self._tokens.pop())


def available_backends() -> dict[str, str]:
    """Each backend with "ok" or the reason why it is not available.

    >>> available_backends()["reference"]
    'ok'
    """
    return {
        "cpu": native.unavailable or "ok",
        "cuda": "not part of this version: CUDA tensors are served by the reference backend",
        "triton": "not part of this version: use cpu or reference",
        "reference": "ok",
    }


def choose(function: str, x: Tensor) -> ModuleType:
    """The backend (a module with ``objective`` and ``singular_values``) that serves ``x`` for ``function``."""
    name = _requested.get()
    if name == "auto":
        return native if native.unavailable is None and x.device.type in native.DEVICES else reference
    if name == "reference":
        return reference
    reason = available_backends()[name]
    if reason != "ok":
        raise RuntimeError(f"{function}: backend {name!r} is not available: {reason}.")
    if x.device.type not in native.DEVICES:
        raise ValueError(f"{function}: backend {name!r} serves CPU tensors, got one on {x.device}; use 'auto'.")
    return native
