"""``svmax report``: what a set of runs shows, in tables (text, CSV, Markdown) and pictures."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from svmax_ops.runs.errors import UserError

REPORTS = ("retrieval", "gan", "embed2d")
"""The commands whose runs are reported, each by svmax_ops.runs.COMMAND.report."""


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Tables (printed, table.csv, table.md; each run in runs.csv) and pictures of runs of one command.

    retrieval: picture.png, with the mean over the seeds; over the learning rate where that was varied (paper, figure
    2), over batch size and dimension where those were (paper, figure 5), and otherwise over the iterations. gan: heat
    maps of every seed (paper, figure 3). embed2d: the unit circle of every seed (paper, figure 4), the measures over
    the epochs, figure 1. A run that is not finished or cannot be read, and a second one of the same configuration and
    seed, are left out; the end of table.md names them.
    """

    runs: tuple[Path, ...] = dataclasses.field(metadata={"positional": "RUN"})
    """Run folders, or folders of run folders."""
    out: Path | None = None
    """Folder of the report. Default: the folder given, or what the run folders have in common."""

    def check(self) -> None:
        """Nothing can be wrong before the folders are read."""


def report(config: ReportConfig) -> None:
    """Print and write the report.

    Raises:
        UserError: no runs, runs of several commands, or none that can be reported.
    """
    from svmax_ops.runs.folders import read_runs, run_folders  # here: they want torch, --help does not
    from svmax_ops.runs.harness import writing

    found = read_runs(run_folders(config.runs))
    if not found.runs:
        raise found.refusal()
    commands: dict[str, Path] = {}
    for run in found.runs:
        commands.setdefault(run.command, run.path)
    if len(commands) > 1 or not commands.keys() <= set(REPORTS):
        named = ", ".join(f"svmax {command} ({folder})" for command, folder in commands.items())
        raise UserError(f"report takes runs of one of {', '.join(REPORTS)} at a time; got those of {named}.")
    out = config.out or _common(config.runs)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    text, files = importlib.import_module(f"svmax_ops.runs.{next(iter(commands))}.report").report(found, out)
    print(text, end="")
    print(f"{os.path.relpath(out)}: {', '.join(files)}")


def _common(paths: Sequence[Path]) -> Path:
    """The folder given, or what several have in common."""
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    if common == Path(common.anchor):
        raise UserError("the runs have no folder in common to write the report to; give --out.")
    return common
