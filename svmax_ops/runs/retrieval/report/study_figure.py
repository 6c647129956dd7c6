"""The pictures of a study: R@1 over the learning rate (as the paper's figure 2), or over b and d (as its figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from svmax_ops.runs import plots
from svmax_ops.runs.retrieval.figures import RECALL_LABEL, limit_recall, reference_lines
from svmax_ops.runs.retrieval.report.figure import highest_recall, legend
from svmax_ops.runs.retrieval.report.groups import Group, baseline_levels
from svmax_ops.runs.retrieval.report.tables import section_title

STUDIED = (("lr",), ("batch_size", "dim"))
"""What a study may vary beside loss, regularizer, data and seed, each with a picture of its own."""
_MEASURES = {"recall_at_1": (RECALL_LABEL, 100), "spread": ("spread (0 collapsed, 1 even)", 1)}


@plots.styled
def draw_over(groups: Sequence[Group], fields: tuple[str, ...], path: Path) -> None:
    """A column for each loss, a line for each regularizer: mean over the seeds, with a band from lowest to highest.

    Args:
        groups: of equal configuration but for the seed.
        fields: one of ``STUDIED``: over the learning rate a row for each data set; over b and d a row each for R@1 and
            spread.
        path: of the PNG.
    """
    over_lr = fields == ("lr",)
    sections = list(dict.fromkeys(section_title(group.label, fields) for group in groups))
    losses = list(dict.fromkeys(group.label["loss"] for group in groups))
    measures = ("recall_at_1",) if over_lr else tuple(_MEASURES)
    rows = [(section, measure) for section in sections for measure in measures]
    figure = plots.figure(1.2 + 2.1 * max(len(losses), 1 if over_lr else 1.6), 0.5 + 2.1 * len(rows))
    grid = figure.subplots(len(rows), len(losses), squeeze=False, sharex=True, sharey="row")
    points = sorted({tuple(group.label.get(f) for f in fields) for group in groups}, key=str if over_lr else None)
    for (section, measure), line in zip(rows, grid, strict=True):
        members = [group for group in groups if section_title(group.label, fields) == section]
        name, scale = _MEASURES[measure]
        _limit(line[0], measure, members)
        line[0].set_ylabel(f"{plots.plain(section)}\n{name}" if section else name)
        last = max(losses.index(group.label["loss"]) for group in members)
        for axes, loss in zip(line, losses, strict=True):
            here = [group for group in members if group.label["loss"] == loss]
            for regularizer in dict.fromkeys(group.label["regularizer"] for group in here):
                line_of = [group for group in here if group.label["regularizer"] == regularizer]
                _line(axes, line_of, fields, points, measure, scale)
            if here and measure == "recall_at_1":
                reference_lines(axes, baseline_levels(here), named=axes is line[last])
    for axes, loss in zip(grid[0], losses, strict=True):
        axes.set_title(plots.NAMES[loss])
    for axes in grid[-1]:
        _name_points(axes, points, over_lr)
    legend(figure, grid)
    plots.save(figure, path)


def _line(
    axes: Axes,
    groups: Sequence[Group],
    fields: tuple[str, ...],
    points: list[tuple[Any, ...]],
    measure: str,
    scale: float,
) -> None:
    """One regularizer's."""
    regularizer = groups[0].label["regularizer"]
    colour, style, marker = plots.REGULARIZERS[regularizer]
    found = []
    for group in groups:
        place = tuple(group.label.get(field) for field in fields)
        values = [scale * value for value in group.final(measure)]
        found.append((place[0] if fields == ("lr",) else points.index(place), values))
    found.sort(key=lambda point: point[0])
    x = [place for place, _ in found]
    means = [sum(values) / len(values) for _, values in found]
    axes.plot(x, means, color=colour, ls=style, marker=marker, ms=3, label=plots.NAMES[regularizer], zorder=3)
    lowest, highest = ([edge(values) for _, values in found] for edge in (min, max))
    axes.fill_between(x, lowest, highest, color=colour, alpha=0.2, lw=0)


def _limit(axes: Axes, measure: str, groups: Sequence[Group]) -> None:
    if measure == "spread":
        axes.set_ylim(0, 1)
        return
    limit_recall(axes, highest_recall(groups))


def _name_points(axes: Axes, points: list[tuple[Any, ...]], over_lr: bool) -> None:
    if over_lr:
        axes.set(xlabel="learning rate", xscale="log")
        return
    axes.set_xlabel("batch size b, dimension d")
    axes.set_xticks(range(len(points)), [", ".join(str(v) for v in point if v is not None) for point in points])
