"""Builds and loads bindings.cpp: the steps below a stage, for NumPy, compiled for one instruction set."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

from tests import cmake

PYTHON = sysconfig.get_path("include")


@functools.cache
def load(instruction_set: str) -> ModuleType:
    """The module, built where a source is newer.

    Raises:
        BuildError: something is missing, or compiling fails; with what it said.
    """
    reason = missing()
    if reason is not None:
        raise cmake.BuildError(reason)
    import pybind11

    name = f"steps_{instruction_set}"
    options = {"SVMAX_PYTHON": PYTHON, "SVMAX_PYBIND11": pybind11.get_include()}
    path = cmake.build(Path(__file__).parent, f"{name}.so", "steps", **options)
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def missing() -> str | None:
    """Why the module cannot be built here, or None."""
    if importlib.util.find_spec("pybind11") is None:
        return "the tests' C++ needs pybind11; pip install pybind11"
    if not (Path(PYTHON) / "Python.h").exists():
        return f"the tests' C++ needs Python.h, which is not in {PYTHON} (Debian, Ubuntu: apt install python3-dev)"
    return cmake.missing()
