"""Embeddings on the unit circle: the pieces against independent computations, and the whole command on a few steps."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional as F

from svmax_ops.runs.embed2d import data, figures
from svmax_ops.runs.embed2d.config import ROWS, Embed2dConfig, panel_epochs
from svmax_ops.runs.embed2d.data import load
from svmax_ops.runs.embed2d.figure1 import draw_figure1
from svmax_ops.runs.embed2d.measures import MEASURES, measure, on_circle, singular_values
from svmax_ops.runs.embed2d.network import tiny_network
from svmax_ops.runs.embed2d.training import Embed2dTraining
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.folders import read_run
from svmax_ops.runs.harness import EVENTS, is_finished, read_metrics
from tests.runs.states import equal, whole_and_cut
from tests.runs.test_idx import write_mnist

_FLAGS = "--images 64 --epochs 3 --log-every 1 --checkpoint-every 2"  # two steps an epoch
SMALL = _FLAGS.split()
SEVERAL = ["embed2d", "--rows", "vanilla,centred", "--seeds", "0,3", *SMALL, "--workers", "2"]
RUN_FILES = {"config.json", "metrics.jsonl", "checkpoint.pt", EVENTS, *figures.RUN_FIGURES}


def at(*degrees: float) -> Tensor:
    """Unit vectors at these angles."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def training(**values: Any) -> Embed2dTraining:
    config = Embed2dConfig(**{"rows": "vanilla", "images": 64, "epochs": 3, **values})
    return Embed2dTraining(config, *load(config))


def states(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {name: state[name] for name in ("step", "network", "optimizer", "batches", "panels", "test_labels")}


# Measures


@pytest.mark.parametrize(
    ("embeddings", "entropy", "gap", "length"),
    [
        (at(40, 40, 40), 0, 360, 1),
        (at(2, 182), math.log(2) / math.log(72), 180, 0),
        (at(1, 91, 181, 271), math.log(4) / math.log(72), 90, 0),
        (at(350, 10), math.log(2) / math.log(72), 340, math.cos(math.radians(10))),  # over angle 0
        (at(*np.arange(2.5, 360, 5)), 1, 5, 0),
        (at(1, 2, 3, 91), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(72), 270, None),
    ],
)
def test_measures_on_the_circle_of_known_angles(embeddings, entropy, gap, length):
    found = on_circle(embeddings)
    assert found["angular_entropy"] == pytest.approx(entropy, abs=1e-12)
    assert found["largest_gap"] == pytest.approx(gap)
    if length is not None:
        assert found["mean_length"] == pytest.approx(length, abs=1e-12)


def test_measures_match_an_independent_computation():
    rng = np.random.default_rng(0)
    angles = rng.normal(1, 1.2, 300)
    labels = rng.integers(0, 4, 300)
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = measure(torch.from_numpy(points).float(), torch.from_numpy(labels))

    values = np.linalg.svd(points, compute_uv=False)
    assert [found["s_1"], found["s_2"]] == pytest.approx(values / math.sqrt(300), rel=1e-6)
    lower, upper = math.sqrt(300) / 2, math.sqrt(2 * 300) / 2
    assert found["spread"] == pytest.approx((values.mean() - lower) / (upper - lower), rel=1e-6)
    centred = np.linalg.svd(points - points.mean(0), compute_uv=False)
    assert found["centred_spread"] == pytest.approx(centred.mean() / upper, rel=1e-6)
    degrees = np.sort(np.degrees(angles) % 360)
    counts, _ = np.histogram(degrees, 72, (0, 360))
    assert found["angular_entropy"] == pytest.approx(scipy.stats.entropy(counts, base=72))
    assert found["largest_gap"] == pytest.approx(np.diff(degrees, append=degrees[0] + 360).max(), rel=1e-4)
    assert found["mean_length"] == pytest.approx(abs(np.exp(1j * angles).mean()), rel=1e-6)
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(300, np.inf))
    assert found["recall_at_1"] == pytest.approx((labels[distances.argmin(1)] == labels).mean())
    assert found["classes"] == 4


def test_two_clumps_a_right_angle_apart_are_spread_unless_centred():
    clumps = at(*[10] * 50, *[100] * 50)
    found = measure(clumps, torch.arange(100) % 10)
    assert found["spread"] == pytest.approx(1)
    assert found["centred_spread"] == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found["largest_gap"] == pytest.approx(270)
    assert singular_values(clumps) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))


