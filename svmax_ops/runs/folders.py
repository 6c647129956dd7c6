"""Run folders, found and read back."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import CONFIG, read_metrics


@dataclasses.dataclass(frozen=True)
class Run:
    path: Path
    command: str
    """Of ``svmax``, that made it: "retrieval", "gan" or "embed2d"."""
    config: dict[str, Any]
    environment: dict[str, Any]
    """``command`` with its arguments, ``versions``, ``commit`` and ``machine``."""
    lines: list[dict[str, Any]]


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders in ``paths``, each a run folder or a folder of them.

    Raises:
        UserError: a path that is neither.
    """
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder.")
        # A run of several is a run folder with one for each of them in it.
        found = sorted(file.parent for file in path.glob(f"*/{CONFIG}")) or [path] * (path / CONFIG).exists()
        if not found:
            raise UserError(f"{path} holds no run (no {CONFIG} in it or in its folders).")
        folders += found
    return folders


def read_run(folder: Path) -> Run:
    """The run in ``folder``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        record = json.loads((folder / CONFIG).read_text("utf-8"))
        words = shlex.split(record["command"])
        command = words[words.index("svmax") + 1]  # "torchrun ..." may stand before it
        return Run(folder, command, dict(record.pop("config")), record, read_metrics(folder))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise UserError(f"the run in {folder} cannot be read: {error}.") from error
