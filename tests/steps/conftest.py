"""The steps as a fixture, on every instruction set that runs here."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.available import INSTRUCTION_SETS, MISSING, here
from tests.steps import library

collect_ignore_glob = ["test_*.py"] if "steps" in MISSING else []


@pytest.fixture(params=here(*INSTRUCTION_SETS))
def steps(request: pytest.FixtureRequest) -> ModuleType:
    """bindings.cpp, compiled for one instruction set."""
    return library.load(request.param)
