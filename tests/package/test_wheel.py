"""What is in the wheel, and that nothing of the building machine is."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from package.building import BUILD, CLEAN, Built, succeed, tracked

X86 = ("baseline", "avx2", "avx512")
LIBRARY = "svmax_ops/_C.so"


@pytest.fixture(scope="module")
def library(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with zipfile.ZipFile(built.wheel) as files:
        return Path(files.extract(LIBRARY, tmp_path_factory.mktemp("wheel")))


def kernels(built: Built) -> dict[str, Path]:
    """The object of the kernels for each instruction set."""
    objects = built.objects.glob("CMakeFiles/kernels_*.dir/csrc/cpu/kernels.cpp.o")
    return {re.search("kernels_(.*).dir", str(path)).group(1): path for path in objects}


def test_serves_every_python_on_this_platform(built):
    assert re.fullmatch(r"svmax_ops-[0-9.]+-py3-none-linux_\w+\.whl", built.wheel.name)


def test_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built.wheel) as files:
        names = {name for name in files.namelist() if ".dist-info/" not in name}
        licences = [name for name in files.namelist() if name.endswith("licenses/LICENSE")]
    assert names == {*tracked("svmax_ops"), LIBRARY}
    assert len(licences) == 1


def test_library_holds_no_path_of_this_machine(built, library):
    content = library.read_bytes()
    for folder in (built.source, Path(torch.__file__).parent, Path(sys.prefix), Path.home()):
        assert str(folder).encode() not in content
    assert b"csrc/cpu/cpu.cpp" in content  # the check macros' __FILE__, without the folder: the strings are there


def test_library_needs_torch_by_name_and_no_python(library):
    dynamic = succeed("readelf", "--dynamic", "--wide", library)
    needed = {name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) if not name.startswith("ld-linux")}
    assert "libtorch_cpu.so" in needed
    assert needed <= {"libtorch_cpu.so", "libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6"}
    assert not re.search("RPATH|RUNPATH", dynamic)


def test_library_offers_no_cpp_symbols(library):
    """Two libraries in one process must not mix up their functions: what is ours stays inside, or is named svmax_."""
    table = succeed("nm", "--dynamic", "--defined-only", "--demangle", library)
    offered = [line.split(maxsplit=2)[2] for line in table.splitlines() if " T " in line or "svmax" in line]
    assert [name for name in offered if not re.fullmatch("svmax_[a-z_]+", name)] == []


@pytest.mark.parametrize("isa", X86)
def test_object_uses_its_own_instruction_set(built, isa):
    """The baseline must run anywhere, and the others must be worth their size."""
    objects = kernels(built)
    if "avx2" not in objects:
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
        assert "%ymm" not in code


def test_builds_again_where_it_was_built(built, tmp_path):
    """As after a change of one kernel: CMake's memory of the first build must not stand in the way."""
    before = {path: path.stat().st_mtime_ns for path in built.objects.rglob("*.o")}
    assert before
    succeed(sys.executable, *BUILD, "--wheel-dir", tmp_path, built.source, cwd=tmp_path, env=CLEAN)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # and nothing was compiled a second time
