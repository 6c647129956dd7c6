"""What cuts a run off: each ends in a sentence, with a whole checkpoint from which it goes on bit for bit."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info

from svmax_ops.cli import main
from svmax_ops.runs.harness import read_checkpoint
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.models import SmallNetwork
from svmax_ops.runs.retrieval.parallel import Ranks
from svmax_ops.runs.retrieval.training import Training
from tests.runs import trees


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    return trees.cub200(tmp_path_factory.mktemp("birds"), images_per_class=4)


@pytest.fixture(scope="module")
def command(birds: Path) -> list[str]:
    """A network with dropout on photographs: 4 iterations, a checkpoint after 2, two processes that read."""
    flags = "--no-check-counts --network mobilenet_v2 --weights none --dim 8 --batch-size 12 --iterations 4 --lr 0.01"
    flags += " --log-every 1 --evaluate-every 3 --checkpoint-every 2 --workers 2"
    return ["retrieval", "--dataset", "cub200", "--root", str(birds), *flags.split()]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert main([*command, "--out", str(folder)]) == 0
    return folder


def assert_equal_ends(metrics, one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    for name in ("checkpoint.pt", "best.pt"):
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        assert ours["step"] == theirs["step"]
        assert all(value.equal(theirs["network"][key]) for key, value in ours["network"].items())


@pytest.mark.processes
def test_a_stopped_run_with_dropout_and_workers_goes_on_bit_for_bit(
    svmax, command, whole, metrics, tmp_path, monkeypatch
):
    step = Training.step

    def stop(self: Training):
        if self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stop)
        assert svmax(*command, "--out", tmp_path).code == 143
    assert svmax(*command, "--workers", 0, "--out", tmp_path, "--resume").code == 0  # whoever reads the pictures
    assert_equal_ends(metrics, tmp_path, whole)


@pytest.mark.processes
def test_an_unreadable_image_is_named_and_the_run_goes_on_once_it_is_back(
    svmax, command, birds, whole, metrics, tmp_path
):
    image = sorted((birds / "images").glob("002.*/*.jpg"))[1]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    try:
        outcome = svmax(*command, "--out", tmp_path / "run")
    finally:
        image.write_bytes(content)
    assert outcome.code == 2
    assert str(image) in outcome.err
    assert outcome.err.count("\n") == 1
    assert "; go on with: svmax retrieval --dataset cub200 --root" in outcome.err
    assert svmax(*command, "--out", tmp_path / "run", "--resume").code == 0
    assert_equal_ends(metrics, tmp_path / "run", whole)


@pytest.mark.processes
def test_a_reading_process_that_dies(svmax, command, whole, metrics, tmp_path, monkeypatch):
    batch = ImageFiles.batch

    def die(self, indices, draws=None):
        if draws is not None and get_worker_info() is not None and get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, indices, draws)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "batch", die)
        outcome = svmax(*command, "--out", tmp_path)
    assert outcome.code == 2
    assert re.search(r"a process that reads pictures died at step [12] \(DataLoader worker \(pid", outcome.err)
    assert "take fewer --workers; go on from the last checkpoint with: svmax retrieval" in outcome.err
    assert svmax(*command, "--out", tmp_path, "--resume").code == 0
    assert_equal_ends(metrics, tmp_path, whole)


def test_memory_that_runs_out(svmax, small, metrics, tmp_path, monkeypatch):
    forward = SmallNetwork.forward

    def hungry(self, pictures):
        if self.training and len(pictures) == 24 and hungry.calls == 3:
            torch.empty(2**60)
        hungry.calls += self.training
        return forward(self, pictures)

    hungry.calls = 0
    with monkeypatch.context() as patch:
        patch.setattr(SmallNetwork, "forward", hungry)
        outcome = svmax("retrieval", *small, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "memory ran out at step 4; take a smaller --batch-size or --autocast bfloat16 in a new --out;" in outcome.err
    assert "go on from the last checkpoint with: svmax retrieval" in outcome.err
    assert read_checkpoint(tmp_path / "run/checkpoint.pt")["step"] == 2
    assert svmax("retrieval", *small, "--out", tmp_path / "run", "--resume").code == 0
    assert svmax("retrieval", *small, "--out", tmp_path / "whole").code == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.processes
def test_a_run_goes_on_without_the_weights_that_it_began_with(svmax, small, tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    torch.save(SmallNetwork((1, 32, 32), 8).state_dict(), weights)
    step = Training.step

    def stop(self: Training):
        if self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    command = ["retrieval", *small, "--weights", weights, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stop)
        assert svmax(*command).code == 143
    weights.unlink()
    assert svmax(*command, "--resume").code == 0
    assert svmax(*command[:-1], tmp_path / "new").err.startswith(
        "svmax retrieval: --weights must be imagenet, none or a"
    )


def test_the_best_network_is_kept_beside_the_last(whole, metrics):
    best = torch.load(whole / "best.pt", weights_only=True)
    tests = [line for line in metrics(whole) if line.get("of") == "network"]
    highest = max(line["recall_at_1"] for line in tests)
    assert best["recall_at_1"] == highest
    assert best["step"] == next(line["step"] for line in tests if line["recall_at_1"] == highest)


@pytest.mark.parametrize(
    "options", [{"autocast": "bfloat16"}, {"autocast": "float16"}, {"channels_last": True}], ids=str
)
def test_half_precision_and_channels_last_train_like_float32(options):
    """The first loss agrees to the precision of the type, and the steps go on from there."""
    from svmax_ops.runs.retrieval.data.strokes import strokes

    pictures = strokes(RetrievalConfig()).train
    config = {"iterations": 6, "lr": 0.01, "batch_size": 24}
    plain = Training(RetrievalConfig(**config), pictures)
    other = Training(RetrievalConfig(**config, **options), pictures, Ranks("cpu"))
    ours, theirs = (training.step()[0]["loss"] for training in (plain, other))
    assert theirs == pytest.approx(ours, rel=1e-5 if "channels_last" in options else 2e-2)
    losses = [other.step()[0]["loss"] for _ in range(5)]
    assert losses[-1] < theirs
    assert all(parameter.dtype == torch.float32 for parameter in other.network.parameters())
