"""``svmax report``: what a set of runs shows, in tables (text, CSV, Markdown) and pictures."""

from __future__ import annotations

import dataclasses
import importlib
import os
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
    the epochs, figure 1.
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
        UserError: no runs, runs of several commands, or a run folder that cannot be read.
    """
    from svmax_ops.runs.folders import read_run, run_folders  # here: they want torch, --help does not
    from svmax_ops.runs.harness import writing

    folders = run_folders(config.runs)
    commands = {read_run(folder).command: folder for folder in folders}
    if len(commands) > 1 or not commands.keys() <= set(REPORTS):
        found = ", ".join(f"svmax {command} ({folder})" for command, folder in commands.items())
        raise UserError(f"report takes runs of one of {', '.join(REPORTS)} at a time; got those of {found}.")
    out = config.out or Path(os.path.commonpath([path.resolve() for path in config.runs]))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    text, files = importlib.import_module(f"svmax_ops.runs.{next(iter(commands))}.report").report(folders, out)
    print(text, end="")
    print(f"{os.path.relpath(out)}: {', '.join(files)}")
