"""What is in the figures, and that it can be seen: with one logged line, all values alike, and chance above all."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from svmax_ops.runs import plots
from svmax_ops.runs.embed2d.curves import draw_measures
from svmax_ops.runs.embed2d.measures import MEASURES
from svmax_ops.runs.folders import read_runs, run_folders
from svmax_ops.runs.gan import figures as gan
from svmax_ops.runs.retrieval.figures import apart, draw_curves, draw_singular_values
from svmax_ops.runs.retrieval.report.figure import draw
from svmax_ops.runs.retrieval.report.groups import collect, group
from svmax_ops.runs.retrieval.report.study_figure import draw_over
from tests.runs.test_report import change, finished_run

styled_curves, styled_singular_values = map(plots.styled, (draw_curves, draw_singular_values))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, laid out, and not written."""
    found: list[Figure] = []

    def keep(figure: Figure, *paths: Path, few_colours: bool = False) -> None:
        figure.draw_without_rendering()
        found.append(figure)

    monkeypatch.setattr(plots, "save", keep)
    return found


def run_lines(recalls: list[float], losses: list[float], **values: Any) -> list[dict[str, Any]]:
    """Metrics of a run: R@1 of chance, pixels, the untrained and the trained network; the losses of its steps."""
    measures = {"spread": 0.5, "singular_values": [2.0, 1.0, 0.5], **values}
    chance, pixels, untrained, trained = recalls
    steps = range(1, len(losses) + 1)
    return [
        {"step": 0, "split": "test", "of": "chance", "recall_at_1": chance},
        {"step": 0, "split": "test", "of": "pixels", "recall_at_1": pixels, **measures},
        {"step": 0, "split": "test", "of": "network", "recall_at_1": untrained, **measures},
        *({"step": s, "split": "train", "ranking_loss": x, **measures} for s, x in zip(steps, losses, strict=True)),
        {"step": len(losses), "split": "test", "of": "network", "recall_at_1": trained, **measures},
    ]


def is_whole(figure: Figure) -> bool:
    """Whether the figure cuts nothing off that is drawn."""
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return bool(min(drawn.x0, drawn.y0) > -0.02 and drawn.x1 < width + 0.02 and drawn.y1 < height + 0.02)


@pytest.mark.parametrize(
    "recalls",
    [(0.9, 0.1, 0.05, 0.1), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (0.98, 0.99, 1.0, 0.01)],
    ids=["chance is above all", "all are perfect", "all are zero", "the baselines are at the top"],
)
def test_the_curves_have_their_room_whatever_the_level_of_chance(drawn, tmp_path, recalls):
    styled_curves(run_lines(list(recalls), [0.5, 0.4]), tmp_path / "curves.png")
    (figure,) = drawn
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.2 * figure.bbox.width
        assert axes.get_window_extent().height > 0.6 * figure.bbox.height
    top = figure.axes[2].get_ylim()[1]
    assert 100 * max(recalls) <= top <= 100
    assert all(0 <= text.xy[1] <= top for text in figure.axes[2].texts)
    assert {text.get_text() for text in figure.axes[2].texts} == {"chance", "pixels", "untrained"}
    assert is_whole(figure)


def test_names_that_would_cover_each_other_are_moved_apart():
    assert apart([1, 50, 51, 52], 7, 100) == [1, 50, 57, 64]
    assert apart([1, 97, 98, 100], 7, 100) == [1, 86, 93, 100]
    assert apart([0, 0, 0], 7, 100) == [0, 7, 14]


def test_one_logged_line_is_a_point_in_the_curves(drawn, tmp_path):
    styled_curves(run_lines([0.01, 0.5, 0.2, 0.6], [0.7]), tmp_path / "curves.png")
    loss, spread, _ = drawn[0].axes
    for axes, expected in ((loss, 0.7), (spread, 0.5)):
        line = axes.get_lines()[0]
        assert line.get_marker() == "o"
        assert line.get_xydata().tolist() == [[1, expected]]
        assert axes.get_xlim()[0] <= 1 <= axes.get_xlim()[1]
    assert all(float(tick).is_integer() for tick in loss.get_xticks())
    styled_curves(run_lines([0.01, 0.5, 0.2, 0.6], [0.7, 0.6]), tmp_path / "curves.png")
    assert drawn[1].axes[0].get_lines()[0].get_marker() == ""


def test_what_is_not_finite_is_said_in_the_figures(drawn, tmp_path):
    lines = run_lines([0.01, 0.5, 0.2, 0.0], [0.7, 0.6], spread=math.nan, singular_values=[math.nan] * 3)
    styled_curves(lines, tmp_path / "curves.png")
    styled_singular_values(lines, tmp_path / "singular_values.png")
    for axes in (drawn[0].axes[1], drawn[1].axes[0]):
        assert "what is not finite is not drawn" in {text.get_text() for text in axes.texts}


