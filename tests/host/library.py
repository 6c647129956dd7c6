"""Builds and loads the CUDA sources of csrc/cuda for the host: torch.ops.svmax_host, on CPU tensors."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from pathlib import Path

from tests import cmake
from tests.cmake import BUILD, ROOT, BuildError, missing

__all__ = ["BUILD", "HERE", "ROOT", "BuildError", "build", "load", "missing"]

HERE = Path(__file__).parent


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
    """Build one target of CMakeLists.txt against the torch that is installed. -> its file."""
    torch = importlib.util.find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        raise BuildError("the host build needs torch, to compile against")
    return cmake.build(HERE, target, folder, SVMAX_TORCH_DIR=torch.submodule_search_locations[0], **options)
