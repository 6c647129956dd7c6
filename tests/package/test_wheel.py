"""What is in the wheel, and that nothing of the building machine is."""

from __future__ import annotations

import platform
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from svmax_ops.backends.cuda_library import BuiltFor
from tests.package.building import BUILD, CLEAN, WITH_FLAGS, Built, succeed, tracked

X86 = ("baseline", "avx2", "avx512")
CUDA = "svmax_ops/_C_cuda.so"
SYSTEM = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6"}


def extracted(built: Built, name: str, factory: pytest.TempPathFactory) -> Path:
    if name not in built.libraries:
        pytest.skip("no nvcc on this machine, or CMAKE_ARGS=-DSVMAX_CUDA=OFF: the wheel has no CUDA kernels")
    with zipfile.ZipFile(built.wheel) as files:
        return Path(files.extract(name, factory.mktemp("wheel")))


@pytest.fixture(scope="module", params=["svmax_ops/_C.so", CUDA])
def library(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(built, request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def cuda(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(built, CUDA, tmp_path_factory)


def kernels(built: Built) -> dict[str, Path]:
    """The object of the kernels for each instruction set."""
    objects = built.objects.glob("CMakeFiles/kernels_*.dir/csrc/cpu/kernels.cpp.o")
    found = {re.search("kernels_(.*).dir", str(path)).group(1): path for path in objects}
    assert set(found) == set(X86 if platform.machine() == "x86_64" else X86[:1])
    return found


def test_serves_every_python_on_this_platform(built):
    assert re.fullmatch(r"svmax_ops-[0-9.]+-py3-none-linux_\w+\.whl", built.wheel.name)


def test_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built.wheel) as files:
        names = {name for name in files.namelist() if ".dist-info/" not in name}
        licences = [name for name in files.namelist() if name.endswith("licenses/LICENSE")]
    assert names == {*tracked("svmax_ops"), *built.libraries}
    assert len(licences) == 1


def test_library_holds_no_path_of_this_machine(built, library):
    content = library.read_bytes()
    for folder in (built.source, Path(torch.__file__).parent, Path(sys.prefix), Path.home()):
        assert str(folder).encode() not in content
    # The check macros' __FILE__, without the folder: the strings are there.
    assert (b"csrc/cuda/" if "cuda" in library.name else b"csrc/cpu/cpu.cpp") in content


def test_library_needs_torch_by_name_and_no_python(library):
    dynamic = succeed("readelf", "--dynamic", "--wide", library)
    needed = {name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) if not name.startswith("ld-linux")}
    wanted = {"libtorch_cpu.so"}
    if "cuda" in library.name:  # the runtime that torch has loaded, of the same major version
        wanted |= {"libtorch_cuda.so", f"libcudart.so.{BuiltFor.read(library).version.partition('.')[0]}"}
    assert wanted <= needed <= wanted | SYSTEM
    assert not re.search("RPATH|RUNPATH", dynamic)


def test_kernels_are_compiled_for_the_architectures_that_were_asked_for(built, cuda):
    asked = re.search(r"SVMAX_CUDA_ARCHITECTURES=([0-9 ,]+)", CLEAN["CMAKE_ARGS"])
    architectures = BuiltFor.read(cuda).architectures
    if asked:
        assert set(architectures) == set(map(int, re.findall("[0-9]+", asked.group(1))))
    assert architectures
    rules = (built.objects / "build.ninja").read_text()
    for architecture in architectures:
        assert re.search(rf"arch=compute_{architecture},code=\[[a-z0-9_,]*sm_{architecture}\]", rules)


def test_library_offers_no_cpp_symbols(library):
    """Two libraries in one process must not mix up their functions: what is ours stays inside, or is named svmax_."""
    table = succeed("nm", "--dynamic", "--defined-only", "--demangle", library)
    offered = [line.split(maxsplit=2)[2] for line in table.splitlines() if " T " in line or "svmax" in line]
    assert offered
    assert [name for name in offered if not re.fullmatch("svmax_[a-z_]+", name)] == []


@pytest.mark.parametrize("isa", X86)
def test_object_uses_its_own_instruction_set(built, isa):
    """The baseline must run anywhere, and the others must be worth their size."""
    objects = kernels(built)
    if isa not in objects:
        pytest.skip("not an x86-64 machine: there is the baseline alone")
    code = succeed("objdump", "--disassemble", "--no-show-raw-insn", objects[isa])
    assert ("%ymm" in code) == (isa != "baseline")
    assert ("%zmm" in code) == (isa == "avx512")


def test_instruction_sets_share_no_code(built):
    """A function that two objects define weakly is kept once by the linker: it could be the one for the wider set."""
    for isa, path in kernels(built).items():
        table = succeed("nm", "--defined-only", "--demangle", path)
        weak = [line for line in table.splitlines() if re.match(r"\w+ [WVu] (?!DW.ref)", line)]
        assert [line for line in weak if f"svmax::{isa}::" not in line] == []


def test_dispatcher_is_compiled_for_every_machine(built):
    for name in ("schemas.cpp", "cpu/cpu.cpp"):
        code = succeed("objdump", "--disassemble", built.objects / "CMakeFiles/_C.dir/csrc" / f"{name}.o")
        assert "Disassembly of section .text" in code
        assert "%ymm" not in code


def test_builds_again_where_it_was_built(built, tmp_path):
    """As after a change of one kernel: CMake's memory of the first build must not stand in the way.

    Nor what the source no longer has: a module that is left from the first build is not in the second wheel.
    """
    (modules,) = built.source.glob("build/lib*/svmax_ops")
    (modules / "removed.py").touch()
    before = {path: path.stat().st_mtime_ns for path in built.objects.glob("CMakeFiles/*.dir/**/*.o")}
    assert before
    succeed(sys.executable, *BUILD, "--wheel-dir", tmp_path, built.source, cwd=tmp_path, env=WITH_FLAGS)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # and nothing was compiled a second time
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as again, zipfile.ZipFile(built.wheel) as first:
        assert again.namelist() == first.namelist()