def test_a_tie_counts_against_the_query():
    assert measure(at(*[40] * 20), torch.arange(20) % 2)["recall_at_1"] == 0
    assert measure(at(*[40] * 10, *[80] * 10), torch.arange(20) // 10)["recall_at_1"] == 1


# Network and training


@pytest.mark.parametrize("side", [8, 28])
def test_the_network_is_a_convolution_and_a_hidden_layer(side):
    network = tiny_network(side, side)
    pooled = (side - 2) // 2
    assert sorted(tuple(p.shape) for p in network.parameters() if p.dim() > 1) == sorted(
        [(32, 1, 3, 3), (128, 32 * pooled**2), (2, 128)]
    )
    pictures = torch.rand(5, 1, side, side)
    convolution, hidden, output = (layer for layer in network if hasattr(layer, "weight"))
    features = F.max_pool2d(F.relu(F.conv2d(pictures, convolution.weight, convolution.bias)), 2).flatten(1)
    expected = F.linear(F.relu(hidden(features)), output.weight, output.bias)
    torch.testing.assert_close(network(pictures), expected)


@pytest.mark.parametrize("row", ROWS)
def test_a_step_is_the_contrastive_loss_and_the_row_s_svmax(row):
    """Pairs, distances, singular values and the step itself written out."""
    ours = training(rows=row, svmax_weight=0.7)
    twin = tiny_network(8, 8)
    twin.load_state_dict(ours.network.state_dict())
    indices = next(training(rows=row).batches)
    ours.step()
    assert (ours.train.labels[indices].view(8, 4).diff(dim=1) == 0).all()
    activations = twin(ours.train.batch(indices)).double()
    e = activations / activations.norm(dim=1, keepdim=True)
    pairs = []
    for first in range(0, 32, 4):
        after = (first + 4) % 32
        pairs += [(e[first + i] - e[first + 2 + i]).norm() for i in range(2)]
        pairs += [(1 - (e[first + i] - e[after + 2 + i]).norm()).relu() for i in range(2)]
    loss = torch.stack(pairs).mean()
    if row != "vanilla":
        lower, upper = (math.sqrt(32) / 2, math.sqrt(64) / 2) if row == "svmax" else (0, math.sqrt(64) / 2)
        matrix = e if row == "svmax" else e - e.mean(0)
        loss = loss + 0.7 * torch.exp((upper - torch.linalg.svdvals(matrix).sum() / 2) / (upper - lower))
    loss.backward()
    line = ours.train_line()
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["loss"] == pytest.approx(line["ranking_loss"] + 0.7 * line["regularizer"], rel=1e-6)
    for after, before in zip(ours.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close((before - after) / 0.01, before.grad, rtol=1e-3, atol=5e-6)


def test_rows_of_a_seed_start_alike_and_see_the_same_batches():
    one, other = (training(rows=row, seeds="7") for row in ("vanilla", "centred"))
    assert equal(one.network.state_dict(), other.network.state_dict())
    one.step()
    other.step()
    assert next(one.batches).equal(next(other.batches))
    different = training(seeds="8")
    assert not equal(training(seeds="7").network.state_dict(), different.network.state_dict())
    assert not next(training(seeds="7").batches).equal(next(different.batches))


def test_an_epoch_is_as_many_batches_as_the_pictures_fill():
    assert panel_epochs(64) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert panel_epochs(200) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 200]
    assert panel_epochs(1) == [0, 1]
    found = training(images=None, epochs=5)
    assert (found.steps, sorted(found.evaluations)) == (155, [0, 31, 62, 124, 155])  # 31 batches of 32 in 1,000
    assert sorted(training(images=33, epochs=2).evaluations) == [0, 1, 2]


def test_the_defaults_are_those_of_the_figure():
    c = Embed2dConfig()
    assert (c.rows, c.batch_size, c.epochs, c.lr, c.momentum, c.svmax_weight) == (
        *("vanilla,svmax,centred", 32, 64, 0.01, 0),
        1,
    )


# Figures


def test_the_histogram_s_areas_are_the_numbers_of_each_class():
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(500, 2, generator=generator) + torch.tensor([1.0, 0]))
    labels = torch.randint(10, (500,), generator=generator)
    areas = [polygon_area(outline) for outline in figures._layers(figures.Panel(embeddings, labels))]
    whole = 0.5 * math.pi  # EVEN * pi
    for area, count in zip(areas, torch.bincount(labels, minlength=10).tolist(), strict=True):
        assert area == pytest.approx(whole * count / 500, rel=0.01)


