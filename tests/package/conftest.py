"""A clean copy of the project, and one wheel built from it: what a stranger gets who has the files in git alone."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from tests.package.building import BUILD, CLEAN, ROOT, WITH_FLAGS, Built, succeed, tracked


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without anything that git ignores."""
    folder = tmp_path_factory.mktemp("copy")
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


@pytest.fixture(scope="session")
def built(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A source distribution of the copy, and a wheel built from what is in that.

    The CUDA kernels in it, where there is nvcc, are for the GPU architectures that CMAKE_ARGS asks for. It is built
    under flags that would break it (building.py), so that what it holds and computes shows that they do not.
    """
    out = tmp_path_factory.mktemp("built")
    make_sdist = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    succeed(sys.executable, "-c", make_sdist, out, cwd=copy, env=CLEAN)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(out)
    (source,) = (path for path in out.iterdir() if path.is_dir())
    succeed(sys.executable, *BUILD, "--wheel-dir", out, source, cwd=out, env=WITH_FLAGS)
    (wheel,) = out.glob("*.whl")
    (objects,) = source.glob("build/temp.*")
    return Built(wheel, source, objects)
