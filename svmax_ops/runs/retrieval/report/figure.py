"""The report's picture: R@1, spread and singular values, without and with SVMax side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from svmax_ops.runs import plots
from svmax_ops.runs.retrieval.figures import (
    RECALL_LABEL,
    finish_singular_values,
    limit_recall,
    reference_lines,
    singular_value_curve,
)
from svmax_ops.runs.retrieval.report.groups import Group, baseline_levels

_VARIANT_FIELDS = ("regularizer", "svmax_weight", "spread_out_weight", "bounded")


@plots.styled
def draw(groups: Sequence[Group], path: Path) -> None:
    """A column for each loss (and whatever else differs but the regularizer), a line for each regularizer."""
    columns: dict[str, list[Group]] = {}
    for group in groups:
        columns.setdefault(_column_title(group), []).append(group)
    variants = list(dict.fromkeys(_variant(group) for group in groups))
    styles = {variant: _style(variant, variants) for variant in variants}
    figure = plots.figure(1.1 + 2.1 * len(columns), 6.2)
    grid = figure.subplots(3, len(columns), squeeze=False, sharey="row")
    limit_recall(grid[0, 0], highest_recall(groups))  # shared by the row
    for column, (title, members) in enumerate(columns.items()):
        recall, spread, spectrum = grid[:, column]
        for group in members:
            style = styles[_variant(group)]
            _curve(recall, group, "recall_at_1", 100, style)
            _curve(spread, group, "spread", 1, style)
            values = np.mean([run.network[-1]["singular_values"] for run in group.runs], axis=0)
            singular_value_curve(spectrum, values.tolist(), **{**style, "marker": ""})
        reference_lines(recall, baseline_levels(members), named=column == len(columns) - 1)
        recall.set(title=plots.plain(title), xlabel="iteration")
        spread.set(ylim=(0, 1), xlabel="iteration")
        finish_singular_values(spectrum)
        last = max(run.network[-1]["step"] for group in members for run in group.runs)
        for axes in (recall, spread):
            axes.set_xlim(0, 1.02 * last)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    grid[0, 0].set_ylabel(RECALL_LABEL)
    grid[1, 0].set_ylabel("spread of test batches\n(0 collapsed, 1 even)")
    grid[2, 0].set_ylabel("singular values of test batches\n(share of the largest possible)")
    legend(figure, grid)
    plots.save(figure, path)


def highest_recall(groups: Sequence[Group]) -> float:
    """Of all that is drawn, the share of one: every evaluation, raw pixels and chance."""
    lines = [line for group in groups for run in group.runs for line in run.lines]
    return max(line["recall_at_1"] for line in lines if line["split"] == "test")


def _curve(axes: Axes, group: Group, measure: str, scale: float, style: dict[str, Any]) -> None:
    """The mean over the seeds, and a band from the lowest to the highest, where all of them were evaluated."""
    found = [{line["step"]: line[measure] for line in run.network} for run in group.runs]
    steps = sorted(set.intersection(*map(set, found)))
    values = scale * np.array([[by_step[step] for step in steps] for by_step in found])
    axes.plot(steps, values.mean(0), ms=3, clip_on=False, zorder=3, **style)
    if len(values) > 1:
        axes.fill_between(steps, values.min(0), values.max(0), color=style["color"], alpha=0.2, lw=0)


def _column_title(group: Group) -> str:
    rest = [f"{k} {v}" for k, v in group.label.items() if k not in ("loss", *_VARIANT_FIELDS)]
    return plots.plain(", ".join([plots.NAMES[group.label["loss"]], *rest]))


def _variant(group: Group) -> tuple[tuple[str, Any], ...]:
    return tuple((field, group.label[field]) for field in _VARIANT_FIELDS if group.label.get(field) is not None)


def _style(variant: tuple[tuple[str, Any], ...], variants: list[tuple[tuple[str, Any], ...]]) -> dict[str, Any]:
    """The regularizer's own style; a further variant of the same regularizer gets the next colour."""
    regularizer = dict(variant)["regularizer"]
    same = [other for other in variants if dict(other)["regularizer"] == regularizer]
    colour, line, marker = plots.REGULARIZERS[regularizer]
    position = same.index(variant)
    if position:
        colour = plots.FURTHER[(position - 1) % len(plots.FURTHER)]
    extra = ", ".join(f"{name} {value}" for name, value in variant if name != "regularizer") if len(same) > 1 else ""
    label = plots.NAMES[regularizer] + (f" ({extra})" if extra else "")
    return {"color": colour, "ls": line, "marker": marker, "label": label}


def legend(figure: Figure, grid: np.ndarray) -> None:
    """Above the axes, what any of them shows; in as many columns as the figure is wide enough for."""
    found: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    widest = 0.5 + 0.055 * max(map(len, found))  # inches: the line, and letters of 7 points
    columns = min(len(found), 4, max(1, int(figure.get_figwidth() / widest)))
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=columns)
