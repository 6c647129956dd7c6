"""Builds svmax_ops/_C.so and, where nvcc is found, svmax_ops/_C_cuda.so by CMake.

What is built, and how, stands in CMakeLists.txt, whose options come in CMAKE_ARGS; the rest is in pyproject.toml.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows, where nothing is compiled
    fcntl = None

ROOT = Path(__file__).resolve().parent
WITHOUT = "svmax_ops goes without its native library: "
WHY_NOT = "_C.missing"
OLDEST_SETUPTOOLS = 77  # the first that reads pyproject.toml's license; the venv of Python 3.11 brings 65.5

if int(setuptools.__version__.partition(".")[0]) < OLDEST_SETUPTOOLS:
    sys.exit(
        f"error: svmax_ops: setuptools {setuptools.__version__} is too old to build this; install a newer one:"
        f" pip install 'setuptools>={OLDEST_SETUPTOOLS}'"
    )
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402 - which an old one does not have


class OnlyWhatIsThere(build_py):
    def run(self) -> None:
        """Without modules that an earlier build has left and the source no longer has."""
        super().run()
        if self.editable_mode:
            return
        there = {Path(path).resolve() for path in self.get_outputs(include_bytecode=False)}
        for path in Path(self.build_lib, "svmax_ops").rglob("*.py"):
            if path.resolve() not in there:
                path.unlink(missing_ok=True)


class NothingToBuildError(Exception):
    """The sentence by which CMakeLists.txt says that this machine cannot build the native library."""


class CMakeBuild(build_ext):
    def build_extensions(self) -> None:
        package = ROOT / "svmax_ops" if self.editable_mode else Path(self.build_lib).resolve() / "svmax_ops"
        try:
            self.build_native()
            (package / WHY_NOT).unlink(missing_ok=True)
        except NothingToBuildError as reason:
            print(f"warning: svmax_ops is installed without its native library: {reason}", file=sys.stderr, flush=True)
            self.extensions.clear()
            wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
            if wheel is not None:
                wheel.root_is_pure = True
            package.mkdir(parents=True, exist_ok=True)
            for library in package.glob("_C*.so"):  # of an earlier build
                library.unlink()
            (package / WHY_NOT).write_text(f"{reason}\n")  # for `svmax info`

    def build_native(self) -> None:
        # setuptools gives an editable install a new folder each time, in which everything would be compiled again.
        build = ROOT / "build/editable" if self.editable_mode else Path(self.build_temp).resolve()
        cmake, ninja = tool("cmake"), tool("ninja")
        options = [f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DSVMAX_TORCH_DIR={torch_dir()}"]
        options += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        with alone(build):
            forget(build)
            run([cmake, "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *options])
            run([cmake, "--build", str(build)])
        for ext in list(self.extensions):
            target = Path(self.get_ext_fullpath(ext.name)).resolve()
            if (build / target.name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(build / target.name, target)
                target.chmod(0o755)
            else:  # the CUDA kernels, where CMake left them out
                self.extensions.remove(ext)
                target.unlink(missing_ok=True)

    def copy_extensions_to_source(self) -> None:
        for old in (ROOT / "svmax_ops").glob("_C*.so"):  # an earlier build's _C_cuda must not stay beside a new _C
            old.unlink()
        super().copy_extensions_to_source()

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"  # no Python API inside, so no Python version in its name


class PlatformWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", "any" if self.root_is_pure else super().get_tag()[2]


@contextlib.contextmanager
def alone(build: Path) -> Iterator[None]:
    """Wait for another build in the same folder: two pips at once are one after the other."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget(build: Path) -> None:
    """Drop what CMake remembers, but not the objects: CXX may have changed, an isolated build's programs are gone."""
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    for compiler in build.glob("CMakeFiles/[0-9]*"):
        shutil.rmtree(compiler)


def tool(name: str) -> str:
    """A program of PATH, or one that pip has put beside this Python, whose environment need not be activated."""
    path = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    if path is None:
        raise CompileError(f"svmax_ops: {name} was not found; install it, for example with: pip install {name}")
    return path


def torch_dir() -> Path:
    spec = importlib.util.find_spec("torch")  # without importing it: the headers are all that is needed
    if spec is None or not spec.submodule_search_locations:
        raise CompileError(
            "svmax_ops: torch was not found; with --no-build-isolation install torch 2.10 or newer first."
        )
    return Path(spec.submodule_search_locations[0])


def run(command: list[str]) -> None:
    """Run a build step; of a refusal by CMakeLists.txt show its sentence alone."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in done.stdout.splitlines():
        if line.startswith(WITHOUT):
            raise NothingToBuildError(line.removeprefix(WITHOUT))
    refusals = [line for line in done.stdout.splitlines() if line.startswith("svmax_ops: ")]
    if done.returncode and refusals:
        raise CompileError(refusals[0])
    print(done.stdout, flush=True)
    if done.returncode:
        raise CompileError(f"svmax_ops: the native library could not be built: {command[0]} failed, see above.")


setup(
    ext_modules=[Extension("svmax_ops._C", sources=[]), Extension("svmax_ops._C_cuda", sources=[])],
    cmdclass={"build_py": OnlyWhatIsThere, "build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
)
