"""Where and with what something was measured; and files that hold rows."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from svmax_ops.backends import native
from svmax_ops.runs import environment

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Facts that a number means nothing without; ``load`` says whether the machine was busy before we came."""
    where = environment.machine()
    return {
        "device": "cpu",
        "cpu": where["cpu"],
        "cores": where["cores"],
        "instruction_set": native.instruction_set() or "native library not available",
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """The commit of this checkout; "-dirty" where what is measured differs from it."""
    root = Path(__file__).parent.parent
    measured = ["csrc", "svmax_ops", "CMakeLists.txt", "cmake", "setup.py", "benchmarks", ":!benchmarks/results"]
    commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", *measured])
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # an unpacked archive, or a machine without git
    return f"{head}-dirty" if changes else head


def write_rows(path: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """``path``.json with the machine and the rows, ``path``.csv with the rows, each with what it was measured with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = [{**row, **{k: facts[k] for k in ("device", "torch", "commit")}} for row in rows]
        writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def read_rows(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What :func:`write_rows` wrote: the machine and the rows."""
    result = json.loads(path.with_suffix(".json").read_text())
    return result["machine"], result["rows"]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `svmax report` wrote, or of the paper's."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def text_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; also what the commands print."""
    header, rows = list(header), [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
