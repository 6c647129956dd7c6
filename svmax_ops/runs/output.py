"""Where a command prints to. A reader that has gone, a full disk or a lost terminal raises nothing where it is met."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from svmax_ops.runs import signals


class Output:
    """A text stream whose failure is noted in ``lost``; what is printed from then on is dropped.

    Args:
        stream: what is written to.
        needed: a run that is under way stops when the stream is lost, with its checkpoint. A lost terminal stops
            nothing by itself: a run that was told to survive it (disown, nohup) goes on.
    """

    def __init__(self, stream: TextIO, needed: bool) -> None:
        self._stream, self._needed = stream, needed
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.lost is None:
            try:
                action()
            except BlockingIOError:  # a pipe that does not wait is full for now
                pass
            except OSError as error:
                self.lost = error
                self._lead_nowhere()
        if self._needed and self.lost is not None and self.lost.errno != errno.EIO:
            signals.note(signal.SIGPIPE)  # each time: a run may have begun since

    def _lead_nowhere(self) -> None:
        """Python writes what is left in its buffers once more when it ends."""
        with suppress(OSError, ValueError):  # a stream without a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[Output]:
    """Inside, ``sys.stdout`` (given) and ``sys.stderr`` are such streams; closed ones (``>&-``) lead nowhere."""
    _open_standard_files()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(sys.stdout, needed=True), Output(sys.stderr, needed=False)
    try:
        yield sys.stdout
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _open_standard_files() -> None:
    """Else the first file of a run would become its standard output, which libraries and child processes print to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name may not be text
