"""``svmax report``: what a set of runs shows, in one table (text, CSV, Markdown) and one picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import tyro

from svmax_ops.runs import plots
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.groups import Group, Run, collect, group, reference
from svmax_ops.runs.harness import write_atomically, writing
from svmax_ops.runs.report_figure import draw

MEASURES = ("recall_at_1", "recall_at_8", "nmi", "spread", "effective_rank")
TIMES = ("step_ms", "svmax_ms", "torch_svd_ms")
_HEADINGS = {
    "recall_at_1": "R@1 %",
    "recall_at_8": "R@8 %",
    "effective_rank": "eff. rank",
    "nmi": "NMI",
    "step_ms": "step ms",
    "svmax_ms": "SVMax ms",
    "torch_svd_ms": "torch SVD ms",
}
_DATA_FIELDS = ("dataset", "root", "jitter")
_WHERE = ("cpu", "cores", "threads", "torch", "svmax_ops", "commit")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """One table (printed, table.csv, table.md) and one picture (picture.png) of runs; seeds are averaged."""

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
    rows = table(groups)
    out = config.out or Path(os.path.commonpath([path.resolve() for path in config.runs]))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    text = formatted(rows)
    write_atomically(out / "table.csv", as_csv(rows).encode())
    write_atomically(out / "table.md", text.encode())
    draw(groups, out / "picture.png")
    print(text, end="")
    print(f"{os.path.relpath(out)}: table.csv, table.md, picture.png")


def table(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """One row a group, then the untrained network, raw pixels and chance on each data set of the groups."""
    rows = []
    for found in groups:
        row = {**found.label, "runs": len(found.runs), "step": found.runs[0].network[-1]["step"]}
        row |= _statistics([run.network[-1] for run in found.runs], MEASURES)
        costs = [line for run in found.runs for line in run.lines if line["split"] == "cost"]
        row |= {name: mean(line[name] for line in costs) for name in TIMES if costs}
        rows.append(row | _where(found.runs[0]))
    data: dict[str, list[Run]] = {}
    for run in (run for found in groups for run in found.runs):
        data.setdefault(json.dumps([run.config.get(field) for field in _DATA_FIELDS]), []).append(run)
    for runs in data.values():
        label = {field: runs[0].config[field] for field in _DATA_FIELDS if field in groups[0].label}
        for name in ("untrained", "pixels", "chance"):
            lines = [reference(run, name) for run in runs]
            row = {"loss": name, **label, "runs": len(runs), "step": 0, **_statistics(lines, MEASURES)}
            rows.append(row | _where(runs[0]))
    return rows


def _statistics(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    result = {}
    for name in names:
        values = [line[name] for line in lines if name in line]
        if values:
            result[name] = mean(values)
        if len(values) > 1 and stdev(values) > 0:
            result[f"{name}_sd"] = stdev(values)
    return result


def _where(run: Run) -> dict[str, Any]:
    machine, versions = run.environment["machine"], run.environment["versions"]
    return {
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "threads": machine["threads"],
        "torch": versions["torch"],
        "svmax_ops": versions["svmax_ops"],
        "commit": run.environment["commit"],
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """All that is known of each row, unrounded; shares as fractions of one."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def formatted(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table that also reads well as plain text, with the place of measurement below it."""
    left_out = {"runs", "step", *_WHERE}
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in left_out and not n.endswith("_sd")]
    names = [n for n in names if n not in (*MEASURES, *TIMES)] + [n for n in (*MEASURES, *TIMES) if n in names]
    cells = [[_HEADINGS.get(name, name) for name in names]]
    cells += [[_cell(row, name) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    right = [name in (*MEASURES, *TIMES) for name in names]
    rule = ["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)]
    lines = []
    for line in [cells[0], rule, *cells[1:]]:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        lines.append("| " + " | ".join(padded) + " |")
    first = rows[0]
    steps = sorted({row["step"] for row in rows if row["step"]})
    runs = max(row["runs"] for row in rows if row["step"])
    seeds = f"; mean ± sd of up to {runs} seeds" if runs > 1 else ""
    lines += [
        "",
        f"After {', '.join(map(str, steps))} iterations{seeds}. {first['cpu']}, {first['cores']} cores,"
        f" {first['threads']} thread(s) a run; torch {first['torch']}, svmax_ops {first['svmax_ops']},"
        f" commit {first['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name not in (*MEASURES, *TIMES):
        return str(value)
    scale = 100 if name.startswith("recall") else 1
    digits = 2 if name in ("nmi", *TIMES) else 3 if name == "spread" else 1
    text = f"{scale * value:.{digits}f}"
    deviation = row.get(f"{name}_sd")
    return text if deviation is None else f"{text} ± {scale * deviation:.{digits}f}"
