"""Heat maps of samples, as in the paper's figure 3."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from svmax_ops.runs import plots
from svmax_ops.runs.gan import ring
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.gan.measures import MEASURES
from svmax_ops.runs.gan.training import SAMPLES

RUN_FIGURES = ("heat_maps.png", "heat_maps.svg")
_SHOWN = 3.0  # on either side of the origin, on every axis: what leaves the plot is told in words
_BINS = 72


_TOLD = ("modes_wide", "modes", "radius_99")  # below a map
_SMALL = 6  # points: of the letters below the maps
_LETTERS = 20  # of that size, an inch
_CAPTION = (
    f"Every map shows −{_SHOWN:g} to {_SHOWN:g} on both axes. Modes within a distance: those, of {ring.MODES}, that"
    f" have at least {100 * ring.COVERED:g} % of the {SAMPLES:,} samples within it. 99 % radius: 99 % of the samples"
    " are nearer to the origin."
)


class Panel(NamedTuple):
    """A heat map and what is said below it."""

    samples: Tensor | None
    """``[n, 2]``; None: an empty place."""
    text: str


def panel(samples: Tensor | None, config: Mapping[str, Any]) -> Panel:
    """With the modes covered within 0.5 and within 0.2, and the 99 % radius."""
    if samples is None:
        return Panel(None, "")
    found = ring.coverage(samples, config["batch_size"])
    return Panel(samples, "\n".join(MEASURES[name].told(found[name]) for name in _TOLD))


def line_break(name: str) -> str:
    """A row's name, to stand beside its heat maps."""
    return name.replace("-svmax", "\nsvmax").replace(", ", "\n").replace("svmax", "SVMax")


def target(config: Mapping[str, Any], seed: int) -> Panel:
    weights = ring.mode_weights(config["mode_weights"], seed)
    return Panel(ring.draw(SAMPLES, weights, torch.Generator().manual_seed(seed)), "target")


@plots.styled
def draw_grid(rows: Mapping[str, Sequence[Panel]], titles: Sequence[str], folder: Path, stem: str) -> None:
    """Heat maps side by side, all of them on the same axes: ``rows`` by name, a column for each of ``titles``.

    Written into ``folder`` as ``stem`` with .png and with .svg.
    """
    width = max(2.5, 0.5 + 1.0 * len(titles))
    caption = textwrap.wrap(_CAPTION, int(_LETTERS * width))
    figure = plots.figure(width, 0.35 + 1.36 * len(rows) + 0.1 * len(caption))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (name, panels) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axes, shown in zip(line, panels, strict=True):
            _heat_map(axes, shown)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    figure.supxlabel("\n".join(caption), fontsize=_SMALL)
    plots.save(figure, folder / f"{stem}.png", folder / f"{stem}.svg", few_colours=True)


def _heat_map(axes: Axes, shown: Panel) -> None:
    axes.set(xticks=[], yticks=[], xlim=(-_SHOWN, _SHOWN), ylim=(-_SHOWN, _SHOWN), aspect="equal")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set(visible=True, linewidth=0.4, color=plots.GREY)
    if shown.samples is None:
        axes.set_visible(False)
        return
    points = shown.samples.double().numpy()
    points = points[np.isfinite(points).all(1)]
    counts, *_ = np.histogram2d(points[:, 0], points[:, 1], _BINS, [[-_SHOWN, _SHOWN]] * 2)
    # The root shows a mode with few samples beside one with nearly all; 1.4 % of them in a cell is the full colour.
    strength = np.sqrt(counts / max(len(points), 1))
    axes.imshow(
        strength.T, "viridis", origin="lower", interpolation="none", extent=[-_SHOWN, _SHOWN] * 2, vmin=0, vmax=0.12
    )
    axes.set_xlabel(shown.text, fontsize=_SMALL, labelpad=2)


def draw_run(config: GanConfig, samples: Mapping[int, Tensor], folder: Path) -> Sequence[str]:
    """The heat maps of one run over its steps; the names of the files."""
    settings = {"batch_size": config.batch_size, "mode_weights": config.mode_weights}
    panels = [*(panel(found, settings) for found in samples.values()), target(settings, config.seed)]
    titles = [*(f"step {step:,}" for step in samples), ""]
    draw_grid({line_break(config.row): panels}, titles, folder, "heat_maps")
    return RUN_FIGURES
