"""Import a module of ours as if another library were not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def import_without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``import_without(library, module)``: imports the module anew; imports of the library fail as missing ones do."""

    def import_without(library: str, module: str) -> None:
        for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.import_module(module)

    return import_without
