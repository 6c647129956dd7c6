"""The run: it learns what the paper says it learns, leaves the folder that was promised, and resumes bit for bit."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

import svmax_ops
from svmax_ops import svmax_loss
from svmax_ops.cli import main
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import read_checkpoint
from svmax_ops.runs.retrieval import cost
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from svmax_ops.runs.retrieval.embedding import embed
from svmax_ops.runs.retrieval.evaluation import batch_spectrum, evaluate
from svmax_ops.runs.retrieval.losses import LOSSES, contrastive_loss
from svmax_ops.runs.retrieval.models import SmallNetwork, last_linear
from svmax_ops.runs.retrieval.training import Training, learning_rate


@pytest.fixture(scope="module")
def strokes() -> RetrievalData:
    return DATASETS["strokes"](RetrievalConfig())


@pytest.mark.parametrize(("regularizer", "lowest", "highest"), [("none", 0, 0.3), ("svmax", 0.8, 1)])
def test_contrastive_collapses_without_svmax_and_spreads_with_it(strokes, regularizer, lowest, highest):
    training = Training(RetrievalConfig(regularizer=regularizer, iterations=80), strokes.train)
    for _ in range(80):
        training.step()
    assert lowest < batch_spectrum(embed(training.network, strokes.test), 144)["spread"] < highest


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [{"center": True}, {"bounded": False}, {"regularizer": "spread-out"}], ids=str)
def test_every_loss_trains_with_every_regularizer(strokes, loss, options):
    training = Training(RetrievalConfig(loss=loss, iterations=4, lr=0.01, **options), strokes.train)
    before = [parameter.clone() for parameter in training.network.parameters()]
    values = [training.step()[0] for _ in range(4)]
    assert not any(p.equal(q) for p, q in zip(training.network.parameters(), before, strict=True))
    expected = [v["ranking_loss"] + training.config.weight * v["regularizer"] for v in values]
    assert [v["loss"] for v in values] == pytest.approx(expected, rel=1e-6)


def test_a_step_minimises_ranking_loss_plus_weighted_svmax(strokes):
    """The first step against plain PyTorch: same batch, same weights, gradient written out."""
    config = RetrievalConfig(iterations=10, lr=0.05, svmax_weight=0.7)
    training, twin = Training(config, strokes.train), Training(config, strokes.train)
    training.step()
    indices = next(twin.batches)
    activations = twin.network(strokes.train.batch(indices))
    ranking = contrastive_loss(F.normalize(activations), strokes.train.labels[indices])
    (ranking + 0.7 * svmax_loss(activations)).backward()
    for after, before in zip(training.network.parameters(), twin.network.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.05 * before.grad)


def test_learning_rate_is_constant_for_half_then_linear_to_1e_7():
    rates = [learning_rate(done, 10, 0.1) for done in range(11)]
    assert rates[:6] == [0.1] * 6
    assert rates[6:] == pytest.approx([0.08 + 2e-8, 0.06 + 4e-8, 0.04 + 6e-8, 0.02 + 8e-8, 1e-7])


def test_network_is_the_one_described():
    network = SmallNetwork((1, 32, 32), 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 218_080
    assert network(torch.zeros(3, 1, 32, 32)).shape == (3, 64)
    assert SmallNetwork((3, 30, 45), 7)(torch.zeros(2, 3, 30, 45)).shape == (2, 7)


def test_a_run_leaves_the_folder_that_is_promised(svmax, small, tmp_path):
    outcome = svmax("retrieval", *small, "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "24 typefaces from" in outcome.out
    assert "STIXSizOneSymReg.ttf: draws 0 distinct letters" in outcome.out
    assert re.search(
        r"step 6/6  loss \S+  spread \S+  best R@1 % \S+  ranking loss \S+  images/s \d+  \S+ it/s", outcome.out
    )
    assert "SVMax took" in outcome.out
    figures = {"curves.png", "neighbours.png", "singular_values.png"}
    files = {"config.json", "metrics.jsonl", "checkpoint.pt", "best.pt", "events.out.tfevents.run"}
    assert {path.name for path in tmp_path.iterdir()} == files | figures
    for name in figures:
        Image.open(tmp_path / name).verify()

    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["svmax_weight"] == 1.0  # the loss's, resolved
    assert record["versions"]["torch"] == torch.__version__
    assert record["command"].startswith("svmax retrieval --dataset fonts --root")

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "spread", "lr"} <= set(line) for line in train)
    tests = [line for line in lines if line["split"] == "test"]
    assert [(line["of"], line["step"]) for line in tests] == [
        ("chance", 0), ("pixels", 0), ("network", 0), ("network", 3), ("network", 6),
    ]  # fmt: skip
    measures = {"recall_at_1", "recall_at_8", "nmi", "spread", "effective_rank"}
    assert all(measures <= set(line) for line in tests if line["of"] != "chance")
    times = lines[-1]
    assert times["svmax_share"] == pytest.approx(times["svmax_ms"] / times["step_ms"])
    assert 0 < times["svmax_ms"] < times["step_ms"]
    assert times["torch_svd_ms"] > 0

    events = EventAccumulator(str(tmp_path)).Reload()
    spread = events.Scalars("train/spread")
    assert [event.step for event in spread] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in spread] == pytest.approx([line["spread"] for line in train])
    assert "test/network/recall_at_1" in events.Tags()["scalars"]
    histogram = events.Histograms("train/singular_values")[-1].histogram_value
    assert histogram.num == sum(histogram.bucket) == 8
    assert histogram.sum_squares == pytest.approx(24, rel=1e-5)  # of unit rows
    assert "test/network/singular_values" in events.Tags()["histograms"]


def test_opening_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"step": 1, "config": {}, "bytes": {}, "network": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(Exception, match="is truncated or no checkpoint of svmax_ops"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "executed").exists()


class Killed(BaseException):
    """Stands for kill -9: nothing gets a chance to tidy up."""


def cut_at(step: int, how: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``how`` happen during that step."""
    whole = Training.step

    def cut(self: Training):
        if self.done + 1 == step:
            monkeypatch.setattr(Training, "step", whole)
            how()
        return whole(self)

    monkeypatch.setattr(Training, "step", cut)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill() -> None:
    raise Killed


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory) -> dict[str, Path]:
    """A whole run with each regularizer that keeps a state."""
    folders = {name: tmp_path_factory.mktemp("whole") for name in ("svmax", "spread-out")}
    for name, folder in folders.items():
        assert main(["retrieval", *small, "--regularizer", name, "--out", str(folder)]) == 0
    return folders


