"""Ctrl-C and kill: noted, so that a run can write its checkpoint before it ends."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Signals:
    """Inside, SIGINT and SIGTERM are noted in ``received``; a second one acts as if this were not here."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
