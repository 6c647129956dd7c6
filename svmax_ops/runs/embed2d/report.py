"""What a set of 2-D embedding runs shows: tables of all seeds, each seed's figure 4, the measures over the epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from svmax_ops.runs.embed2d.config import ROWS, Embed2dConfig
from svmax_ops.runs.embed2d.curves import CURVES, draw_measures
from svmax_ops.runs.embed2d.data import CLASS_NAMES
from svmax_ops.runs.embed2d.figure1 import FIGURE1, draw_figure1
from svmax_ops.runs.embed2d.figures import Panel, draw_grid, title
from svmax_ops.runs.embed2d.measures import MEASURES
from svmax_ops.runs.folders import Found, Run
from svmax_ops.runs.harness import CHECKPOINT, read_checkpoint, write_atomically
from svmax_ops.runs.members import Member, finished_members
from svmax_ops.runs.tables import as_csv, markdown_table, measured_on, place

_SETTING = ("dataset", "images", "batch_size", "epochs", "lr", "momentum", "svmax_weight")
_EARLY = (1, 4, 16)  # epochs in the Markdown table, beside the last: the paper says "rapidly"


@dataclasses.dataclass(frozen=True)
class Section:
    """Runs that differ by row and seed only; a vanilla run is in each section that it can be compared in."""

    setting: dict[str, Any]
    runs: dict[tuple[str, int], Run]
    """By row and seed."""

    @property
    def rows(self) -> list[str]:
        return [row for row in ROWS if any(row == found for found, _ in self.runs)]

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.runs})

    def of_row(self, row: str) -> list[Run]:
        return [run for (found, _), run in self.runs.items() if found == row]

    def course(self, row: str) -> dict[int, dict[str, list[float]]]:
        """By epoch and measure, the values of the row's seeds."""
        found: dict[int, dict[str, list[float]]] = {}
        for run in self.of_row(row):
            for line in evaluations(run):
                at = found.setdefault(line["epoch"], {name: [] for name in MEASURES})
                for name in MEASURES:
                    at[name].append(line[name])
        return found


def report(found: Found, out: Path) -> tuple[str, list[str]]:
    """Write the report of the finished runs into the folder ``out``: its tables as text, and the files it made.

    table.md: some epochs, over the seeds. table.csv: every evaluated epoch, over the seeds. runs.csv: every epoch of
    every seed. embeddings-*: a figure for each setting and seed, and one of all seeds after the last epoch. measures:
    over the epochs. figure1: the paper's.
    """
    members, found = finished_members(found, Embed2dConfig, _setting)
    sections = _sections(members)
    text = "".join((f"**{name}**\n\n" if len(sections) > 1 else "") + _table(s) + "\n" for name, s in sections.items())
    runs = [run for section in sections.values() for run in section.runs.values()]
    text += (
        "Mean ± standard deviation over the seeds. Singular values divided by the root of the number of pictures."
        f" {place([measured_on(runs)])}\n{found.note()}"
    )
    write_atomically(out / "table.md", text.encode())
    for file, rows_of in (("table.csv", _rows), ("runs.csv", _rows_of_runs)):
        rows = {repr(row): row for section in sections.values() for row in rows_of(section)}  # a shared run's once
        write_atomically(out / file, as_csv(list(rows.values())).encode())
    draw_figure1(out)
    draw_measures({name: {row: s.course(row) for row in s.rows} for name, s in sections.items()}, out)
    files = ["table.md", "table.csv", "runs.csv", *FIGURE1, *CURVES]
    for name, section in sections.items():
        slug = "-" + name.replace(", ", "-").replace(" ", "-").replace("_", "-") if len(sections) > 1 else ""
        files += _draw(section, out, f"embeddings{slug}")
    return text, files


def evaluations(run: Run) -> list[dict[str, Any]]:
    """In the order of training."""
    return [line for line in run.lines if line["split"] == "test"]


def _sections(members: Sequence[Member]) -> dict[str, Section]:
    """The runs by what tells a setting from the others."""
    found = list({str(setting): setting for setting in (_setting(member.run.config) for member in members)}.values())
    # What a vanilla run has in common with those that have a weight as well is no section of its own.
    settings = [one for one in found if not any(_of_row(other, "vanilla") == one != other for other in found)]
    return {
        _title(setting, settings): Section(
            setting, {(row, seed): run for run, row, seed in members if _setting(run.config) == _of_row(setting, row)}
        )
        for setting in settings
    }