def test_collapsed_embeddings_have_a_line_of_singular_values(drawn, tmp_path):
    lines = run_lines([0.01, 0.5, 0.2, 0.0], [0.7, 0.6], singular_values=[12.0, 0.0, 0.0])
    styled_singular_values(lines, tmp_path / "collapsed.png")
    (axes,) = drawn[0].axes
    line = axes.get_lines()[0].get_ydata()
    assert line[0] == 1
    assert 0 < line[1] < axes.get_ylim()[0]  # below, so that the line leaves the plot between the two
    styled_singular_values(run_lines([0, 0, 0, 0], [0.7], singular_values=[0.0, 0.0]), tmp_path / "zero.png")


def runs_in(folder: Path) -> Any:
    return group(collect(read_runs(run_folders([folder])))[0])


def level_of(figure: Figure, name: str) -> float:
    """The height of the line of a baseline, by the name beside it."""
    (text,) = (text for text in figure.axes[0].texts if text.get_text() == name)
    return text.xy[1]


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.01)], ids=str)
def test_the_untrained_line_of_a_report_is_the_mean_over_the_seeds(drawn, tmp_path, rates):
    for seed in range(2):
        for lr in rates:
            finished_run(tmp_path / f"{seed}-{lr}", 0.9, seed=seed, lr=lr)
            change(tmp_path / f"{seed}-{lr}", "network", 0, recall_at_1=0.2 + 0.2 * seed)
    if len(rates) == 1:
        draw(runs_in(tmp_path), tmp_path / "picture.png")
    else:
        draw_over(runs_in(tmp_path), ("lr",), tmp_path / "picture.png")
    assert level_of(drawn[0], "untrained") == pytest.approx(30)
    assert is_whole(drawn[0])


def test_seeds_are_averaged_where_all_were_evaluated(drawn, tmp_path):
    """One was evaluated after 300 steps too."""
    for seed in range(2):
        finished_run(tmp_path / str(seed), 0.6 + 0.1 * seed, seed=seed)
    path = tmp_path / "1" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    between = lines[2].replace('"step": 0', '"step": 300').replace('"recall_at_1": 0.2', '"recall_at_1": 0.1')
    path.write_text("".join([*lines[:3], between, *lines[3:]]))
    draw(runs_in(tmp_path), tmp_path / "picture.png")
    line = drawn[0].axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), [[0, 20], [600, 65]])


def test_every_regularizer_is_in_the_legend_of_a_study(drawn, tmp_path):
    """The first column, of the contrastive loss, lacks one of them; the figure is narrow."""
    kinds = (("contrastive", "none"), ("contrastive", "svmax"), ("triplet", "none"), ("triplet", "spread-out"))
    for loss, regularizer in kinds:
        for lr in (0.1, 0.01):
            finished_run(tmp_path / f"{loss}-{regularizer}-{lr}", 0.5, loss=loss, regularizer=regularizer, lr=lr)
    draw_over(runs_in(tmp_path), ("lr",), tmp_path / "picture.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "without SVMax", "with SVMax", "with spread-out"
    ]  # fmt: skip
    assert is_whole(drawn[0])


@pytest.mark.parametrize("epochs", [(0, 1), (0, 1, 2, 4, 8, 16, 32, 64, 128, 200)], ids=["one epoch", "200 epochs"])
def test_every_tick_of_the_measures_has_its_epoch_and_room(drawn, tmp_path, epochs):
    course = {epoch: {name: [0.5] for name in MEASURES} for epoch in epochs}
    draw_measures({"digits": {"vanilla": course, "centred": course}}, tmp_path)
    (figure,) = drawn
    for axes, measure in zip(figure.axes, ("angular_entropy", "largest_gap", "recall_at_1", "spread"), strict=True):
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == list(map(str, epochs))
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
        assert axes.get_title().startswith(MEASURES[measure].heading)
    assert is_whole(figure)


@pytest.mark.parametrize("columns", [1, 6])
def test_a_heat_map_says_what_its_numbers_are(drawn, tmp_path, columns):
    """One point for each of four modes, and of each 0.4 away in a fifth."""
    centres = gan.ring.centres().float()
    samples = torch.cat([centres[:4].repeat(20, 1), centres[4:5].repeat(20, 1) + torch.tensor([0.4, 0])])
    shown = gan.panel(samples, {"batch_size": 16})
    assert shown.text == "modes within 0.5: 5\nmodes within 0.2: 4\n99 % radius: 2.0"
    flown = gan.panel(torch.full((100, 2), 1e14), {"batch_size": 16})
    assert flown.text.endswith("99 % radius: 1.4e+14")
    assert gan.panel(torch.full((100, 2), math.nan), {"batch_size": 16}).text.endswith("99 % radius: not finite")
    gan.draw_grid({"SVMax": [shown] * columns}, ["step 1"] * columns, tmp_path, "heat_maps")
    (figure,) = drawn
    caption = " ".join(figure.get_supxlabel().split())
    assert "Every map shows −3 to 3 on both axes." in caption
    assert "of 8, that have at least 1 % of the 10,000 samples within it" in caption
    assert is_whole(figure)
