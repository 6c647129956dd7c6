"""Chooses which backend serves a tensor: in Python, before the dispatcher, so that torch.compile sees a constant."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from svmax_ops.backend_names import NAMES, VARIABLE, asked_by_environment
from svmax_ops.backends import cuda_library, native, reference, triton_library
from svmax_ops.torch_internals import CONTEXT_VARIABLES_ARE_TRACED, checkpoints_around, is_in_backward


class Backend(Protocol):
    """What a module of this package offers; arguments as in functional.py, already checked."""

    namespace: str
    """The namespace of its ops in torch.ops; "" where it has none."""

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


class _Block:
    """A block of :class:`use_backend` that is open, with the blocks that it stands in."""

    def __init__(self, name: str, before: _Block | None) -> None:
        self.name = name
        self.before = before
        begun, again = checkpoints_around()
        self.checkpoints = [*begun, again]  # whose function it stands in: recomputed, they open it again


_innermost: ContextVar[_Block | None] = ContextVar("svmax_innermost_block", default=None)
# What torch.compile reads, and compiles anew for: the name alone, of this thread's innermost block. Before 2.14 it
# cannot trace a ContextVar (and would keep a threading.local's first value for good), so there it reads _latest: the
# block entered last, of those that are open in any thread.
_requested: ContextVar[str] = ContextVar("svmax_backend", default=_DEFAULT)
_latest = _DEFAULT
_open: list[_Block] = []
_open_changes = threading.Lock()


class use_backend(ContextDecorator):  # noqa: N801 - used like a function, as torch.no_grad is
    """Context manager and decorator: the functions of this package run on the named backend, in this thread.

    Enter it outside of what torch.compile compiles; a compiled function is compiled anew where the choice is another.
    Before torch 2.14, which cannot see a thread's own choice while compiling, a compiled function runs on the backend
    of the block that was entered last, of those that are open in any thread.

    What ``torch.utils.checkpoint`` recomputes runs on the backend that it ran on in the forward, also where the
    backward is called outside of the block.

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
        self.name = _known(name, "use_backend")  # and no other state: several threads may be in one at once

    def __enter__(self) -> None:
        block = _Block(self.name, _innermost.get())
        _innermost.set(block)
        _requested.set(block.name)
        with _open_changes:
            _open.append(block)
            _publish()

    def __exit__(self, *exc: Any) -> None:
        block = _innermost.get()
        assert block is not None, "use_backend: left a block in another context than it was entered in"
        _innermost.set(block.before)
        _requested.set(_name_of(block.before))
        with _open_changes:
            _open.remove(block)
            _publish()


def _publish() -> None:
    global _latest
    _latest = _name_of(_open[-1] if _open else None)


def _name_of(block: _Block | None) -> str:
    return _DEFAULT if block is None else block.name


def _chosen() -> str:
    """The name of the backend that is asked for here and now."""
    if torch.compiler.is_compiling():
        return _requested.get() if CONTEXT_VARIABLES_ARE_TRACED else _latest
    innermost = _innermost.get()
    if innermost is None and not is_in_backward():
        return _DEFAULT
    begun, again = checkpoints_around()
    for checkpoint in begun:  # if it is recomputed, then under the choice that it was begun under
        outside = innermost
        while outside is not None and checkpoint in outside.checkpoints:
            outside = outside.before
        checkpoint.svmax_backend = _name_within(again, outside)
    return _name_within(again, innermost)


def _name_within(again: Any, block: _Block | None) -> str:
    """The innermost block's; that of the forward where a checkpoint is recomputed that does not open this block."""
    if again is not None and (block is None or again not in block.checkpoints):
        return getattr(again, "svmax_backend", _DEFAULT)
    return _name_of(block)


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
    name = _chosen()
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
