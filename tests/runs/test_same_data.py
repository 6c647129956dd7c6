"""A run goes on with the data that it began with, or not at all."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from svmax_ops.runs.embed2d.training import Embed2dTraining
from svmax_ops.runs.harness import is_finished
from svmax_ops.runs.retrieval.training import Training
from tests.runs import trees
from tests.runs.test_idx import write_mnist

FEW = [
    *("--network", "small", "--weights", "none", "--batch-size", 8, "--dim", 4),
    *("--iterations", 3, "--checkpoint-every", 1, "--workers", 0),
]


@pytest.fixture
def begin(svmax, monkeypatch):
    """Begin a run that is stopped in its second step."""

    def run(*command: object) -> None:
        for training in (Training, Embed2dTraining):
            monkeypatch.setattr(training, "step", _stopping(training.step))
        assert svmax(*command).code == 143
        monkeypatch.undo()

    return run


def _stopping(step):
    def stop(self):
        if self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    return stop


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forget_the_data(out: Path) -> None:
    """As a checkpoint was before the identity of the data was kept."""
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    assert set(checkpoint.pop("data")) == {"digest", "content"}
    torch.save(checkpoint, out / "checkpoint.pt")


def test_a_class_more_is_refused_and_touches_nothing(svmax, begin, tmp_path):
    root = trees.imagefolder(tmp_path / "birds", "abcd")
    out = tmp_path / "run"
    command = ["retrieval", "--dataset", "folder", "--root", root, *FEW, "--out", out]
    begin(*command)
    with open(out / "metrics.jsonl", "ab") as file:
        file.write(b"of after the checkpoint\n")
    before = files(out)
    trees.imagefolder(root, "e")
    outcome = svmax(*command, "--resume")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"svmax retrieval: --resume: the data set is not the one that the run in {out} began with (then 2 classes with"
        " 4 pictures to train on, 2 classes with 4 pictures to test on, now 2 classes with 4 pictures to train on, 3"
        " classes with 6 pictures to test on); put it back as it was, or choose another --out.\n"
    )
    assert files(out) == before
    shutil.rmtree(root / "e")
    (root / "d" / "00.jpg").rename(root / "d" / "02.jpg")
    outcome = svmax(*command, "--resume")
    assert outcome.code == 2
    assert "4 pictures to test on as before, but other names, classes or pixels); put it back" in outcome.err
    outcome = svmax(*command, "--resume", "--jitter", "mild")  # other data were asked for: that is what differs
    assert f"the run in {out} was started with jitter = 'medium', now it is 'mild'" in outcome.err
    (root / "d" / "02.jpg").rename(root / "d" / "00.jpg")
    assert svmax(*command, "--resume").code == 0
    assert is_finished(out)


def test_a_typeface_that_has_changed_is_refused_unless_the_checkpoint_is_of_before(svmax, begin, tmp_path, fonts_root):
    root, out = tmp_path / "fonts", tmp_path / "run"
    root.mkdir()
    for name in ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr10"):
        shutil.copy(fonts_root / f"{name}.ttf", root)
    command = ["retrieval", "--dataset", "fonts", "--root", root, *FEW, "--out", out]
    begin(*command)
    shutil.copy(fonts_root / "DejaVuSansMono.ttf", root / "DejaVuSans.ttf")
    outcome = svmax(*command, "--resume")
    assert outcome.code == 2
    assert "120 pictures to test on as before, but other names, classes or pixels); put it back" in outcome.err
    forget_the_data(out)
    assert svmax(*command, "--resume").code == 0
    assert torch.load(out / "checkpoint.pt", weights_only=True)["data"]["content"].startswith("2 classes with 120 pic")


def test_other_files_of_small_pictures_are_refused_also_by_a_run_of_several(svmax, begin, tmp_path):
    root, out = write_mnist(tmp_path / "mnist", train=200), tmp_path / "run"
    command = ["embed2d", "--dataset", "mnist", "--root", root, "--epochs", 1, "--batch-size", 40]
    one = [*command, "--rows", "vanilla", "--seeds", 0, "--out", out / "vanilla-seed0"]
    begin(*one)
    kept = tmp_path / "kept"
    shutil.copytree(root, kept)
    write_mnist(root, train=240)
    outcome = svmax(*one, "--resume")
    assert outcome.code == 2
    assert outcome.err == (
        f"svmax embed2d: --resume: the data set is not the one that the run in {out / 'vanilla-seed0'} began with (then"
        " 200 pictures to train on, 20 to test on, now 240 pictures to train on, 20 to test on); put it back as it was,"
        " or choose another --out.\n"
    )
    outcome = svmax(*command, "--rows", "vanilla", "--seeds", "0,1", "--out", out, "--resume")
    assert outcome.code == 2
    assert f"the run in {out / 'vanilla-seed0'} began with" in outcome.err
    assert not (out / "vanilla-seed1").exists()
    shutil.rmtree(root)
    kept.rename(root)
    forget_the_data(out / "vanilla-seed0")
    assert svmax(*one, "--resume").code == 0