def polygon_area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_figure1_shows_the_singular_values_of_its_points(tmp_path, monkeypatch):
    """A polarised row has a small second one, an even row two equal ones; the same figure each time."""
    seen = []
    monkeypatch.setattr(
        "svmax_ops.runs.embed2d.figure1.singular_values", lambda points: seen.append(points) or singular_values(points)
    )
    draw_figure1(tmp_path)
    first = (tmp_path / "figure1.svg").read_bytes()
    draw_figure1(tmp_path)
    assert (tmp_path / "figure1.svg").read_bytes() == first
    (polarised, small), (large, other) = (np.linalg.svd(points)[1] / math.sqrt(len(points)) for points in seen[:2])
    assert small < 0.25 * polarised
    assert other > 0.9 * large


# The command


def test_one_row_and_seed_are_a_run_folder(svmax, tmp_path):
    outcome = svmax("embed2d", "--rows", "centred", "--seeds", 4, *SMALL, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    lines = read_metrics(tmp_path / "run")
    tests = [line for line in lines if line["split"] == "test"]
    assert [(line["step"], line["epoch"]) for line in tests] == [(0, 0), (2, 1), (4, 2), (6, 3)]
    assert {"s_1", "s_2", "spread", "centred_spread", "angular_entropy", "largest_gap"} <= set(tests[0])
    assert {"mean_length", "recall_at_1", "classes"} <= set(tests[0])
    trains = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in trains] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "spread", "lr", "ranking_loss", "regularizer"} <= set(trains[0])
    assert all((line["row"], line["seed"]) == ("centred", 4) for line in lines)
    last = {name: shown.told(tests[-1][name]) for name, shown in MEASURES.items()}
    assert f"step 6  epoch: 3  {'  '.join(last.values())}\n" in outcome.out
    assert last["largest_gap"] == f"largest empty arc: {tests[-1]['largest_gap']:.0f} °"
    assert last["recall_at_1"] == f"R@1: {100 * tests[-1]['recall_at_1']:.1f} %"
    assert f"loss {trains[-1]['loss']:.3g}  ranking loss {trains[-1]['ranking_loss']:.3g}  spread " in outcome.out
    kept = states(tmp_path / "run")
    assert list(kept["panels"]) == [0, 1, 2, 3]
    for line in tests:
        found = measure(kept["panels"][line["epoch"]], kept["test_labels"])
        assert all(line[name] == value for name, value in found.items())


@pytest.mark.processes
@pytest.mark.parametrize("flags", [(), ("--momentum", "0.9", "--rows", "vanilla")])
def test_a_stopped_run_goes_on_bit_for_bit(svmax, tmp_path, monkeypatch, flags):
    command = ["embed2d", "--rows", "svmax", *SMALL, *flags]
    whole, cut = whole_and_cut(svmax, monkeypatch, tmp_path, Embed2dTraining, command)
    assert read_metrics(cut) == read_metrics(whole)
    assert equal(states(cut), states(whole))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """Two rows with two seeds, two at a time."""
    from svmax_ops.cli import main

    out = tmp_path_factory.mktemp("several")
    assert main([*SEVERAL, "--out", str(out)]) == 0
    return out


@pytest.mark.further  # by the same code as several runs of a GAN, see test_gan_command.py
@pytest.mark.processes
def test_several_rows_and_seeds_are_the_runs_that_each_would_be(svmax, several, tmp_path):
    members = ["vanilla-seed0", "centred-seed0", "vanilla-seed3", "centred-seed3"]
    assert {path.name for path in several.iterdir() if path.is_dir()} == set(members)
    for name in members:
        assert {
            path.name for path in (several / name).iterdir()
        } == RUN_FILES  # with the events, which ``several`` lacks
    assert read_metrics(several) == [line for name in members for line in read_metrics(several / name)]
    assert svmax("embed2d", "--rows", "centred", "--seeds", "3", *SMALL, "--out", tmp_path / "one").code == 0
    assert read_metrics(tmp_path / "one") == read_metrics(several / "centred-seed3")
    assert equal(states(tmp_path / "one"), states(several / "centred-seed3"))


