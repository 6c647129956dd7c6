"""The native kernels: loads the library ``_C`` that belongs to this package and calls its ops.

It has the kernels for the CPU; those for GPUs come from :mod:`svmax_ops.backends.cuda_library`.
"""

from __future__ import annotations

import ctypes
import filecmp
from pathlib import Path
from typing import NamedTuple

import torch

from svmax_ops.backends import cuda_library
from svmax_ops.torch_internals import keep, kept

_LIBRARY = Path(__file__).parent.parent / "_C.so"


class _Loaded(NamedTuple):
    """A library file that this process has loaded, as it was then."""

    path: str
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> _Loaded:
        stat = path.stat()
        return cls(str(path), (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))

    def is_still(self, path: Path) -> bool:
        """Whether ``path`` is that file, or has the same bytes."""
        now = _Loaded.of(path)
        if now.stamp == self.stamp:
            return True
        before = Path(self.path)
        unchanged = before.exists() and _Loaded.of(before).stamp == self.stamp
        return unchanged and filecmp.cmp(before, path, shallow=False)


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or the reason why there is none.

    Raises:
        ImportError: the process has another copy's library loaded: torch's dispatcher takes one, and only a new process
            another.
    """
    if not _LIBRARY.exists():
        return None, "the native library was not built; install the package with a C++ compiler present (pip install .)"
    loaded = kept(torch.ops.svmax, "library")
    if loaded is None:
        try:
            torch.ops.load_library(str(_LIBRARY))
        except OSError as error:
            return None, f"the native library does not load in torch {torch.__version__}: {error.__cause__ or error}"
        loaded = _Loaded.of(_LIBRARY)
        keep(torch.ops.svmax, "library", loaded)
    elif not _Loaded(*loaded).is_still(_LIBRARY):
        other = "as it was before it changed" if loaded[0] == str(_LIBRARY) else f"of another copy, {loaded[0]}"
        raise ImportError(
            f"svmax_ops: this process has loaded the native library {other}; restart Python to use {_LIBRARY}."
        )
    return ctypes.CDLL(loaded[0]), None


_library, unavailable = _load()
if _library is not None:
    from svmax_ops.ops import functions_of, register_rules

    register_rules("svmax")
    cuda_library.load()
    objective, singular_values, gram, spectral, backward, namespace = functions_of("svmax")
    _library.svmax_instruction_set.restype = ctypes.c_char_p
    _library.svmax_use_instruction_set.argtypes = [ctypes.c_char_p]
    _library.svmax_use_instruction_set.restype = ctypes.c_bool


def instruction_set() -> str | None:
    """The instruction set whose kernels run: the best one this processor has, unless another was chosen."""
    return None if _library is None else _library.svmax_instruction_set().decode()


def use_instruction_set(name: str) -> None:
    """Run the kernels of another instruction set ("avx512", "avx2", "baseline"), in all threads: for tests, benchmarks.

    Raises:
        RuntimeError: the library has no kernels for it, or this processor cannot run them.
    """
    if _library is None or not _library.svmax_use_instruction_set(name.encode()):
        raise RuntimeError(f"use_instruction_set: {name!r} is not built in or does not run here.")


def describe() -> dict[str, str]:
    """What ``svmax info`` prints of the native libraries."""
    built_for, name = cuda_library.built_for, cuda_library.LIBRARY.name
    cuda = f"not loaded: {cuda_library.unavailable}" if built_for is None else f"{name}, for {built_for}"
    if _library is None:
        return {"native library": f"not loaded: {unavailable}", "CUDA kernels": cuda}
    return {
        "native library": _LIBRARY.name,
        "instruction set": instruction_set() or "",
        "threads": str(torch.get_num_threads()),
        "CUDA kernels": cuda,
    }
