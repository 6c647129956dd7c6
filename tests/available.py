"""What the tests run on, and what of it this machine lacks: that is not collected, and named once at the end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import svmax_ops
from svmax_ops.backends import native
from tests.host import library
from tests.steps import library as steps

BACKENDS = ("reference", "cpu", "cuda", "triton", "host")
"""Those of the package, and ``host``: the CUDA sources as built for this machine's processor."""
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
NEVER_MISSING = ("reference", "cpu", "baseline")
"""Where one of these does not run, its tests are collected and fail: the package is nothing without them."""


def _reason(backend: str) -> str | None:
    if backend == "host":
        return library.missing()
    reason = svmax_ops.available_backends()[backend]
    return None if reason == "ok" else reason


def _runs(instruction_set: str) -> bool:
    before = native.instruction_set()
    if before is None:  # then the backend `cpu` says why
        return False
    try:
        native.use_instruction_set(instruction_set)
    except RuntimeError:
        return False
    native.use_instruction_set(before)
    return True


MISSING: dict[str, str] = {name: reason for name in BACKENDS if (reason := _reason(name)) is not None} | {
    name: "an instruction set that the library was not built for, or that this processor lacks"
    for name in INSTRUCTION_SETS
    if not _runs(name)
}
"""Backend or instruction set -> why it does not run here. ``steps``: those of tests/steps, where it cannot be built."""
if (_no_steps := steps.missing()) is not None:
    MISSING["steps"] = _no_steps


def here(*names: str) -> list[str]:
    """Those of the names whose tests are collected here."""
    return [name for name in names if name in NEVER_MISSING or name not in MISSING]


def require(backends: Iterable[str]) -> None:
    """Refuse to leave out the tests of one of these.

    Raises:
        pytest.UsageError: it does not run here, with the reason, or there is no such backend.
    """
    for name in backends:
        if name not in BACKENDS:
            raise pytest.UsageError(f"--require-backends: {name!r} is none of {', '.join(BACKENDS)}.")
        if name in MISSING:
            raise pytest.UsageError(f"--require-backends: {name} cannot be tested here: {MISSING[name]}.")
