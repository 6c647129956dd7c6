"""Chooses which backend serves a tensor: in Python, before the dispatcher, so that torch.compile sees a constant."""

from __future__ import annotations

from torch import Tensor

from svmax_ops.backend_names import NAMES, VARIABLE
from svmax_ops.backends.base import Backend
from svmax_ops.backends.cuda_library import Cuda
from svmax_ops.backends.native import LIBRARY, Cpu
from svmax_ops.backends.reference import Reference
from svmax_ops.backends.triton_library import Triton
from svmax_ops.backends.use import asked_for, known, use_backend

__all__ = ["BACKENDS", "NAMED", "Backend", "available_backends", "choose", "use_backend"]

BACKENDS: tuple[Backend, ...] = (Cpu(LIBRARY), Cuda(LIBRARY), Triton(), Reference())
"""In the order in which "auto" asks them: the first without a refusal serves. Making them registers their ops."""

NAMED = {backend.name: backend for backend in BACKENDS}
assert tuple(NAMED) == NAMES[1:]


def available_backends() -> dict[str, str]:
    """Each backend with "ok" or the reason why it is not available. For "cuda", torch is asked for its GPUs.

    >>> available_backends()["reference"]
    'ok'
    """
    return {backend.name: backend.missing() or "ok" for backend in BACKENDS}


def choose(function: str, x: Tensor) -> Backend:
    """The backend that serves ``x`` for ``function``.

    Raises:
        RuntimeError: the one that is asked for by name is not available here.
        ValueError: it serves other devices, or there is none of that name.
    """
    name = asked_for()
    if name == "auto":
        return _first(function, x)
    backend = NAMED[known(name, f"{function}: {VARIABLE}")]
    reason = backend.refusal(x)
    if reason is None:
        return backend
    error = ValueError if backend.missing_for(x) is None else RuntimeError
    raise error(f"{function}: backend {name!r} {reason}.")


def _first(function: str, x: Tensor) -> Backend:
    for backend in BACKENDS:
        if backend.refusal(x) is None:
            return backend
    raise RuntimeError(f"{function}: no backend is available: {BACKENDS[-1].missing()}.")  # the last serves any tensor
