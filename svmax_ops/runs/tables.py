"""Tables of runs: as CSV, as Markdown, and where their numbers were measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from svmax_ops.runs.folders import Run

WHERE = ("cpu", "cores", "threads", "torch", "svmax_ops", "commit")


def measured_on(runs: Sequence[Run]) -> dict[str, Any]:
    """Machine and versions; several of one kind are all named."""
    found = [{**run.environment["machine"], **run.environment["versions"], **run.environment} for run in runs]
    return {name: " and ".join(dict.fromkeys(str(facts[name]) for facts in found)) for name in WHERE}


def place(rows: Sequence[Mapping[str, Any]]) -> str:
    """The machine and the versions in ``rows``, which have :func:`measured_on`'s fields, as a sentence."""
    facts = {name: " and ".join(dict.fromkeys(str(row[name]) for row in rows)) for name in WHERE}
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread(s) a run; torch {facts['torch']},"
        f" svmax_ops {facts['svmax_ops']}, commit {facts['commit']}."
    )


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """All that is known of each row, unrounded; shares as fractions of one."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table that also reads well as plain text; columns marked ``right`` are of numbers.

    A cell may hold any text: what would end it, as a path of the user's may, is escaped.
    """
    header, cells = list(map(_escaped, header)), [list(map(_escaped, line)) for line in cells]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    rule = ["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)]
    lines = []
    for line in [header, rule, *cells]:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        lines.append("| " + " | ".join(padded) + " |\n")
    return "".join(lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", r"\|")