def test_a_run_of_several_that_had_events_of_its_own_goes_on(svmax, several, tmp_path):
    """As those had that were made before; the file is left alone."""
    out = tmp_path / "before"
    shutil.copytree(several, out)
    (out / EVENTS).write_bytes(b"events of all")
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "bytes": {**checkpoint["bytes"], EVENTS: 13}}, out / "checkpoint.pt")
    outcome = svmax(*SEVERAL, "--out", out, "--resume")
    assert (outcome.code, "all 4 runs are done" in outcome.out) == (0, True)
    (out / "checkpoint.pt").unlink()
    assert svmax(*SEVERAL, "--out", out, "--resume").code == 0
    assert read_metrics(out) == read_metrics(several)
    assert is_finished(out)
    assert (out / EVENTS).read_bytes() == b"events of all"


def test_the_report_has_every_seed_and_their_means(several):
    stems = ["figure1", "measures", "embeddings-seed0", "embeddings-seed3", "embeddings-all-seeds"]
    drawn = {f"{stem}{ending}" for stem in stems for ending in (".png", ".svg")}
    assert {path.name for path in several.iterdir() if path.is_file()} == {
        *drawn,
        *("table.md", "table.csv", "runs.csv", "config.json", "metrics.jsonl", "checkpoint.pt"),
    }
    runs, table = (
        list(csv.DictReader((several / name).read_text().splitlines())) for name in ("runs.csv", "table.csv")
    )
    tests = [line for line in read_metrics(several) if line["split"] == "test"]
    assert {(r["row"], int(r["seed"]), int(r["epoch"]), float(r["recall_at_1"])) for r in runs} == {
        (line["row"], line["seed"], line["epoch"], line["recall_at_1"]) for line in tests
    }
    assert len(runs) == 16
    assert len(table) == 8
    for row in table:
        gaps = [
            line["largest_gap"] for line in tests if (line["row"], str(line["epoch"])) == (row["row"], row["epoch"])
        ]
        assert float(row["largest_gap"]) == pytest.approx(mean(gaps))
        assert float(row["largest_gap_sd"]) == pytest.approx(stdev(gaps))
        assert (float(row["largest_gap_min"]), float(row["largest_gap_max"])) == (min(gaps), max(gaps))
    text = (several / "table.md").read_text()
    assert [cell.strip() for cell in text.splitlines()[0].split("|")[4:-1]] == [m.heading for m in MEASURES.values()]
    last = next(row for row in table if (row["row"], row["epoch"]) == ("centred", "3"))
    recall = f"{100 * float(last['recall_at_1']):.1f} ± {100 * float(last['recall_at_1_sd']):.1f}"
    assert any(line.startswith("|     3 | centred |     2 |") and recall in line for line in text.splitlines())


