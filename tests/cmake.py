"""Builds what is C++ in the tests, when it is first wanted: each folder of it has a CMakeLists.txt and a library.py."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
"""A folder in it for each kind of build."""


class BuildError(RuntimeError):
    """A tool is missing, or compiling fails; with what it said."""


def build(source: Path, target: str, folder: str, **options: str) -> Path:
    """Build one target of a folder's CMakeLists.txt in build/<folder>; ninja knows what is out of date. -> its file."""
    binary = BUILD / folder
    binary.mkdir(parents=True, exist_ok=True)
    configure = [
        _tool("cmake"),
        *("-S", str(source), "-B", str(binary), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}"),
        *(f"-D{name}={value}" for name, value in options.items()),
    ]
    with (binary / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        _run(configure)
        _run([_tool("cmake"), "--build", str(binary), "--target", target.removesuffix(".so")])
    return binary / target


def missing() -> str | None:
    """Why nothing can be built here: the first of the tools that is not there, or None."""
    for name in ("cmake", "ninja"):
        try:
            _tool(name)
        except BuildError as reason:
            return str(reason)
    if not os.environ.get("CXX") and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "the tests' C++ needs a compiler, and none is in PATH"
    return None


def _tool(name: str) -> str:
    # The environment's own first: it need not be activated.
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise BuildError(f"the tests' C++ needs {name}, which is neither beside {sys.executable} nor in PATH")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}")