@pytest.mark.processes
@pytest.mark.parametrize(
    ("regularizer", "step", "how"),
    [("svmax", 1, kill), ("svmax", 2, terminate), ("svmax", 6, kill), ("spread-out", 5, terminate)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    svmax, small, metrics, uninterrupted, tmp_path, monkeypatch, regularizer, step, how
):
    whole, cut = uninterrupted[regularizer], tmp_path / "cut"
    command = ["retrieval", *small, "--regularizer", regularizer, "--out"]
    cut_at(step, how, monkeypatch)
    if how is terminate:
        assert svmax(*command, cut).code == 143
        assert read_checkpoint(cut / "checkpoint.pt")["step"] == step - 1  # before the pictures of that step came
    else:
        with pytest.raises(Killed):
            svmax(*command, cut)
        assert read_checkpoint(cut / "checkpoint.pt")["step"] == (step - 1) // 2 * 2
    assert svmax(*command, cut, "--resume").code == 0

    assert metrics(cut) == metrics(whole)
    one, other = (read_checkpoint(folder / "checkpoint.pt") for folder in (whole, cut))
    assert one["step"] == other["step"] == 6
    for name, value in one["network"].items():
        assert value.equal(other["network"][name]), name
    for name, state in one["optimizer"]["state"].items():
        assert state["momentum_buffer"].equal(other["optimizer"]["state"][name]["momentum_buffer"])
    assert one["batches"]["generator"].equal(other["batches"]["generator"])
    steps = [event.step for event in EventAccumulator(str(cut)).Reload().Scalars("train/loss")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_a_finished_run_changes_nothing(svmax, small, tmp_path):
    assert svmax("retrieval", *small, "--out", tmp_path).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = svmax("retrieval", *small, "--out", tmp_path, "--resume")
    assert outcome.code == 0
    assert "is finished: all 6 iterations are done" in outcome.out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_float16_goes_on_with_its_scale(strokes):
    config = RetrievalConfig(autocast="float16", loss="triplet", regularizer="spread-out", lr=0.01, batch_size=24)
    one, other = Training(config, strokes.train), Training(config, strokes.train)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=2)
    one.step()
    other.load_state_dict({**copy.deepcopy(one.state_dict()), "step": 1})
    assert [one.step()[0] for _ in range(3)] == [other.step()[0] for _ in range(3)]
    assert other.scaler.get_scale() == one.scaler.get_scale() == 8.0
    assert all(p.equal(q) for p, q in zip(one.network.parameters(), other.network.parameters(), strict=True))


def test_a_run_does_not_change_its_device(strokes):
    training = Training(RetrievalConfig(), strokes.train)
    state = training.state_dict()
    state["random"] = [[*state["random"][0], torch.empty(16, dtype=torch.uint8)]]  # the second is a GPU's
    with pytest.raises(UserError, match="--resume: the run was started on cuda, now it is on cpu; choose another"):
        training.load_state_dict(state)


class Photographs:
    """Noise in colour, 64 x 64: four classes of six."""

    shape = (3, 64, 64)

    def __init__(self) -> None:
        self.labels = torch.arange(4).repeat_interleave(6)
        self.pixels = torch.randn(24, *self.shape, generator=torch.Generator().manual_seed(0))

    def batch(self, indices: torch.Tensor, draws: torch.Tensor | None = None) -> torch.Tensor:
        return self.pixels[indices]


@pytest.mark.parametrize("network", ["googlenet", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.each_value
def test_the_papers_networks_train_with_every_loss_and_regularizer(network, loss):
    pictures = Photographs()
    for regularizer in ("none", "svmax", "spread-out"):
        config = RetrievalConfig(
            network=network, weights="none", loss=loss, regularizer=regularizer,
            batch_size=2 * LOSSES[loss].samples_per_class, dim=6, iterations=2, lr=0.001, workers=0,
        )  # fmt: skip
        training = Training(config, pictures)
        embedding = last_linear(training.network)[1]
        before = embedding.weight.clone()
        for _ in range(2):
            values, activations = training.step()
        assert activations.shape == (config.batch_size, 6)
        assert (values["regularizer"] > 0) == (regularizer != "none")
        assert not embedding.weight.equal(before)
        result = evaluate(embed(training.network, pictures, config), pictures.labels, config.batch_size)
        assert 0 <= result["recall_at_1"] <= result["recall_at_8"] <= 1
        assert 0 < result["spread"] < 1


def test_raw_pixels_of_a_large_data_set_are_not_clustered(svmax, small, metrics, tmp_path, monkeypatch):
    monkeypatch.setattr("svmax_ops.runs.retrieval.run._MOST_CLUSTERED", 10)
    assert svmax("retrieval", *small, "--regularizer", "none", "--out", tmp_path / "run").code == 0
    tests = {line["of"]: line for line in metrics(tmp_path / "run") if line["split"] == "test"}
    assert "nmi" not in tests["pixels"]
    assert "nmi" in tests["network"]
    assert svmax("report", tmp_path / "run").code == 0


def test_fewer_embeddings_than_dimensions_train_and_log_their_bounds(svmax, small, metrics, tmp_path):
    assert svmax("retrieval", *small, "--dim", 40, "--out", tmp_path / "run").code == 0
    train = [line for line in metrics(tmp_path / "run") if line["split"] == "train"]
    lower, upper = svmax_ops.singular_value_bounds(24, 40)
    for line in train:
        assert (line["lower"], line["upper"]) == (lower, upper)
        assert line["spread"] == pytest.approx((line["s_mu"] - lower) / (upper - lower), rel=1e-5)
        assert lower < line["s_mu"] < upper


@pytest.mark.processes
def test_time_that_a_process_does_not_work_is_not_counted():
    clock = cost.Clock(torch.device("cpu"), thread=True)
    time.sleep(1)
    assert clock.seconds() < 0.5


def test_what_svmax_costs_is_measured_with_one_thread_and_leaves_the_others_as_they_were(two_threads, monkeypatch):
    seen = []
    monkeypatch.setattr(cost, "svmax_loss", lambda x, **options: (seen.append(torch.get_num_threads()), x.sum())[1])
    measured = cost.Cost(True, False)
    measured.measure(torch.randn(6, 4))
    assert seen == [1]
    assert torch.get_num_threads() == 2
