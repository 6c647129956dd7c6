"""How a command ends early: one sentence for the user and an exit code, never a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right; its text is the one sentence that is printed. Exit code 2."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Ended by a signal after everything worth keeping was written. Exit code 128 + signal number."""

    def __init__(self, signum: int, resume: str) -> None:
        super().__init__(f"stopped; go on with: {resume}")
        self.signum = signum
