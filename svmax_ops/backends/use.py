"""Which backend is asked for here and now: by :class:`use_backend`, by the environment, else "auto"."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any

import torch

from svmax_ops.backend_names import NAMES, asked_by_environment
from svmax_ops.torch_internals import CONTEXT_VARIABLES_ARE_TRACED, checkpoints_around, is_in_backward


def known(name: str, said_by: str) -> str:
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
# torch.compile reads this, and compiles anew where it changes: the name alone, of this thread's innermost block. Before
# 2.14 it cannot trace a ContextVar (and would keep a threading.local's first value for good), so there it reads
# _latest: the block entered last, of those that are open in any thread.
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
        self.name = known(name, "use_backend")  # and no other state: several threads may be in one at once

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


def asked_for() -> str:
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
