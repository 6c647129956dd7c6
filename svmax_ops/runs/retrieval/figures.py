"""The pictures of one run: how it went, what it finds, and the singular values it ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from svmax_ops.runs import plots
from svmax_ops.runs.harness import read_metrics
from svmax_ops.runs.retrieval.data.pictures import Pictures
from svmax_ops.runs.retrieval.evaluation import nearest_neighbours
from svmax_ops.runs.retrieval.measures import TRAINING, recall

RUN_FIGURES = ("curves.png", "neighbours.png", "singular_values.png")
RECALL_LABEL = f"{recall(1).name} on unseen classes, {recall(1).unit}"
_QUERIES = 8
_NEIGHBOURS = 8
_LOWEST = 1e-4  # share that is shown of the singular values
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # a mark stays readable on ink


@plots.styled
def draw_run(folder: Path, embeddings: Tensor, test: Pictures) -> None:
    """Write the figures of the run in ``folder`` from its metrics and its final test embeddings."""
    lines = read_metrics(folder)
    draw_curves(lines, folder / RUN_FIGURES[0])
    draw_neighbours(embeddings, test, folder / RUN_FIGURES[1])
    draw_singular_values(lines, folder / RUN_FIGURES[2])


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Loss, spread and R@1 over the iterations."""
    train = [line for line in lines if line["split"] == "train"]
    tests = evaluations(lines)
    steps = [line["step"] for line in train]
    figure = plots.figure(7.2, 2.4)
    loss, spread, found = (figure.add_subplot(1, 3, i + 1) for i in range(3))
    dot = "o" if len(train) == 1 else ""  # no line joins it to another
    loss.plot(steps, [line["ranking_loss"] for line in train], color=plots.BLUE, marker=dot, ms=3, clip_on=False)
    loss.set(title=f"{TRAINING['ranking_loss'].heading}, training batches")
    loss.set_ylim(0, 1.1 * loss.get_ylim()[1])
    grey = {"color": plots.GREY, "lw": 1, "marker": dot, "ms": 3}
    spread.plot(steps, [line["spread"] for line in train], label="training batches", clip_on=False, **grey)
    blue = {"color": plots.BLUE, "ms": 3, "clip_on": False}
    test_steps = [line["step"] for line in tests]
    spread.plot(test_steps, [line["spread"] for line in tests], "o-", label="test batches", **blue)
    spread.set(title="spread (0 collapsed, 1 even)", ylim=(0, 1))
    spread.legend(loc="best")
    found.plot(test_steps, [100 * line["recall_at_1"] for line in tests], "o-", **blue)
    levels = baselines(lines)
    limit_recall(found, max(*levels.values(), *(line["recall_at_1"] for line in tests)))
    reference_lines(found, levels)
    found.set_title(RECALL_LABEL)
    _tell_what_is_missing(spread, [line["spread"] for line in (*train, *tests)])
    for axes in (loss, spread, found):
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_xlim(0, lines[-1]["step"])
    plots.save(figure, path)


