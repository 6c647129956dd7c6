"""Where something is computed: backend, versions, commit, machine. Kept beside every number that is kept."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import svmax_ops
from svmax_ops.backend_names import VARIABLE, asked_by_environment
from svmax_ops.runs.errors import UserError


def environment() -> dict[str, Any]:
    """``versions``, ``commit`` (None outside a git checkout) and ``machine``, as kept in config.json."""
    import numpy as np  # here and below: a refusal of arguments does not wait for torch
    import torch

    versions = {
        "svmax_ops": svmax_ops.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return {"versions": versions, "commit": commit(), "machine": machine()}


def machine() -> dict[str, Any]:
    import torch

    return {"cpu": _cpu_name(), "cores": usable_cores(), "threads": torch.get_num_threads()}


def check_backend(backend: str) -> None:
    """Refuse a backend that is not available here.

    Raises:
        UserError: with the reason.
    """
    state = "ok" if backend == "auto" else svmax_ops.available_backends()[backend]
    if state != "ok":
        asked = f"{VARIABLE}={backend}" if asked_by_environment() == backend else f"--backend {backend}"
        raise UserError(f"{asked} is not available: {state}.")


def usable_cores() -> int:
    """The cores this process may run on, which a container makes fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """The git commit of the package's own checkout, marked where its files differ from it."""
    package = Path(svmax_ops.__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed, perhaps into an environment inside somebody else's checkout
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{head} with uncommitted changes" if _git(package, "status", "--porcelain", "--", ".") else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
