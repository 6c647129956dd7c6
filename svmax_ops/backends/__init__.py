"""Chooses which backend serves a tensor: in Python, before the dispatcher, so that torch.compile sees a constant."""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, Protocol

import torch
from torch import Tensor

from svmax_ops.backend_names import NAMES, VARIABLE, asked_by_environment
from svmax_ops.backends import cuda_library, native, reference, triton_library


class Backend(Protocol):
    """What a module of this package offers; arguments as in functional.py, already checked."""

    def objective(self, x: Tensor, name: str, normalize: bool, center: bool, /) -> Tensor: ...

    def singular_values(self, x: Tensor, normalize: bool, center: bool, /) -> Tensor: ...

    # The three stages (csrc/schemas.cpp), without derivatives.

    def gram(self, x: Tensor, normalize: bool, center: bool, /) -> tuple[Tensor, Tensor]: ...

    def spectral(self, gram: Tensor, need_inverse_sqrt: bool, /) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, row_norms: Tensor, normalize: bool, center: bool, /
    ) -> Tensor: ...


def _known(name: str, said_by: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{said_by}: unknown backend {name!r}; accepted: {', '.join(NAMES)}.")
    return name


_DEFAULT = asked_by_environment() or "auto"  # an unknown name is refused by the first call, not by the import
_requested: ContextVar[str] = ContextVar("svmax_backend", default=_DEFAULT)
# The choice made last in any thread: what torch.compile reads, and recompiles for. It cannot trace a ContextVar before
# torch 2.14, and would keep a threading.local's first value for good.
_latest = _DEFAULT


class use_backend(ContextDecorator):  # noqa: N801 - used like a function, as torch.no_grad is
    """Context manager and decorator: the functions of this package run on the named backend, in this thread.

    Enter it outside of what torch.compile compiles. A compiled function runs on the backend that was chosen last in
    any thread, and is compiled anew when that changes.

    Args:
        name: "auto" (the fastest that is available for the tensor's device), "cpu", "cuda", "triton" or
            "reference" (torch.linalg in float64). The environment variable ``SVMAX_BACKEND``, read when the package is
            imported, sets the default; the first call refuses an unknown name in it.
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
        self._before: list[tuple[Token[str], str]] = []

    def _recreate_cm(self) -> use_backend:
        return use_backend(self.name)  # a decorated function may run in several threads at once

    def __enter__(self) -> None:
        global _latest
        self._before.append((_requested.set(self.name), _latest))
        _latest = self.name

    def __exit__(self, *exc: Any) -> None:
        global _latest
        token, _latest = self._before.pop()
        _requested.reset(token)


def available_backends() -> dict[str, str]:
    """Each backend with "ok" or the reason why it is not available. For "cuda", torch is asked for its GPUs.

    >>> available_backends()["reference"]
    'ok'
    """
    reasons = {
        "cpu": native.unavailable,
        "cuda": cuda_library.unavailable or cuda_library.unavailable_anywhere(),
        "triton": triton_library.unavailable_anywhere(),
        "reference": None,
    }
    return {name: reason or "ok" for name, reason in reasons.items()}


# On meta tensors the ops only compute shapes, the same for all devices.
_SERVED = {"cpu": ("cpu", "meta"), "cuda": ("cuda", "meta"), "triton": triton_library.DEVICES}


def choose(function: str, x: Tensor) -> Backend:
    """The backend (a module with ``objective`` and ``singular_values``) that serves ``x`` for ``function``."""
    name = _latest if torch.compiler.is_compiling() else _requested.get()
    device = x.device.type
    if name == "auto":
        return _fastest(x, device)
    if name == "reference":
        return reference
    _known(name, f"{function}: {VARIABLE}")
    reason = _missing_on(x) if name == device == "cuda" else _missing(name, device)
    if reason is not None:
        raise RuntimeError(f"{function}: backend {name!r} is not available: {reason}.")
    if device not in _SERVED[name]:
        served = " and ".join(served.upper() for served in _SERVED[name] if served != "meta")
        raise ValueError(f"{function}: backend {name!r} serves {served} tensors, got one on {x.device}; use 'auto'.")
    return triton_library if name == "triton" else native


def _fastest(x: Tensor, device: str) -> Backend:
    """Native for the device, Triton, reference."""
    if device in _SERVED["cpu"] and native.unavailable is None:
        return native
    if device == "cuda" and _missing_on(x) is None:
        return native
    if device in ("cuda", "xpu") and triton_library.unavailable is None:
        return triton_library
    return reference


def _missing(name: str, device: str) -> str | None:
    if name == "cpu":
        return native.unavailable
    if name == "triton" and device in triton_library.DEVICES:  # a tensor is there, so its GPU is
        return triton_library.unavailable
    reason = available_backends()[name]
    return None if reason == "ok" else reason


def _missing_on(x: Tensor) -> str | None:
    """Why the CUDA kernels cannot serve this CUDA tensor."""
    if torch.compiler.is_compiling():  # which cannot trace the question to the driver
        return cuda_library.unavailable
    return cuda_library.unavailable_on(x.device.index)
