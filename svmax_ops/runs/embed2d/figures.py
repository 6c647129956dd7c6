"""Embeddings on the unit circle, as in the paper's figure 4, with what its figure 1 shows below each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from torch import Tensor

from svmax_ops.runs import plots
from svmax_ops.runs.embed2d.config import CLASSES, Embed2dConfig
from svmax_ops.runs.embed2d.data import CLASS_NAMES
from svmax_ops.runs.embed2d.measures import BINS, MEASURES, histogram, singular_values

RUN_FIGURES = ("embeddings.png", "embeddings.svg")
NAMES = {"vanilla": "vanilla", "svmax": "SVMax", "centred": "SVMax, centred"}
# Tol's muted scheme, whose nine colours the colour-blind tell apart, and black.
COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000"),
)
_MOST_POINTS = 1000  # drawn: more would hide each other
_INNER, _OUTER = 1.1, 2.4  # radii of the histogram's foot and of the panel's edge
_EVEN = 0.5  # what an even histogram adds to the square of its foot's radius
_ARC = 4  # points along the edge of a sector
_WHOLE_BAR = 2.6  # length of a bar for a singular value of 1


class Panel(NamedTuple):
    embeddings: Tensor
    """``[n, 2]`` of unit length."""
    labels: Tensor
    """int64 ``[n]``, 0 to 9."""


def draw_run(config: Embed2dConfig, panels: Mapping[int, Tensor], labels: Tensor, folder: Path) -> Sequence[str]:
    """The test embeddings of one run over its epochs; the names of the files."""
    row = [Panel(embeddings, labels) for embeddings in panels.values()]
    draw_grid({config.row: row}, list(map(title, panels)), CLASS_NAMES[config.dataset], folder, "embeddings")
    return RUN_FIGURES


@plots.styled
def draw_grid(
    rows: Mapping[str, Sequence[Panel | None]],
    titles: Sequence[str],
    class_names: Sequence[str],
    folder: Path,
    stem: str,
) -> None:
    """Panels side by side, all of them on the same scale: ``rows`` by name, a column for each of ``titles``.

    Written into ``folder`` as ``stem`` with .png and with .svg. A panel that is None is left empty.
    """
    width = 0.4 + 0.85 * len(titles)
    columns = max(n for n in (1, 2, 5, 10) if n == 1 or n * (0.25 + 0.055 * max(map(len, class_names))) < width)
    figure = plots.figure(width, 0.4 + 1.1 * len(rows) + 0.15 * CLASSES / columns)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.04, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (name, panels) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(NAMES[name].replace(" ", "\n"))
        for axes, panel in zip(line, panels, strict=True):
            _draw_panel(axes, panel)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    dots = [Line2D([], [], ls="", marker="o", ms=3.5, color=colour) for colour in COLOURS]
    figure.legend(dots, class_names, loc="outside lower center", ncols=columns, columnspacing=0.8, handletextpad=0.1)
    plots.save(figure, folder / f"{stem}.png", folder / f"{stem}.svg", few_colours=True)


def title(epoch: int) -> str:
    return f"epoch {epoch}" if epoch else "untrained"


def _draw_panel(axes: Axes, panel: Panel | None) -> None:
    """Points on the unit circle; outside, how many there are; below, both singular values.

    The histogram has 72 sectors, with the classes one upon the other. Its areas are in proportion to the numbers, on
    the same scale in every panel; what is further out than the panel's edge is cut off.
    """
    axes.set(xticks=[], yticks=[], xlim=(-_OUTER, _OUTER), ylim=(-_OUTER - 1.4, _OUTER), aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if panel is None:
        return
    axes.set_rasterization_zorder(2)  # thousands of points and sectors are no lines for an SVG
    axes.add_patch(Circle((0, 0), 1, fill=False, lw=0.4, color=plots.GREY, zorder=0.5))
    edge = Circle((0, 0), _OUTER, transform=axes.transData)
    for outline, colour in zip(_layers(panel), COLOURS, strict=True):
        axes.add_patch(Polygon(outline, facecolor=colour, lw=0, zorder=1)).set_clip_path(edge)
    chosen = np.random.default_rng(0).permutation(len(panel.labels))[:_MOST_POINTS]  # also the order: none on top
    points, colours = panel.embeddings.numpy()[chosen], np.array(COLOURS)[panel.labels.numpy()[chosen]]
    axes.scatter(points[:, 0], points[:, 1], s=1.6, c=colours, lw=0, zorder=1.5)
    draw_bars(axes, singular_values(panel.embeddings), -_OUTER - 0.45)


def _layers(panel: Panel) -> list[np.ndarray]:
    """For each class the outline ``[points, 2]`` of its part of the histogram: forth on its outer edge, then back."""
    of_class = [histogram(panel.embeddings[panel.labels == label]).numpy() for label in range(CLASSES)]
    share = np.stack(of_class).cumsum(0) / len(panel.labels)
    radius = np.sqrt(_INNER**2 + _EVEN * BINS * np.vstack([np.zeros(BINS), share])).repeat(_ARC, axis=1)
    turn = 2 * np.pi / BINS * (np.arange(BINS)[:, None] + np.linspace(0, 1, _ARC)).ravel()
    edges = radius[..., None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    return [np.concatenate([outer, inner[::-1]]) for inner, outer in itertools.pairwise(edges)]


def draw_bars(axes: Axes, values: Sequence[float], top: float) -> None:
    """A bar and a number for each singular value, from ``top`` downwards; in the units of a panel."""
    for index, (name, value) in enumerate(zip(("s_1", "s_2"), values, strict=True)):
        y = top - 0.65 * index
        axes.barh(y, _WHOLE_BAR * value, 0.38, -1.5, color=plots.GREY if index else "#333333", zorder=3)
        axes.text(-1.65, y, MEASURES[name].name, ha="right", va="center", fontsize=6)
        axes.text(-1.35 + _WHOLE_BAR * value, y, MEASURES[name].text(value), ha="left", va="center", fontsize=6)
