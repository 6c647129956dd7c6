"""The native library ``_C``, which has the ops, and the backend ``cpu``, whose kernels are in it too."""

from __future__ import annotations

import ctypes
import filecmp
from pathlib import Path
from typing import NamedTuple

import torch

from svmax_ops.backends.base import Backend, missing_names
from svmax_ops.ops import register_rules
from svmax_ops.torch_internals import keep, kept

NAMESPACE = "svmax"
_PATH = Path(__file__).parent.parent / "_C.so"


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


class Library(NamedTuple):
    """The library that belongs to this package, as far as this process has it."""

    handle: ctypes.CDLL | None
    missing: str | None
    """Why there is none."""

    @classmethod
    def load(cls, path: Path) -> Library:
        """Load it, or what another import of this package has loaded.

        Raises:
            ImportError: the process has another copy's library loaded: torch's dispatcher takes one, and only a new
                process another.
        """
        if not path.exists():
            why_not = path.with_suffix(".missing")  # which setup.py leaves where it went on without
            remedy = "; install the package with a C++ compiler present (pip install .)"
            said = f": {why_not.read_text('utf-8').strip().rstrip('.')}" if why_not.exists() else remedy
            return cls(None, f"the native library was not built{said}")
        loaded = kept(torch.ops.svmax, "library")
        if loaded is None:
            try:
                torch.ops.load_library(str(path))
            except OSError as error:
                reason = f"the native library does not load in torch {torch.__version__}: {error.__cause__ or error}"
                return cls(None, reason)
            loaded = _Loaded.of(path)
            keep(torch.ops.svmax, "library", loaded)
        elif not _Loaded(*loaded).is_still(path):
            other = "as it was before it changed" if loaded[0] == str(path) else f"of another copy, {loaded[0]}"
            raise ImportError(
                f"svmax_ops: this process has loaded the native library {other}; restart Python to use {path}."
            )
        handle = ctypes.CDLL(loaded[0])
        handle.svmax_instruction_set.restype = ctypes.c_char_p
        handle.svmax_use_instruction_set.argtypes = [ctypes.c_char_p]
        handle.svmax_use_instruction_set.restype = ctypes.c_bool
        return cls(handle, missing_names())


LIBRARY = Library.load(_PATH)


class Cpu(Backend):
    name = "cpu"
    devices = ("cpu", "meta")

    def __init__(self, library: Library) -> None:
        self.library = library
        if library.missing is None:
            register_rules(NAMESPACE)
            super().__init__(NAMESPACE)

    def missing(self) -> str | None:
        return self.library.missing

    def describe(self) -> dict[str, str]:
        if self.library.missing is not None:
            return {"native library": f"not loaded: {self.library.missing}"}
        return {
            "native library": _PATH.name,
            "instruction set": instruction_set() or "",
            "threads": str(torch.get_num_threads()),
        }


def instruction_set() -> str | None:
    """The instruction set whose kernels run: the best one this processor has, unless another was chosen."""
    return None if LIBRARY.handle is None else LIBRARY.handle.svmax_instruction_set().decode()


def use_instruction_set(name: str) -> None:
    """Run the kernels of another instruction set ("avx512", "avx2", "baseline"), in all threads: for tests, benchmarks.

    Raises:
        RuntimeError: the library has no kernels for it, or this processor cannot run them.
    """
    if LIBRARY.handle is None or not LIBRARY.handle.svmax_use_instruction_set(name.encode()):
        raise RuntimeError(f"use_instruction_set: {name!r} is not built in or does not run here.")
