"""The tables of a report: what a set of runs shows, as rows and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from svmax_ops.runs.retrieval.measures import MEASURES, TIMES, k_of, measure_of
from svmax_ops.runs.retrieval.report.groups import DEPENDS_ON, Group, distinct, reference
from svmax_ops.runs.tables import WHERE, markdown_table, measured_on, place

_BASELINES = {"untrained": "untrained network", "pixels": "raw pixels", "chance": "chance"}


def rows_of_groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """One row a group, then the untrained network, raw pixels and chance for whatever they depend on."""
    rows = []
    for found in groups:
        row = {**found.label, "runs": len(found.runs), "step": found.runs[0].network[-1]["step"]}
        row |= _statistics([run.network[-1] for run in found.runs])
        costs = [line for run in found.runs for line in run.lines if line["split"] == "cost"]
        row |= {name: mean(line[name] for line in costs) for name in TIMES if costs}
        rows.append(row | measured_on(found.runs))
    for name, fields in DEPENDS_ON.items():
        named = [field for field in fields if field in groups[0].label]
        for runs in distinct(groups, name).values():
            label = {field: runs[0].config[field] for field in named}
            row = {"loss": name, **label, "runs": len(runs), "step": 0}
            rows.append(row | _statistics([reference(run, name) for run in runs]) | measured_on(runs))
    return rows


def rows_of_runs(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """One row a run: nothing that was run is left out of what is published."""
    rows = []
    for found in groups:
        for run in found.runs:
            last = run.network[-1]
            measures = {name: last[name] for name in _measures([last])}
            row = {**found.label, "seed": run.config["seed"], "step": last["step"], **measures}
            rows.append(row | {"commit": run.environment["commit"]})
    return rows


def _measures(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was measured: R@K in the order of K, then MEASURES."""
    names = {name for row in rows for name in row}
    recalls = sorted((name for name in names if k_of(name) is not None), key=_k)
    return [*recalls, *(name for name in MEASURES if name in names)]


def _pivoted(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of the paper's tables (R@1, R@8 or the K nearest to it, NMI), and spread."""
    second = min((n for n in _measures(rows) if k_of(n) is not None), key=lambda n: abs(_k(n) - 8))
    return list(dict.fromkeys(["recall_at_1", second, "nmi", "spread"]))


def _k(name: str) -> int:
    return k_of(name) or 0


def _heading(name: str) -> str:
    measure = measure_of(name)
    return measure.heading if measure else name


def _is_number(name: str) -> bool:
    return measure_of(name.removesuffix("_sd")) is not None


def _statistics(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    result = {}
    for name in _measures(lines):
        values = [line[name] for line in lines if name in line]
        if values:
            result[name] = mean(values)
        if len(values) > 1 and stdev(values) > 0:
            result[f"{name}_sd"] = stdev(values)
    return result


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table that also reads well as plain text, with the place of measurement below it.

    Where the learning rate was varied it is one table for each data set, with the rates side by side as in the paper's
    tables 1 and 2.
    """
    if len({row["lr"] for row in rows if row.get("lr") is not None}) > 1:
        return _side_by_side(rows) + _footer(rows)
    left_out = {"runs", "step", *WHERE}
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in left_out and not n.endswith("_sd")]
    numbers = [n for n in (*_measures(rows), *TIMES) if n in names]
    names = [n for n in names if n not in numbers] + numbers
    cells = [[_cell(row, name) for name in names] for row in rows]
    return markdown_table([_heading(n) for n in names], cells, [n in numbers for n in names]) + _footer(rows)


def _side_by_side(rows: Sequence[dict[str, Any]]) -> str:
    trained = [row for row in rows if row["step"]]
    rates = sorted({row["lr"] for row in trained}, reverse=True)
    text = ""
    for section, members in _sections(trained).items():
        shown = _pivoted(members)
        header = ["loss", "regularizer"]
        header += [(f"lr {rate:g}: " if name == shown[0] else "") + _heading(name) for rate in rates for name in shown]
        cells: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
        for row in members:
            cells.setdefault((row["loss"], row["regularizer"]), {})[row["lr"]] = row
        lines = []
        for names, by_rate in cells.items():
            numbers = (_cell(by_rate.get(rate, {}), name, name == shown[0]) for rate in rates for name in shown)
            lines.append([*names, *numbers, _runs(by_rate, rates)])
        table = markdown_table([*header, "runs"], lines, [False, False, *[True] * (len(header) - 1)])
        text += (f"**{section}**\n\n" if section else "") + table + "\n" + _baselines(rows, members) + "\n"
    return text


def _sections(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows by everything of their label but loss, regularizer and learning rate."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(section_title(row), []).append(row)
    return found


def section_title(label: Mapping[str, Any], apart_from: Sequence[str] = ("lr",)) -> str:
    """What tells a row or a group from others beside loss, regularizer and ``apart_from``: "strokes, medium"."""
    not_label = {"loss", "regularizer", "runs", "step", *WHERE, *apart_from}
    fields = [f for f in label if f not in not_label and not _is_number(f)]
    named = [f for f in fields if label[f] is not None]
    return ", ".join(str(label[f]) if isinstance(label[f], str) else f"{f} {label[f]}" for f in named)


def _runs(by_rate: dict[float, dict[str, Any]], rates: Sequence[float]) -> str:
    """How many seeds: one number, or one for each learning rate where they differ."""
    counts = [by_rate.get(rate, {}).get("runs", 0) for rate in rates]
    return str(counts[0]) if len(set(counts)) == 1 else ", ".join(map(str, counts))


def _baselines(rows: Sequence[dict[str, Any]], members: Sequence[dict[str, Any]]) -> str:
    """One line on what the section's numbers have to be compared with."""
    shown, member = _pivoted(members), members[0]
    texts = []
    for row in rows:
        fields = [f for f in DEPENDS_ON.get(row["loss"], ()) if f in member]
        if row["loss"] in _BASELINES and all(row[f] == member[f] for f in fields):
            measures = (f"{_heading(n)} {_cell(row, n, n == shown[0])}" for n in shown if n in row)
            texts.append(f"{_BASELINES[row['loss']]}: {', '.join(measures)}")
    return "; ".join(texts) + ".\n"


def _footer(rows: Sequence[dict[str, Any]]) -> str:
    trained = [row for row in rows if row["step"]]
    steps = sorted({row["step"] for row in trained})
    runs = max(row["runs"] for row in trained)
    seeds = f"; mean ± sd of up to {runs} seeds" if runs > 1 else ""
    return f"\nAfter {', '.join(map(str, steps))} iterations{seeds}. {place(trained)}\n"


def _cell(row: dict[str, Any], name: str, with_sd: bool = True) -> str:
    value = row.get(name)
    if value is None:
        return ""
    measure = measure_of(name)
    if measure is None:
        return str(value)
    deviation = row.get(f"{name}_sd") if with_sd else None
    text = measure.text(value)
    return text if deviation is None else f"{text} ± {measure.text(deviation)}"
