"""``svmax report``: what a set of runs shows, in tables (text, CSV, Markdown) and one picture."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import tyro

from svmax_ops.runs import plots
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.groups import collect, group
from svmax_ops.runs.harness import write_atomically, writing
from svmax_ops.runs.report_figure import draw
from svmax_ops.runs.report_study_figure import STUDIED, draw_over
from svmax_ops.runs.report_tables import as_csv, as_markdown, rows_of_groups, rows_of_runs


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Tables (printed, table.csv, table.md; each run in runs.csv) and a picture (picture.png); seeds are averaged.

    The picture is drawn over the learning rate where that was varied (paper, figure 2), over batch size and dimension
    where those were (paper, figure 5), and otherwise over the iterations.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or folders of run folders."""
    out: Path | None = None
    """Folder of the report. None: the folder given, or what the run folders have in common."""


def report(config: ReportConfig) -> None:
    """Print and write the report.

    Raises:
        UserError: no runs, or a run folder that cannot be read.
    """
    if not config.runs:
        raise UserError("report needs at least one run folder, or a folder of them.")
    runs = collect(config.runs)
    order = list(plots.NAMES)
    groups = sorted(group(runs), key=lambda g: (order.index(g.label["loss"]), order.index(g.label["regularizer"])))
    rows = rows_of_groups(groups)
    out = config.out or Path(os.path.commonpath([path.resolve() for path in config.runs]))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    text = as_markdown(rows)
    write_atomically(out / "table.csv", as_csv(rows).encode())
    write_atomically(out / "runs.csv", as_csv(rows_of_runs(groups)).encode())
    write_atomically(out / "table.md", text.encode())
    varied = next((fields for fields in STUDIED if any(field in groups[0].label for field in fields)), None)
    if varied is None:
        draw(groups, out / "picture.png")
    else:
        draw_over(groups, varied, out / "picture.png")
    print(text, end="")
    print(f"{os.path.relpath(out)}: table.csv, runs.csv, table.md, picture.png")
