"""What nvcc makes of the kernels for one architecture: registers, spills and shared memory, by ptxas itself.

No GPU is needed. The flags are those of CMakeLists.txt, read from the compile commands that CMake writes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "gpu-model"


class CompilerError(RuntimeError):
    """nvcc or CMake is missing, or the kernels do not compile."""


@dataclass(frozen=True)
class Compiled:
    """A kernel, as ptxas reports it; registers are of a thread, the rest is bytes (spills of a thread)."""

    kernel: str
    registers: int
    spill_stores: int
    spill_loads: int
    static_shared: int
    barriers: int


_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:, used (\d+) barriers)?")
_SHARED = re.compile(r"(\d+) bytes smem")
_TYPES = {"f": "float", "d": "double", "6__half": "half", "13__nv_bfloat16": "bfloat16"}


def readable(mangled: str) -> str:
    """ "_ZN5svmax4cuda15spectral_kernelILi128EEEv..." -> "spectral_kernel<128>"; other names as they are."""
    found = re.match(r"_ZN5svmax4cuda(?:\d+_GLOBAL__N_[^_]*_)?(\d+)(\w+)", mangled)
    if found is None:
        return mangled
    length = int(found[1])
    name, rest = found[2][:length], found[2][length:]
    arguments = re.match(r"I((?:Li\d+E|f|d|6__half|13__nv_bfloat16)+)E", rest)
    if arguments is None:
        return name
    each = re.findall(r"Li(\d+)E|(f|d|6__half|13__nv_bfloat16)", arguments[1])
    return f"{name}<{', '.join(number or _TYPES[scalar] for number, scalar in each)}>"


def parse(said: str) -> dict[str, Compiled]:
    """The report of ``ptxas -v``: kernel by kernel."""
    result = {}
    for entry, text in zip(_ENTRY.finditer(said), _ENTRY.split(said)[3::3], strict=True):
        kernel, spills, used = readable(entry[1]), _SPILLS.search(text), _USED.search(text)
        if spills is None or used is None:
            raise CompilerError(f"ptxas says nothing of the registers of {kernel}: {text.strip()[:200]}")
        shared = _SHARED.search(text)
        result[kernel] = Compiled(
            kernel, int(used[1]), int(spills[1]), int(spills[2]), int(shared[1]) if shared else 0, int(used[2] or 0)
        )
    return result


def architecture_command(command: list[str], architecture: str, cubin: Path) -> list[str]:
    """CMake's command for a .cu file, but for one architecture, into a cubin, and with ptxas telling what it made."""
    result, skip = [], False
    for word in command:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MT"):
            skip = True
        elif word in ("-c", "-dc", "-MD") or word.startswith(("--generate-code", "-gencode", "--threads", "-arch")):
            pass
        else:
            result.append(word)
    return [*result, "-cubin", f"-arch={architecture}", "-Xptxas=-v", "-o", str(cubin)]


def _tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise CompilerError(f"{name} was not found; the model needs nvcc, cmake and ninja.")
    return path


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise CompilerError(f"{Path(command[0]).name} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def _cmake_command(build: Path) -> tuple[list[str], Path]:
    """The command that CMakeLists.txt compiles the kernels with, and the folder it is run in."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    options = [f"-DSVMAX_TORCH_DIR={torch}", "-DSVMAX_CUDA=ON", "-DSVMAX_CUDA_ARCHITECTURES=90"]
    options += [f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    _tool("nvcc")
    _run([_tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *options], ROOT)
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if entry["file"].endswith("/cuda.cu"):
            return shlex.split(entry["command"]), Path(entry["directory"])
    raise CompilerError("CMake has no command for csrc/cuda/cuda.cu")


def _digest(*parts: str) -> str:
    """Of all that decides what nvcc makes."""
    hashed = hashlib.sha256()
    sources = [p for pattern in ("*.h", "*.cu", "*.cuh") for p in (ROOT / "csrc").rglob(pattern)]
    for path in [*sorted(sources), ROOT / "CMakeLists.txt", Path(__file__)]:
        hashed.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    for part in parts:
        hashed.update(part.encode() + b"\0")
    return hashed.hexdigest()[:24]


def compiled(architecture: str) -> dict[str, Compiled]:
    """Every kernel for an architecture such as "sm_90"; kept in build/gpu-model until a source changes.

    Raises:
        CompilerError: nvcc, cmake or ninja is missing, or the kernels do not compile.
    """
    version = _run([_tool("nvcc"), "--version"], ROOT)
    kept = CACHE / f"{architecture}-{_digest(architecture, version)}.json"
    if kept.exists():
        return {name: Compiled(**fields) for name, fields in json.loads(kept.read_text()).items()}
    with tempfile.TemporaryDirectory() as scratch:
        command, folder = _cmake_command(Path(scratch))
        said = _run(architecture_command(command, architecture, Path(scratch) / "kernels.cubin"), folder)
    result = parse(said)
    if not result:
        raise CompilerError(f"ptxas reports no kernel for {architecture}:\n{said[-1000:]}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".tmp")
    unfinished.write_text(json.dumps({name: asdict(kernel) for name, kernel in result.items()}, indent=1) + "\n")
    unfinished.replace(kept)
    return result
