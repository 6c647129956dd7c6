"""The library ``_C_cuda``, kernels for GPUs of the ops that ``_C`` has defined, and the backend ``cuda`` of both.

torch's dispatcher takes these kernels for CUDA tensors. Loading them wakes neither the driver nor a GPU up.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from svmax_ops.backends.base import Backend, missing_names
from svmax_ops.backends.native import NAMESPACE, Library
from svmax_ops.torch_internals import keep, kept

PATH = Path(__file__).parent.parent / "_C_cuda.so"


class BuiltFor(NamedTuple):
    """The CUDA version and GPUs that the kernels were compiled for: the sentence of csrc/cuda/built_for.cpp."""

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


class Kernels(NamedTuple):
    """The kernels for GPUs, as far as this process has them."""

    built_for: BuiltFor | None
    """The CUDA version and GPUs of the library that is loaded."""
    missing: str | None
    """Why none is loaded."""

    @classmethod
    def load(cls, library: Library, path: Path) -> Kernels:
        """Give the ops of ``library`` their kernels for GPUs, or find out why they have none."""
        if library.missing is not None:
            return cls(None, missing_names() or "the native library, which has the ops, is not loaded")
        # A second import of the package in this process finds them loaded, or finds out the same.
        found = cls(*(kept(torch.ops.svmax, "cuda_library") or cls._load(path)))
        keep(torch.ops.svmax, "cuda_library", found)
        return found

    @classmethod
    def _load(cls, path: Path) -> Kernels:
        if torch.version.cuda is None:
            return cls(None, f"torch {torch.__version__} is a build without CUDA")
        major = torch.version.cuda.partition(".")[0]
        remedy = f"install the toolkit of CUDA {major} (nvcc) and build again (pip install --no-build-isolation .)"
        if not path.exists():
            return cls(None, f"the CUDA kernels were not built; {remedy}")
        built = BuiltFor.read(path)
        if built is None:
            return cls(None, f"{path.name} does not say which CUDA it was built for; {remedy}")
        if built.version.partition(".")[0] != major:
            return cls(
                None,
                f"the CUDA kernels were built for CUDA {built.version},"
                f" and torch {torch.__version__} for CUDA {torch.version.cuda}; {remedy}",
            )
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            return cls(None, f"the CUDA kernels do not load in torch {torch.__version__}: {error.__cause__ or error}")
        return cls(built, None)


class Cuda(Backend):
    name = "cuda"
    devices = ("cuda", "meta")

    def __init__(self, library: Library) -> None:
        self.kernels = Kernels.load(library, PATH)
        self._gpus: dict[int, str | None] = {}
        if library.missing is None:
            super().__init__(NAMESPACE)

    def missing(self) -> str | None:
        """Why the kernels can run on no GPU of this machine."""
        if self.kernels.missing is not None:
            return self.kernels.missing
        reasons = [self._missing_on(index) for index in range(max(torch.cuda.device_count(), 1))]
        return None if None in reasons else reasons[0]

    def missing_for(self, x: Tensor) -> str | None:
        if x.device.type != "cuda":
            return self.missing()
        if torch.compiler.is_compiling():  # which cannot trace the question to the driver
            return self.kernels.missing
        return self.kernels.missing or self._missing_on(x.device.index)

    def _missing_on(self, index: int) -> str | None:
        """Why the kernels cannot run on this GPU; the driver is asked once."""
        if index not in self._gpus:
            self._gpus[index] = self._mismatch(index) if torch.cuda.is_available() else _NO_GPU
        return self._gpus[index]

    def _mismatch(self, index: int) -> str | None:
        name, architecture = gpu(index)
        built_for = self.kernels.built_for
        if built_for is None or built_for.serves(architecture):
            return None
        return (
            f"the CUDA kernels were built for {built_for}, not for {name}; see SVMAX_CUDA_ARCHITECTURES in the README"
        )

    def describe(self) -> dict[str, str]:
        built_for = self.kernels.built_for
        said = f"not loaded: {self.kernels.missing}" if built_for is None else f"{PATH.name}, for {built_for}"
        return {"CUDA kernels": said}


_NO_GPU = "there is no GPU that torch can use"


def gpu(index: int) -> tuple[str, int]:
    """This GPU's name, and its architecture."""
    properties = torch.cuda.get_device_properties(index)
    architecture = 10 * properties.major + properties.minor
    return f"{properties.name} (architecture {architecture})", architecture
