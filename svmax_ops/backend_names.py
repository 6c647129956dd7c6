"""The names of the backends, and which one the environment asks for; without torch, which ``svmax --help`` spares."""

from __future__ import annotations

import os

NAMES = ("auto", "cpu", "cuda", "triton", "reference")
VARIABLE = "SVMAX_BACKEND"


def asked_by_environment() -> str | None:
    """The value of ``SVMAX_BACKEND``, perhaps no backend's name; None where it is unset or empty."""
    return os.environ.get(VARIABLE) or None