def _setting(config: Mapping[str, Any]) -> dict[str, Any]:
    return _of_row({name: config[name] for name in _SETTING}, config["rows"])


def _of_row(setting: dict[str, Any], row: str) -> dict[str, Any]:
    """What of ``setting`` has an effect on the row."""
    return {name: setting[name] for name in Embed2dConfig.settings_of(row, setting)}


def _title(setting: dict[str, Any], settings: Sequence[dict[str, Any]]) -> str:
    """The data set, and what differs between the settings that have it."""
    alike = [other for other in settings if other["dataset"] == setting["dataset"]]
    differing = [name for name in setting if len({other[name] for other in alike if name in other}) > 1]
    return ", ".join([setting["dataset"], *(f"{name} {setting[name]}" for name in differing)])


def _label(section: Section, row: str) -> dict[str, Any]:
    """The first columns of the tables; empty where a setting has no effect on the row."""
    return {**dict.fromkeys(_SETTING), **_of_row(section.setting, row), "row": row}


def _rows(section: Section) -> Iterator[dict[str, Any]]:
    """One row a row of the figure and epoch."""
    for row in section.rows:
        runs = section.of_row(row)
        for epoch, found in section.course(row).items():
            line = {**_label(section, row), "epoch": epoch, "runs": len(runs)}
            for name, values in found.items():
                line |= {name: mean(values), f"{name}_min": min(values), f"{name}_max": max(values)}
                if len(values) > 1:
                    line[f"{name}_sd"] = stdev(values)
            yield line | measured_on(runs)


def _rows_of_runs(section: Section) -> Iterator[dict[str, Any]]:
    """One row an evaluation: nothing that was run is left out of what is published."""
    for (row, seed), run in section.runs.items():
        for line in evaluations(run):
            measures = {name: line[name] for name in ("epoch", "step", *MEASURES, "classes")}
            yield {**_label(section, row), "seed": seed, **measures, "commit": run.environment["commit"]}


def _table(section: Section) -> str:
    courses = {row: section.course(row) for row in section.rows}
    last = section.setting["epochs"]
    epochs = [*(epoch for epoch in _EARLY if epoch < last), last]
    cells = [
        [
            *(str(epoch), row, str(len(section.of_row(row)))),
            *(_cell(values, name) for name, values in course[epoch].items()),
        ]
        for epoch in epochs
        for row, course in courses.items()
        if epoch in course
    ]
    header = ["epoch", "row", "seeds", *(measure.heading for measure in MEASURES.values())]
    return markdown_table(header, cells, [True, False] + [True] * (1 + len(MEASURES)))


def _cell(values: Sequence[float], name: str) -> str:
    text = MEASURES[name].text
    return f"{text(mean(values))} ± {text(stdev(values))}" if len(values) > 1 else text(mean(values))


def _draw(section: Section, out: Path, stem: str) -> list[str]:
    """A figure for each seed, over the epochs; where there are several, one of all after the last epoch."""
    panels = {key: _panels(run) for key, run in section.runs.items()}
    names = CLASS_NAMES[section.setting["dataset"]]
    stems = []
    for seed in section.seeds:
        rows = {row: panels[row, seed] for row in section.rows if (row, seed) in panels}
        epochs = list(next(iter(rows.values())))
        stems.append(f"{stem}-seed{seed}")
        draw_grid({row: list(p.values()) for row, p in rows.items()}, list(map(title, epochs)), names, out, stems[-1])
    if len(section.seeds) > 1:
        last = section.setting["epochs"]
        ends = {row: [panels.get((row, seed), {}).get(last) for seed in section.seeds] for row in section.rows}
        stems.append(f"{stem}-all-seeds")
        draw_grid(ends, [f"seed {seed}" for seed in section.seeds], names, out, stems[-1])
    return [f"{stem}{ending}" for stem in stems for ending in (".png", ".svg")]


def _panels(run: Run) -> dict[int, Panel]:
    """By epoch."""
    checkpoint = read_checkpoint(run.path / CHECKPOINT)
    return {epoch: Panel(embeddings, checkpoint["test_labels"]) for epoch, embeddings in checkpoint["panels"].items()}
