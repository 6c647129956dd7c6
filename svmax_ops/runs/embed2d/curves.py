"""How the measures change over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes

from svmax_ops.runs import plots
from svmax_ops.runs.embed2d.figures import NAMES
from svmax_ops.runs.embed2d.measures import MEASURES

CURVES = ("measures.png", "measures.svg")
_SHOWN = {"angular_entropy": " (1 even)", "largest_gap": "", "recall_at_1": "", "spread": " (1 even)"}
"""The measures, and what is said behind their names."""
_MOST_LEVEL = 6  # ticks whose numbers have room side by side
_STYLES = {"vanilla": "none", "svmax": "svmax", "centred": "svmax-centred"}
Course = Mapping[int, Mapping[str, Sequence[float]]]
"""By epoch and measure, the values of the seeds."""


@plots.styled
def draw_measures(sections: Mapping[str, Mapping[str, Course]], folder: Path) -> None:
    """A column for each measure, a row for each section, a line for each row of figure 4: the mean over the seeds, with
    a band from lowest to highest.

    Args:
        sections: by title, the course of each row.
        folder: for measures.png and measures.svg.
    """
    figure = plots.figure(7.2, 0.5 + 1.75 * len(sections))
    grid = figure.subplots(len(sections), len(_SHOWN), squeeze=False)
    for line, (title, courses) in zip(grid, sections.items(), strict=True):
        line[0].set_ylabel(title)
        for axes, measure in zip(line, _SHOWN, strict=True):
            for row, course in courses.items():
                _draw_line(axes, row, course, measure)
            axes.set_ylim(0, {"largest_gap": 360, "recall_at_1": 100}.get(measure, 1.02))
    for axes, (measure, note) in zip(grid[0], _SHOWN.items(), strict=True):
        axes.set_title(MEASURES[measure].heading + note, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    lines = {handle.get_label(): handle for axes in grid[:, 0] for handle in axes.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines))
    plots.save(figure, *(folder / name for name in CURVES), few_colours=True)


def _draw_line(axes: Axes, row: str, course: Course, measure: str) -> None:
    colour, style, marker = plots.REGULARIZERS[_STYLES[row]]
    values = [[MEASURES[measure].scale * value for value in found[measure]] for found in course.values()]
    places = range(len(values))  # the epochs double from one to the next, but for the first and the last
    axes.plot(places, list(map(mean, values)), color=colour, ls=style, marker=marker, ms=2.5, label=NAMES[row])
    axes.fill_between(places, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.2, lw=0)
    axes.set_xticks(places, list(map(str, course)), rotation=90 if len(places) > _MOST_LEVEL else 0)
