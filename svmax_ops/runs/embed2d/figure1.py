"""The paper's figure 1: what singular values say of points on the unit circle, and eigenvalues of a Gaussian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from svmax_ops.runs import plots
from svmax_ops.runs.embed2d.measures import singular_values

EXAMPLES = ("polarised", "even")
"""(a) and (b)."""
FIGURE1 = ("figure1.png", "figure1.svg")
_SEED = 0
_POINTS = 200
_POLARISED = 0.2  # radians: the standard deviation of the angle around either end of the first axis
_COVARIANCE = np.array([[1.0, 0.7], [0.7, 0.8]])  # of the Gaussian
_COLOURS = (plots.GREEN, plots.VERMILLION)  # of the first and the second axis, as in the paper


def example(name: str) -> np.ndarray:
    """Points ``[200, 2]`` on the unit circle, float64: one of EXAMPLES."""
    rng = np.random.default_rng(_SEED)
    if name == "polarised":
        angles = np.pi * rng.integers(0, 2, _POINTS) + rng.normal(0, _POLARISED, _POINTS)
    else:
        angles = rng.uniform(0, 2 * np.pi, _POINTS)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


@plots.styled
def draw_figure1(folder: Path) -> None:
    """(a) polarised points, (b) points in all directions, (c) the principal axes of a Gaussian.

    Below (a) and (b) the singular values, divided by sqrt(n); below (c) the eigenvalues of the covariance.
    """
    figure = plots.figure(5.6, 2.8)
    grid = figure.subplots(2, 3, height_ratios=(4, 1))
    for axes, name in zip(grid.T, EXAMPLES, strict=False):
        _on_circle(*axes, example(name))
    _gaussian(*grid[:, 2], np.random.default_rng(_SEED).multivariate_normal([0, 0], _COVARIANCE, _POINTS))
    for axes, title in zip(grid[0], ("(a) polarised", "(b) spread evenly", "(c) PCA of a Gaussian"), strict=True):
        axes.set_title(title)
    plots.save(figure, *(folder / name for name in FIGURE1), few_colours=True)


def _on_circle(axes: Axes, below: Axes, points: np.ndarray) -> None:
    axes.add_patch(Circle((0, 0), 1, fill=False, lw=0.6, color=plots.GREY))
    axes.scatter(points[:, 0], points[:, 1], s=9, color=plots.BLUE, alpha=0.5, lw=0, zorder=3)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    _bars(below, singular_values(torch.from_numpy(points)), "s", 1)


def _gaussian(axes: Axes, below: Axes, points: np.ndarray) -> None:
    eigenvalues, vectors = np.linalg.eigh(np.cov(points.T))
    eigenvalues, vectors = eigenvalues[::-1], vectors.T[::-1]  # the largest first
    axes.scatter(points[:, 0], points[:, 1], s=5, color=plots.GREY, alpha=0.5, lw=0)
    for value, vector, colour in zip(eigenvalues, vectors, _COLOURS, strict=True):
        end = points.mean(0) + 2 * np.sqrt(value) * vector * np.sign(vector.sum())  # two standard deviations long
        style = {"arrowstyle": "->", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, points.mean(0), arrowprops=style)
    axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    _bars(below, eigenvalues, "λ", 2)


def _bars(axes: Axes, values: np.ndarray | tuple[float, float], letter: str, most: float) -> None:
    axes.barh([1, 0], values, 0.6, color=_COLOURS)
    for y, value in zip((1, 0), values, strict=True):
        axes.text(value + 0.02 * most, y, f"{value:.2f}", va="center", fontsize=7)
    axes.set(xlim=(0, 1.2 * most), ylim=(-0.6, 1.6), xticks=[0, most / 2, most], yticks=[1, 0])
    axes.set_yticklabels([f"{letter}$_1$", f"{letter}$_2$"])
    axes.grid(visible=False)
