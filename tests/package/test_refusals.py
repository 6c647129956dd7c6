"""A machine that cannot build the libraries is told so in one sentence."""

from __future__ import annotations

import ensurepip
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

from tests.package.building import BUILD, CLEAN, ROOT, succeed

TORCH = Path(torch.__file__).parent
REAL_NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
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


USED = """
import torch, svmax_ops
from svmax_ops.cli import main
x = torch.eye(8, requires_grad=True)
svmax_ops.svmax_loss(x).backward()
assert x.grad.isfinite().all()
main(["info"])
"""


def test_without_a_compiler_the_package_goes_without_the_native_library(copy, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(copy, source)
    earlier = source / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}/svmax_ops"
    earlier.mkdir(parents=True)
    (earlier / "_C.so").touch()
    environment = CLEAN | {"PATH": only(tmp_path, "cmake", "ninja"), "CXX": ""}
    out = tmp_path / "out"
    build = [sys.executable, *BUILD, "-v", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(
        build, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    reason = rf"no working C\+\+ compiler was found; install {NEEDED} .*\."
    warning = rf"warning: svmax_ops is installed without its native library: {reason}"
    assert len(re.findall(warning, done.stdout)) == 1, done.stdout
    (wheel,) = out.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as files:
        assert not [name for name in files.namelist() if name.endswith(".so")]  # nor the one of an earlier build
        files.extractall(tmp_path / "installed")
    used = succeed(sys.executable, "-c", USED, cwd=tmp_path, env=CLEAN | {"PYTHONPATH": str(tmp_path / "installed")})
    assert re.search("backend cpu +the native library was not built: no working C", used)
    assert re.search("backend reference +ok", used)


def test_without_a_compiler(copy, tmp_path):
    demanded = f"-DSVMAX_NATIVE=ON {CLEAN['CMAKE_ARGS']}"
    said = refusal(copy, tmp_path, PATH=only(tmp_path, "cmake", "ninja"), CXX="", CMAKE_ARGS=demanded)
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


def test_with_the_setuptools_of_an_older_pythons_venv(copy, tmp_path):
    """`pip install setuptools` says that it is there already."""
    bundled = [*(Path(ensurepip.__file__).parent / "_bundled").glob("setuptools-65*.whl")]
    if not bundled:
        pytest.skip("this Python's venv brings no setuptools")
    with zipfile.ZipFile(bundled[0]) as files:
        files.extractall(tmp_path / "old")
    said = refusal(copy, tmp_path, PYTHONPATH=str(tmp_path / "old"))
    assert re.fullmatch(
        r"svmax_ops: setuptools 65\.\S+ is too old to build this; install a newer one: pip install 'setuptools>=77'",
        said,
    )


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


# ---- the CUDA kernels; what stands for nvcc here says its version and no more


def nvcc(tmp_path: Path, version: str) -> str:
    program = tmp_path / "nvcc"
    program.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.0"\n')
    program.chmod(0o755)
    return str(program)


def configured(copy: Path, tmp_path: Path, *options: str, **environment: str) -> list[str]:
    """What CMake says of the CUDA kernels, without any that the environment asks for."""
    done = subprocess.run(
        ["cmake", "-S", copy, "-B", tmp_path / "build", "-G", "Ninja", f"-DSVMAX_TORCH_DIR={TORCH}", *options],
        env=CLEAN | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "CUDA kernels" in line]


def test_cuda_is_left_out_without_nvcc_and_the_build_says_so(copy, tmp_path):
    assert configured(copy, tmp_path, "-DSVMAX_NVCC=") == [
        "-- CUDA kernels: left out; nvcc is neither in PATH nor in CUDA_HOME or /usr/local/cuda,"
        " and CUDACXX does not name one"
    ]


def test_cuda_is_left_out_with_an_old_nvcc_and_the_build_says_so(copy, tmp_path):
    old = nvcc(tmp_path, "11.8")
    assert configured(copy, tmp_path, CUDACXX=old) == [
        f"-- CUDA kernels: left out; {old} is of CUDA '11.8', needed is 12.0 or newer"
    ]


def test_cuda_is_left_out_when_asked_to(copy, tmp_path):
    assert configured(copy, tmp_path, "-DSVMAX_CUDA=OFF") == ["-- CUDA kernels: left out; SVMAX_CUDA is OFF"]


def test_cuda_demanded_without_nvcc(copy, tmp_path):
    said = refusal(copy, tmp_path, CMAKE_ARGS="-DSVMAX_CUDA=ON -DSVMAX_NVCC=")
    assert said.startswith("svmax_ops: the CUDA kernels cannot be built: nvcc is neither in PATH nor in CUDA_HOME")


def test_cuda_for_an_architecture_that_nvcc_does_not_know(copy, tmp_path):
    if REAL_NVCC is None:
        pytest.skip("no nvcc on this machine")
    said = refusal(copy, tmp_path, CMAKE_ARGS="'-DSVMAX_CUDA_ARCHITECTURES=90 999'")
    assert re.fullmatch(
        r"svmax_ops: SVMAX_CUDA_ARCHITECTURES has '999'; \S*nvcc compiles for [0-9 ]+ 90 [0-9 ]+\.", said
    )


def test_cuda_with_a_compiler_that_nvcc_refuses(copy, tmp_path):
    if REAL_NVCC is None:
        pytest.skip("no nvcc on this machine")
    future = tmp_path / "g++"
    future.write_text(f'#!/bin/sh\nexec {shutil.which("g++")} -U__GNUC__ -D__GNUC__=99 "$@"\n')
    future.chmod(0o755)
    said = refusal(copy, tmp_path, CUDAHOSTCXX=str(future))
    assert re.fullmatch(
        rf"svmax_ops: \S*nvcc does not work with {re.escape(str(future))}: .*unsupported GNU version.*"
        r" Name another compiler in CUDAHOSTCXX, or leave the CUDA kernels out: CMAKE_ARGS=-DSVMAX_CUDA=OFF\.",
        said,
    )


SPILLS = """
__global__ void __launch_bounds__(1024) spilling_kernel(double* x) {
  double all[64];
  for (int i = 0; i < 64; ++i) all[i] = x[1024 * i + threadIdx.x];
  for (int k = 0; k < 64; ++k)
    for (int i = 0; i < 64; ++i) all[i] = fma(all[i], all[k], all[(i + 1) % 64]);
  for (int i = 0; i < 64; ++i) x[1024 * i + threadIdx.x] = all[i];
}
"""


def test_a_kernel_that_spills_registers_fails_in_ci_and_warns_elsewhere(copy, tmp_path):
    if REAL_NVCC is None:
        pytest.skip("no nvcc on this machine")
    source = tmp_path / "source"
    shutil.copytree(copy, source)
    (source / "csrc/cuda/cuda.cu").write_text(SPILLS)
    (flags,) = re.findall(r'^export CUDAFLAGS="(.*) \$\{CUDAFLAGS:-\}"$', (ROOT / ".ci/run").read_text(), re.MULTILINE)
    for name, environment in {"elsewhere": {"CUDAFLAGS": ""}, "ci": {"CUDAFLAGS": flags}}.items():
        build = tmp_path / name
        configured(source, build, "-DSVMAX_CUDA_ARCHITECTURES=90", **environment)
        done = subprocess.run(
            ["cmake", "--build", build / "build", "--target", "_C_cuda"], env=CLEAN, capture_output=True, text=True
        )
        assert "Registers are spilled to local memory in function '_Z15spilling_kernelPd'" in done.stdout
        assert (done.returncode == 0) == (name == "elsewhere")
