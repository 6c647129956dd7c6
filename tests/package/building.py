"""How the tests here run git, pip and the tools that read a binary."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# For a process that must not find the checkout: neither by PYTHONPATH nor, with -P or another cwd, by its folder.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SVMAX"))}
# One architecture of GPUs, where nothing else is asked for: seven take minutes.
CLEAN.setdefault("CMAKE_ARGS", "-DSVMAX_CUDA_ARCHITECTURES=90")
# As on a machine whose owner has set such flags for everything: CMakeLists.txt takes back what would break the kernels.
ANY_FLAGS = "-Ofast -ffast-math -ffinite-math-only -funsafe-math-optimizations -march=native"
WITH_FLAGS = {**CLEAN, "CXXFLAGS": f"{CLEAN.get('CXXFLAGS', '')} {ANY_FLAGS}"}
BUILD = ("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--disable-pip-version-check")


class Built(NamedTuple):
    wheel: Path
    source: Path
    """The unpacked source distribution that the wheel was built from."""
    objects: Path
    """CMake's build folder."""

    @property
    def libraries(self) -> list[str]:
        """The native libraries that this build makes: CMake leaves the one for CUDA out where there is no nvcc."""
        cuda = (self.objects / "CMakeFiles/_C_cuda.dir").is_dir()
        return ["svmax_ops/_C.so", *(["svmax_ops/_C_cuda.so"] if cuda else [])]


def tracked(folder: str = ".") -> list[str]:
    """The files of the checkout that git knows or would not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", folder]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def succeed(*command: object, **options: object) -> str:
    """Run a command that must succeed; the output of one that does not is the failure's message."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
