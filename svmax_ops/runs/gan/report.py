"""What a set of GAN runs shows: tables of all seeds, and heat maps of each seed as in the paper's figure 3."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from svmax_ops.runs.folders import Found, Run
from svmax_ops.runs.gan import figures
from svmax_ops.runs.gan.config import ROWS, GanConfig
from svmax_ops.runs.gan.measures import MEASURES
from svmax_ops.runs.gan.training import SAMPLES
from svmax_ops.runs.harness import CHECKPOINT, read_checkpoint, write_atomically
from svmax_ops.runs.members import Member, finished_members
from svmax_ops.runs.tables import as_csv, markdown_table, measured_on, place

_SETTING = ("generator_activation", "logits", "mode_weights", "lr", "batch_size", "latent_dim", "steps")
_PAPER = "the paper's setting"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by seed only."""

    setting: dict[str, Any]
    """What the rows of a figure have in common."""
    row: str
    variant: dict[str, Any]
    """What has an effect on this row alone."""
    runs: dict[int, Run]
    """By seed."""

    @property
    def name(self) -> str:
        """The row, with its objective unless that is the paper's."""
        objective = self.variant.get("objective", "eq1")
        form = ", absolute" if self.variant.get("matched_form") == "absolute" else ""
        through = ", with gradient" if self.variant.get("unrolled_gradient") else ""
        return self.row + ("" if objective == "eq1" else f", {objective}{form}") + through

    def last(self, measure: str) -> list[Any]:
        """After the last step, of each seed; None where the samples are not finite."""
        return [evaluations(run)[-1][measure] for run in self.runs.values()]


def report(found: Found, out: Path) -> tuple[str, list[str]]:
    """Write the report of the finished runs into the folder ``out``: its tables as text, and the files it made.

    table.csv, table.md: the last step, over the seeds. runs.csv: every picture of every seed. heat_maps-*: a figure for
    each setting and seed, and one of all seeds at the last step.
    """
    members, found = finished_members(found, GanConfig, _told_apart)
    groups = _groups(members)
    settings = list({_title(group.setting): group.setting for group in groups})
    sections = {title: [group for group in groups if _title(group.setting) == title] for title in settings}
    text = ""
    for title, section in sections.items():
        text += (f"**{title}**\n\n" if len(sections) > 1 else "") + _table(section) + "\n"
    runs = [run for group in groups for run in group.runs.values()]
    steps = sorted({group.setting["steps"] for group in groups})
    text += (
        f"After {', '.join(f'{step:,}' for step in steps)} steps, on {SAMPLES:,} samples; a number"
        " for each seed, in the same order, where there are several; shares and singular values are means, the radius"
        f" median and largest. {place([measured_on(runs)])}\n{found.note()}"
    )
    write_atomically(out / "table.md", text.encode())
    write_atomically(out / "table.csv", as_csv([_row_of_group(group) for group in groups]).encode())
    write_atomically(out / "runs.csv", as_csv([row for group in groups for row in _rows_of_runs(group)]).encode())
    files = ["table.md", "table.csv", "runs.csv"]
    for title, section in sections.items():
        files += _draw(section, out, f"-{_slug(title)}" if len(sections) > 1 else "")
    return text, files


def evaluations(run: Run) -> list[dict[str, Any]]:
    """In the order of training, with the singular values by name."""
    found = []
    for line in run.lines:
        if line["split"] == "test":
            values = {}
            for ending in ("", "_centred"):
                pair = line[f"singular_values{ending}"] or (None, None)
                values |= {f"s_1{ending}": pair[0], f"s_2{ending}": pair[1]}
            found.append({**line, **values})
    return found


def _groups(members: Sequence[Member]) -> list[Group]:
    groups: dict[str, Group] = {}
    for run, row, seed in members:
        setting, variant = _told_apart(run.config)
        group = groups.setdefault(repr((setting, row, variant)), Group(setting, row, variant, {}))
        group.runs[seed] = run
    order = list(ROWS)
    return sorted(groups.values(), key=lambda group: (_title(group.setting) != _PAPER, order.index(group.row)))


def _told_apart(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Setting and variant; what has no effect on the row is left out."""
    names = [
        name
        for name in GanConfig.settings_of(config["rows"], GanConfig.row_settings)
        if name != "matched_form" or config["objective"] == "matched"
    ]
    return {name: config[name] for name in _SETTING}, {name: config[name] for name in names}


def _title(setting: dict[str, Any]) -> str:
    """What a setting changes of the paper's: "generator_activation relu, logits"."""
    default = GanConfig()
    changed = {name: value for name, value in setting.items() if value != getattr(default, name)}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in changed.items()) or _PAPER


