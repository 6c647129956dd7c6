"""A machine that cannot build the library is told so in one sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package.building import BUILD, CLEAN

NEEDED = r"a C\+\+20 compiler: g\+\+ 11 or clang\+\+ 14, or newer"


def refusal(copy: Path, tmp_path: Path, python: str | Path = sys.executable, **environment: str) -> str:
    """What a build in this environment says: the line that is ours."""
    source = tmp_path / "source"
    shutil.copytree(copy, source)
    done = subprocess.run(
        [str(python), *BUILD, "--wheel-dir", str(tmp_path), str(source)],
        env=CLEAN | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said
    lines = re.findall("error: (svmax_ops: .*)", said)
    assert len(lines) == 1, said
    return lines[0]


def only(tmp_path: Path, *programs: str) -> str:
    """A PATH that has these programs and nothing else."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in programs:
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def bare_python(tmp_path: Path) -> Path:
    """This environment's Python with its packages, but without the programs that pip has put beside it."""
    prefix = tmp_path / "environment"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    (prefix / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (prefix / "lib").symlink_to(Path(sys.prefix) / "lib")
    return prefix / "bin/python"


def test_without_a_compiler(copy, tmp_path):
    said = refusal(copy, tmp_path, PATH=only(tmp_path, "cmake", "ninja"), CXX="")
    assert re.fullmatch(rf"svmax_ops: no working C\+\+ compiler was found; install {NEEDED} .*", said)


def test_with_a_compiler_that_does_not_work(copy, tmp_path):
    said = refusal(copy, tmp_path, CXX=shutil.which("false"))
    assert re.fullmatch(rf"svmax_ops: no working C\+\+ compiler was found; install {NEEDED} .*", said)


def test_with_an_old_compiler(copy, tmp_path):
    old = tmp_path / "g++"  # today's compiler, which says that it is the one of 2019
    old.write_text(f'#!/bin/sh\nexec {shutil.which("g++")} -U__GNUC__ -D__GNUC__=9 "$@"\n')
    old.chmod(0o755)
    said = refusal(copy, tmp_path, CXX=str(old))
    assert re.fullmatch(
        rf"svmax_ops: {re.escape(str(old))} is GNU 9\.[0-9.]+; needed is {NEEDED}\. Name one in CXX\.", said
    )


@pytest.mark.parametrize("missing", ["cmake", "ninja"])
def test_without_a_build_tool(copy, tmp_path, missing):
    path = only(tmp_path, *{"cmake", "ninja"} - {missing})
    said = refusal(copy, tmp_path, bare_python(tmp_path), PATH=path)
    assert said == f"svmax_ops: {missing} was not found; install it, for example with: pip install {missing}"


def test_against_an_old_torch(copy, tmp_path):
    header = tmp_path / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n")
    done = subprocess.run(
        ["cmake", "-S", copy, "-B", tmp_path / "build", "-G", "Ninja", f"-DSVMAX_TORCH_DIR={tmp_path / 'torch'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    folder = tmp_path / "torch"
    sentence = f"svmax_ops: torch 2.10 or newer must be installed to build against; found 2.9 in '{folder}'."
    assert sentence in (done.stdout + done.stderr).splitlines()
