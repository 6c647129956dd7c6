"""Builds and loads the CUDA sources of csrc/cuda for the host: torch.ops.svmax_host, on CPU tensors."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build"
"""A folder in it for each kind of build."""


class BuildError(RuntimeError):
    pass


@functools.cache
def load() -> ctypes.CDLL:
    """The library, built where a source is newer. Its ops get their rules the first time.

    With ``SVMAX_HOST_COVERAGE=1`` in the environment, for coverage.py, it is one that counts the lines it runs.

    Raises:
        BuildError: cmake, ninja or the compiler is missing, or compiling fails; with what it said.
    """
    import torch

    if os.environ.get("SVMAX_HOST_COVERAGE") == "1":
        path = build("svmax_host.so", "host-coverage", SVMAX_HOST_COVERAGE="ON")
    else:
        path = build("svmax_host.so", "host")
    from svmax_ops.ops import register_rules

    torch.ops.load_library(str(path))
    register_rules("svmax_host")
    return ctypes.CDLL(str(path))


def build(target: str, folder: str, **options: str) -> Path:
    """Build one target of CMakeLists.txt; ninja knows what is out of date. -> its file."""
    binary = BUILD / folder
    binary.mkdir(parents=True, exist_ok=True)
    torch = importlib.util.find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        raise BuildError("the host build needs torch, to compile against")
    configure = [
        _tool("cmake"),
        *("-S", str(HERE), "-B", str(binary), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}"),
        f"-DSVMAX_TORCH_DIR={torch.submodule_search_locations[0]}",
        *(f"-D{name}={value}" for name, value in options.items()),
    ]
    with (binary / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        _run(configure)
        _run([_tool("cmake"), "--build", str(binary), "--target", target.removesuffix(".so")])
    return binary / target


def missing() -> str | None:
    """Why nothing can be built here: the first of its tools that is not there, or None."""
    for name in ("cmake", "ninja"):
        try:
            _tool(name)
        except BuildError as reason:
            return str(reason)
    if not os.environ.get("CXX") and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "the host build needs a C++ compiler, and none is in PATH"
    return None


def _tool(name: str) -> str:
    # The environment's own first: it need not be activated.
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise BuildError(f"the host build needs {name}, which is neither beside {sys.executable} nor in PATH")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}")
