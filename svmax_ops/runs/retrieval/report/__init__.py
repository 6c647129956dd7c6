"""What a set of retrieval runs shows."""

from __future__ import annotations

from pathlib import Path

from svmax_ops.runs import plots
from svmax_ops.runs.folders import Found
from svmax_ops.runs.harness import write_atomically
from svmax_ops.runs.retrieval.report.figure import draw
from svmax_ops.runs.retrieval.report.groups import collect, group
from svmax_ops.runs.retrieval.report.study_figure import STUDIED, draw_over
from svmax_ops.runs.retrieval.report.tables import as_markdown, rows_of_groups, rows_of_runs
from svmax_ops.runs.tables import as_csv


def report(found: Found, out: Path) -> tuple[str, list[str]]:
    """Write the report of the finished runs into the folder ``out``: its table as text, and the files it made.

    The picture is drawn over the learning rate where that was varied (paper, figure 2), over batch size and dimension
    where those were (paper, figure 5), and otherwise over the iterations.
    """
    runs, found = collect(found)
    order = list(plots.NAMES)
    groups = sorted(group(runs), key=lambda g: (order.index(g.label["loss"]), order.index(g.label["regularizer"])))
    rows = rows_of_groups(groups)
    text = as_markdown(rows) + found.note()
    write_atomically(out / "table.csv", as_csv(rows).encode())
    write_atomically(out / "runs.csv", as_csv(rows_of_runs(groups)).encode())
    write_atomically(out / "table.md", text.encode())
    varied = next((fields for fields in STUDIED if any(field in groups[0].label for field in fields)), None)
    if varied is None:
        draw(groups, out / "picture.png")
    else:
        draw_over(groups, varied, out / "picture.png")
    return text, ["table.csv", "runs.csv", "table.md", "picture.png"]
