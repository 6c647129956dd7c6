"""One wheel, built against the torch of this environment, serves others: its ABI is torch's stable one.

Each version has an environment of its own in .venvs/, made once; a build with CUDA fetches gigabytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.package.building import CLEAN, ROOT, Built, succeed

CHECK = Path(__file__).with_name("check_installed.py")


def environment(version: str) -> Path:
    """The Python of an environment with this version of torch."""
    folder = ROOT / ".venvs" / f"torch-{version}"
    python = folder / "bin/python"
    if not (folder / ".made").exists():
        succeed(sys.executable, "-m", "venv", "--clear", folder)
        succeed(python, "-m", "pip", "install", "--quiet", f"torch=={version}", env=CLEAN)
        (folder / ".made").touch()
    return python


@pytest.mark.parametrize("version", [pytest.param("2.13.0", marks=pytest.mark.further), "2.11.0"])
def test_wheel_loads_and_computes_in_torch(built: Built, tmp_path: Path, version: str):
    python = environment(version)
    succeed(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", built.wheel, env=CLEAN)
    assert f"torch {version}" in succeed(python, CHECK, version, cwd=tmp_path, env=CLEAN)
