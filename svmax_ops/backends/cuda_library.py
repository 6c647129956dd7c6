"""Loads ``_C_cuda``, the kernels for GPUs of the ops that ``_C`` has defined; says why where it cannot.

torch's dispatcher takes these kernels for CUDA tensors. Loading them wakes neither the driver nor a GPU up.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import NamedTuple

import torch

from svmax_ops.torch_internals import keep, kept

LIBRARY = Path(__file__).parent.parent / "_C_cuda.so"


class BuiltFor(NamedTuple):
    """What the kernels were compiled for: the sentence of csrc/cuda/built_for.cpp."""

    version: str
    """CUDA's."""
    architectures: tuple[int, ...]
    """Whose machine code is in the library: 10 times the compute capability."""
    ptx: int
    """From this architecture on, the driver can compile the kernels anew."""

    @classmethod
    def read(cls, library: Path) -> BuiltFor | None:
        """From the file's bytes, before it is loaded; None where it does not say."""
        if library.stat().st_size == 0:  # which cannot be mapped
            return None
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = max(content.find(b"svmax_ops for CUDA "), 0)
            sentence = content[start : start + 1000]
        found = re.match(rb"svmax_ops for CUDA ([0-9.]+), architectures ([0-9 ]+), PTX ([0-9]+)\0", sentence)
        if found is None:
            return None
        version, architectures, ptx = (group.decode() for group in found.groups())
        return cls(version, tuple(map(int, architectures.split())), int(ptx))

    def serves(self, architecture: int) -> bool:
        """Whether a GPU of this architecture runs the kernels: machine code runs on later chips of its generation."""
        return architecture >= self.ptx or any(
            code // 10 == architecture // 10 and code <= architecture for code in self.architectures
        )

    def __str__(self) -> str:
        return f"CUDA {self.version}, architectures {' '.join(map(str, self.architectures))}, PTX {self.ptx}"


built_for: BuiltFor | None = None
"""Of the library that is loaded."""
unavailable: str | None = "the native library, which has the ops, is not loaded"
"""Why no library is loaded."""
_gpus: dict[int, str | None] = {}


def load() -> None:
    """Give the ops their kernels for GPUs, or say in ``unavailable`` why they have none."""
    global built_for, unavailable
    # A second import of the package in this process finds them loaded, or finds out the same.
    found = kept(torch.ops.svmax, "cuda_library") or _load(LIBRARY)
    keep(torch.ops.svmax, "cuda_library", found)
    built_for, unavailable = found


def _load(library: Path) -> tuple[BuiltFor | None, str | None]:
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is a build without CUDA"
    major = torch.version.cuda.partition(".")[0]
    remedy = f"install the toolkit of CUDA {major} (nvcc) and build again (pip install --no-build-isolation .)"
    if not library.exists():
        return None, f"the CUDA kernels were not built; {remedy}"
    built = BuiltFor.read(library)
    if built is None:
        return None, f"{library.name} does not say which CUDA it was built for; {remedy}"
    if built.version.partition(".")[0] != major:
        return None, (
            f"the CUDA kernels were built for CUDA {built.version},"
            f" and torch {torch.__version__} for CUDA {torch.version.cuda}; {remedy}"
        )
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return None, f"the CUDA kernels do not load in torch {torch.__version__}: {error.__cause__ or error}"
    return built, None


def unavailable_on(index: int) -> str | None:
    """Why the kernels cannot run on this GPU; the driver is asked once."""
    if unavailable is not None:
        return unavailable
    if index not in _gpus:
        _gpus[index] = _mismatch(index) if torch.cuda.is_available() else "there is no GPU that torch can use"
    return _gpus[index]


def unavailable_anywhere() -> str | None:
    """Why the kernels can run on no GPU of this machine."""
    reasons = [unavailable_on(index) for index in range(max(torch.cuda.device_count(), 1))]
    return None if None in reasons else reasons[0]


def gpu(index: int) -> tuple[str, int]:
    """What to call this GPU, and its architecture."""
    properties = torch.cuda.get_device_properties(index)
    architecture = 10 * properties.major + properties.minor
    return f"{properties.name} (architecture {architecture})", architecture


def _mismatch(index: int) -> str | None:
    name, architecture = gpu(index)
    if built_for is None or built_for.serves(architecture):
        return None
    return f"the CUDA kernels were built for {built_for}, not for {name}; see SVMAX_CUDA_ARCHITECTURES in the README"