def test_runs_of_other_settings_stand_apart_and_unfinished_ones_are_left_out(svmax, several, tmp_path, monkeypatch):
    command = ["embed2d", "--rows", "vanilla", *SMALL]
    assert svmax(*command, "--lr", 0.1, "--out", tmp_path / "fast").code == 0
    assert svmax(*command, "--out", tmp_path / "again").code == 0
    monkeypatch.setattr(Embed2dTraining, "evaluate", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        svmax(*command, "--out", tmp_path / "cut")
    found = [several, tmp_path / "fast", tmp_path / "cut", tmp_path / "again"]
    outcome = svmax("report", *found, "--out", tmp_path / "report")
    assert (outcome.code, outcome.err) == (0, "")
    note = (
        f"\nLeft out:\n\n- `{tmp_path / 'cut'}` is not finished (step 0).\n"
        f"- `{tmp_path / 'again'}` is the same run as {several / 'vanilla-seed0'}.\n"
    )
    assert note in outcome.out
    assert (tmp_path / "report" / "table.md").read_text().endswith(note)
    assert "**digits, lr 0.01**" in outcome.out
    assert "**digits, lr 0.1**" in outcome.out
    assert (tmp_path / "report" / "embeddings-digits-lr-0.1-seed0.png").exists()
    alone = svmax("report", tmp_path / "cut")
    assert alone.err == f"svmax report: no run can be reported: {tmp_path / 'cut'} is not finished (step 0).\n"


def test_a_vanilla_run_stands_beside_every_weight(svmax, several, tmp_path):
    """A figure needs its first row, which the weight has no effect on."""
    heavy, out = tmp_path / "heavy", tmp_path / "report"
    assert svmax("embed2d", "--rows", "vanilla,centred", *SMALL, "--svmax-weight", 2, "--out", heavy).code == 0
    assert read_run(heavy / "centred-seed0").config["svmax_weight"] == 2
    assert read_run(heavy / "vanilla-seed0").config == read_run(several / "vanilla-seed0").config
    lighter = svmax("report", several, heavy, "--out", out)
    assert f"`{heavy / 'vanilla-seed0'}` is the same run as {several / 'vanilla-seed0'}." in lighter.out
    for weight, seeds in (("1.0", 2), ("2.0", 1)):
        section = lighter.out.partition(f"**digits, svmax_weight {weight}**")[2].partition("**")[0]
        assert "|     3 | vanilla |     2 |" in section
        assert f"|     3 | centred |     {seeds} |" in section
    runs = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    ends = [(row["row"], row["seed"], row["svmax_weight"]) for row in runs if row["epoch"] == "3"]
    assert sorted(ends) == [
        *(("centred", "0", "1.0"), ("centred", "0", "2.0"), ("centred", "3", "1.0")),
        *(("vanilla", "0", ""), ("vanilla", "3", "")),
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (64, "the loss became nan at step 2 (contrastive loss nan, SVMax nan); try a smaller --lr in a new --out."),
        (32, "the embeddings are not finite after step 1; try a smaller --lr in a new --out."),  # evaluated there
    ],
)
def test_what_is_not_finite_ends_the_run(svmax, tmp_path, images, message):
    outcome = svmax("embed2d", "--rows", "svmax", *SMALL, "--images", images, "--lr", "1e38", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (2, f"svmax embed2d: {message}\n")


def test_fashion_mnist_is_found_where_debian_has_it(svmax, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "datasets")
    command = ["embed2d", "--rows", "svmax", "--dataset", "fashion-mnist", "--epochs", 1, "--out", tmp_path / "run"]
    outcome = svmax(*command)
    assert outcome.code == 2
    assert outcome.err == (
        "svmax embed2d: --dataset fashion-mnist needs --root, the folder of train-images-idx3-ubyte and three more"
        f" files, or Debian's package dataset-fashion-mnist, which puts them into {tmp_path / 'datasets'}.\n"
    )
    assert not (tmp_path / "run").exists()
    write_mnist(tmp_path / "datasets")
    assert svmax(*command).code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rows vanila", "--rows must be some of vanilla,svmax,centred, each once; got vanila."),
        ("--seeds 4-0", "ranges of up to 10,000 of them, like 0-4 or 0,2,7; got 4-0."),
        ("--dataset cifar", "--dataset must be digits, mnist or fashion-mnist; got 'cifar'."),
        (
            "--dataset mnist",
            "--dataset mnist needs --root, the folder of train-images-idx3-ubyte and three more files.",
        ),
        ("--dataset mnist --root nowhere", "--root nowhere is not a folder."),
        ("--dataset mnist --root tests", "--root tests has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz."),
        ("--root tests", "--root must be left out: digits reads no files; got tests."),
        ("--images 31", "--images must be at least a batch, 32; got 31."),
        ("--images 1001", "--images must be at most 1000, what digits has to train on; got 1001."),
        ("--batch-size 30", "--batch-size must be a multiple of 4 from 8 to 40: p classes x 4 pictures, of 10 classes"),
        ("--batch-size 44", "of 10 classes; got 44."),
        ("--batch-size 4", "of 10 classes; got 4."),
        ("--epochs 0", "--epochs must be at least 1; got 0."),
        ("--lr 0", "--lr must be a positive number; got 0.0."),
        ("--momentum 1", "--momentum must be in [0, 1); got 1.0."),
        ("--rows vanilla --svmax-weight 2", "--svmax-weight 2.0 needs svmax or centred in --rows; got vanilla."),
        ("--svmax-weight nan", "--svmax-weight must be zero or a positive number; got nan."),
        ("--log-every 0", "--log-every must be at least 1; got 0."),
        ("--checkpoint-every 0", "--checkpoint-every must be at least 1; got 0."),
        ("--workers 0", "--workers must be at least 1; got 0."),
        ("--backend cuda", "--backend must be auto, cpu or reference; got 'cuda'."),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(svmax, tmp_path, flags, message):
    outcome = svmax("embed2d", *flags.split(), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith("svmax embed2d: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pictures_of_too_few_classes_are_refused():
    train, test = load(Embed2dConfig())
    few = train._replace(pixels=train.pixels[train.labels < 7], labels=train.labels[train.labels < 7])
    with pytest.raises(UserError, match="--batch-size 32 needs 8 training classes of 4 pictures, the data has 7;"):
        Embed2dTraining(Embed2dConfig(rows="vanilla"), few, test)