def _slug(title: str) -> str:
    return "paper" if title == _PAPER else title.replace(", ", "-").replace(" ", "-").replace("_", "-")


def _row_of_group(group: Group) -> dict[str, Any]:
    row: dict[str, Any] = {**group.setting, "row": group.row, **dict.fromkeys(GanConfig.row_settings), **group.variant}
    row |= {"runs": len(group.runs), "seeds": " ".join(map(str, group.runs))}
    for name in MEASURES:
        values = [value for value in group.last(name) if value is not None]
        if values:
            row |= {name: mean(values), f"{name}_median": median(values)}
            row |= {f"{name}_min": min(values), f"{name}_max": max(values)}
        if len(values) > 1:
            row[f"{name}_sd"] = stdev(values)
    return row | measured_on(list(group.runs.values()))


def _rows_of_runs(group: Group) -> list[dict[str, Any]]:
    """One row a picture: nothing that was run is left out of what is published."""
    label = {**group.setting, "row": group.row, **dict.fromkeys(GanConfig.row_settings), **group.variant}
    names = ("step", *MEASURES)
    return [
        {**label, "seed": seed, **{name: line[name] for name in names}, "commit": run.environment["commit"]}
        for seed, run in group.runs.items()
        for line in evaluations(run)
    ]


def _table(groups: Sequence[Group]) -> str:
    counted, pairs = ("modes_wide", "modes"), (("s_1", "s_2"), ("s_1_centred", "s_2_centred"))
    header = ["row", "λ", *(MEASURES[name].heading for name in (*counted, "high_quality", "radius_99"))]
    header += [", ".join(MEASURES[name].heading for name in pair) for pair in pairs]
    header += [MEASURES["seconds_per_1000_steps"].heading]
    cells = []
    for group in groups:
        radii = [math.inf if radius is None else radius for radius in group.last("radius_99")]
        counts = [", ".join(map(MEASURES[name].text, group.last(name))) for name in counted]
        radius = ", ".join(map(MEASURES["radius_99"].text, dict.fromkeys((median(radii), max(radii)))))
        values = [", ".join(_mean(group, name) for name in pair) for pair in pairs]
        weight = f"{group.variant['svmax_weight']:g}" if "svmax_weight" in group.variant else ""
        share, seconds = (_mean(group, name) for name in ("high_quality", "seconds_per_1000_steps"))
        cells.append([group.name, weight, *counts, share, radius, *values, seconds])
    return markdown_table(header, cells, [False] + [True] * (len(header) - 1))


def _mean(group: Group, measure: str) -> str:
    values = [value for value in group.last(measure) if value is not None]
    return MEASURES[measure].text(mean(values)) if values else "–"


def _draw(groups: Sequence[Group], out: Path, ending: str) -> list[str]:
    """A figure for each seed, over the steps; one of all seeds, at the last step."""
    samples = {
        (i, seed): read_checkpoint(run.path / CHECKPOINT)["samples"]
        for i, group in enumerate(groups)
        for seed, run in group.runs.items()
    }
    seeds = sorted({seed for _, seed in samples})
    config = groups[0].setting
    names = [figures.line_break(group.name) for group in groups]
    files = []
    for seed in seeds:
        steps = sorted({step for i, found in samples.items() if i[1] == seed for step in found})
        rows = {}
        for i, name in enumerate(names):
            found = samples.get((i, seed), {})
            rows[name] = [*(figures.panel(found.get(step), config) for step in steps), figures.target(config, seed)]
        stem = f"heat_maps{ending}-seed{seed}"
        figures.draw_grid(rows, [*(f"step {step:,}" for step in steps), ""], out, stem)
        files += [f"{stem}.png", f"{stem}.svg"]
    last = {}
    for i, name in enumerate(names):
        final = [samples.get((i, seed), {}) for seed in seeds]
        last[name] = [figures.panel(found[max(found)] if found else None, config) for found in final]
    stem = f"heat_maps{ending}-all-seeds"
    figures.draw_grid(last, [f"seed {seed}" for seed in seeds], out, stem)
    return [*files, f"{stem}.png", f"{stem}.svg"]