def _tell_what_is_missing(axes: Axes, values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        at = {"transform": axes.transAxes, "ha": "center", "va": "center", "fontsize": 7}
        axes.text(0.5, 0.5, "what is not finite is not drawn", color="#555555", **at)


def reference_lines(axes: Axes, levels: Mapping[str, float], named: bool = True) -> None:
    """Shares of one that R@1 has to be compared with; named beside the axes, whose limits are set already."""
    styles = {"pixels": "--", "untrained": "-.", "chance": ":"}
    percent = dict(sorted(((name, 100 * level) for name, level in levels.items()), key=lambda item: item[1]))
    for name, level in percent.items():
        axes.axhline(level, color=plots.GREY, ls=styles[name], lw=0.9, zorder=1)
    if not named:
        return
    top = axes.get_ylim()[1]
    for name, height in zip(percent, apart(list(percent.values()), 0.07 * top, top), strict=True):
        axes.annotate(
            name, (1, height), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            ha="left", va="center", fontsize=7, color="#555555",
        )  # fmt: skip


def apart(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Ascending ``heights``, each moved up to be ``gap`` above the one before; from the top down where it is full."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    return [min(height, top - gap * (len(moved) - 1 - i)) for i, height in enumerate(moved)]


def limit_recall(axes: Axes, highest: float) -> None:
    """Percent from 0 to a round number above ``highest``, the largest share of one that is shown."""
    axes.set_ylim(0, min(100, 10 * math.ceil(10 * highest + 0.3)))


def draw_neighbours(embeddings: Tensor, test: Pictures, path: Path) -> None:
    """Queries of evenly spaced classes, each with its nearest others, right and wrong marked."""
    n = len(test.labels)
    queries = torch.linspace(0, n - 1, 2 * _QUERIES + 1)[1::2].long()
    found = nearest_neighbours(embeddings, _NEIGHBOURS, queries)
    columns = found.shape[1] + 1
    figure = plots.figure(0.62 * columns, 0.62 * _QUERIES + 0.1)
    axes = figure.add_subplot()  # one for all pictures: 72 of them take seconds to lay out
    for row, query in enumerate(queries):
        _show(axes, test, query, row, 0, "black", "")
        right = test.labels[found[row]] == test.labels[query]
        for column, (neighbour, is_right) in enumerate(zip(found[row], right.tolist(), strict=True)):
            colour, mark = (plots.BLUE, "✓") if is_right else (plots.VERMILLION, "✗")
            _show(axes, test, neighbour, row, column + 1, colour, mark)
    axes.set(xlim=(-0.02, columns - 0.08), ylim=(_QUERIES - 0.08, -0.02), aspect="equal", yticks=[])
    axes.xaxis.tick_top()
    axes.set_xticks([column + 0.45 for column in range(columns)], ["query", *map(str, range(1, columns))])
    axes.tick_params(length=0, pad=1)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    plots.save(figure, path)


def _show(axes: Axes, test: Pictures, index: Tensor, row: int, column: int, colour: str, mark: str) -> None:
    left, right, top, bottom = column, column + 0.9, row, row + 0.9
    axes.imshow(test.shown(int(index)), cmap="grey", vmin=0, vmax=255, extent=(left, right, bottom, top))
    axes.add_patch(Rectangle((left, top), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=1.4))
    axes.text(right - 0.05, top + 0.05, mark, color=colour, ha="right", va="top", fontsize=8, bbox=_WHITE)


def draw_singular_values(lines: list[dict[str, Any]], path: Path) -> None:
    """Of test batches, before and after training, beside those of evenly spread embeddings."""
    tests = evaluations(lines)
    figure = plots.figure(3.4, 2.5)
    axes = figure.add_subplot()
    singular_value_curve(axes, tests[0]["singular_values"], color=plots.GREY, ls="--", label="untrained")
    singular_value_curve(axes, tests[-1]["singular_values"], color=plots.BLUE, label=f"after {tests[-1]['step']} steps")
    finish_singular_values(axes)
    _tell_what_is_missing(axes, [*tests[0]["singular_values"], *tests[-1]["singular_values"]])
    axes.set(title="singular values of test batches", ylabel="share of the largest possible")
    axes.legend(loc="best")
    plots.save(figure, path)


def singular_value_curve(axes: Axes, values: list[float], **style: Any) -> None:
    """Singular values as shares of sqrt(b), the one of collapsed embeddings: their squares add up to b."""
    root_of_b = math.sqrt(sum(value**2 for value in values)) or 1  # all are zero where all rows are
    # A zero as one below the axis: the line leaves the plot between two indices, not along its edge.
    shares = [value / root_of_b if value != 0 else _LOWEST / 10 for value in values]
    axes.plot(range(1, len(values) + 1), shares, **style)


def finish_singular_values(axes: Axes) -> None:
    """Logarithmic axes, and the level at which all would be equal."""
    d = max(len(line.get_xdata()) for line in axes.get_lines())
    level = 1 / math.sqrt(d)
    axes.axhline(level, color=plots.GREY, ls=":", lw=0.9, zorder=1)
    axes.annotate(
        "all equal", (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
        ha="right", va="bottom", fontsize=6.5, color="#555555",
    )  # fmt: skip
    axes.set(yscale="log", xlabel="index", xlim=(1, d), ylim=(_LOWEST, 1.3))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def evaluations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the network, in the order of training."""
    return [line for line in lines if line.get("of") == "network"]


def baselines(lines: list[dict[str, Any]]) -> dict[str, float]:
    """R@1 of "untrained", "pixels" and "chance"."""
    found = {line["of"]: line["recall_at_1"] for line in lines if line.get("of") in ("pixels", "chance")}
    return {**found, "untrained": evaluations(lines)[0]["recall_at_1"]}
