"""Ctrl-C, kill and a lost terminal: noted, so that a run can write its checkpoint before it ends."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_of_parent: set[int] = set()
"""Signals that say that the parent has ended. Linux sends one for each thread of it that this process was handed to."""


class Interrupted(BaseException):
    """A wait was broken off by a signal; raised by :func:`heeding` alone."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """Inside, SIGINT, SIGTERM and SIGHUP are noted in ``received``.

    A second SIGINT or SIGTERM acts as if this were not here. A second SIGHUP does not: shell and kernel send one each
    when a terminal is closed. Nor does a second signal of those that :func:`end_with_parent` asks for, which come more
    than once. Where SIGHUP is ignored (nohup), it still is.
    """

    _entered: Signals | None = None

    def __init__(self) -> None:
        self.received: int | None = None
        self.break_off = True
        """Whether a signal breaks off what :func:`heeding` waits for; False: it is noted only."""
        self._heeding = False
        self._before: dict[int, Any] = {}
        self._outer: Signals | None = None

    def __enter__(self) -> Signals:
        self._outer, Signals._entered = Signals._entered, self
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *exc: object) -> None:
        Signals._entered = self._outer
        self._restore(*self._before)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore(*self._before.keys() & {signal.SIGINT, signal.SIGTERM} - _of_parent)
        if self._heeding:
            self._raise()

    def _raise(self) -> None:
        self._heeding = False
        raise Interrupted(self.received)

    def _restore(self, *signums: int) -> None:
        for signum in signums:
            signal.signal(signum, self._before.pop(signum))


def note(signum: int) -> None:
    """Stop the run that is under way in this process, if one is, as the signal would. For any thread."""
    if Signals._entered:
        Signals._entered.received = signum


@contextmanager
def heeding() -> Iterator[None]:
    """Around a wait that may be broken off without a loss.

    Raises:
        Interrupted: a signal has been received, or is during the wait.
    """
    signals = Signals._entered
    if signals is None or not signals.break_off:
        yield
        return
    signals._heeding = True
    try:
        if signals.received:
            signals._raise()
        yield
    finally:
        signals._heeding = False


def end_with_parent(parent: int, signum: int = signal.SIGTERM) -> None:
    """Have this process receive ``signum`` when the process ``parent``, which started it, ends in whatever way."""
    _of_parent.add(signum)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signum)


def end_at_once_while_importing(signum: int, frame: FrameType | None) -> None:
    """A handler of SIGINT: KeyboardInterrupt; within an import the end of the process, with a line.

    Raised there, it becomes other errors of half-imported modules, or is printed and lost in a callback of Python's.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"svmax: interrupted.\n")
            os._exit(128 + signum)
        frame = frame.f_back
    raise KeyboardInterrupt
