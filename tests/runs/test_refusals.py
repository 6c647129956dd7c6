"""Every error of the user's: one sentence on stderr, exit code 2, and what was there before is whole."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from svmax_ops.runs import harness
from svmax_ops.runs.retrieval.training import Training


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def is_one_sentence(err: str) -> bool:
    return err.count("\n") == 1 and err.endswith(".\n") and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--iterations 0", "--iterations must be at least 1; got 0."),
        ("--log-every 0", "--log-every must be at least 1; got 0."),
        ("--lr 0", "--lr must be a positive number; got 0.0."),
        ("--lr inf", "--lr must be a positive number; got inf."),
        ("--momentum 1", "--momentum must be in [0, 1); got 1.0."),
        ("--svmax-weight -1", "--svmax-weight must be zero or a positive number; got -1.0."),
        ("--svmax-weight nan", "--svmax-weight must be zero or a positive number; got nan."),
        ("--dim 1", "--dim must be at least 2: with one direction there is nothing to spread over; got 1."),
        ("--seed -1", "--seed must be in [0, 2^32); got -1."),
        (
            "--batch-size 90",
            "--batch-size must be a multiple of 4 and at least 8: contrastive takes p classes x 4 pictures, p >= 2;"
            " got 90.",
        ),
        (
            "--loss triplet --batch-size 6",
            "--batch-size must be a multiple of 6 and at least 12: triplet takes p classes x 6 pictures, p >= 2;"
            " got 6.",
        ),
        ("--root .", "--root must be left out: strokes reads no files; got ."),
        ("--dataset fonts", "--dataset fonts needs --root, a folder of .ttf or .otf files."),
        ("--dataset fonts --root nowhere", "--root nowhere is not a folder."),
        ("--dataset cub200", "--dataset cub200 needs --root, the folder of CUB-200-2011 as it was unpacked."),
        ("--dataset folder", "--dataset folder needs --root, a folder of a folder for each class, or a CSV file."),
        ("--dataset sop --root nowhere", "--root nowhere is not a folder."),
        (
            "--dataset cub",
            "--dataset must be strokes, fonts, cub200, cars196, sop or folder; got 'cub'; did you mean cub",
        ),
        ("--lr fast", "--lr must be a number; got 'fast'."),
        ("--bath-size 3", "unknown option --bath-size; did you mean --batch-size."),
        ("--backend tpu", "--backend must be auto, cpu, cuda, triton or reference; got 'tpu'; did you mean cpu."),
        ("--backend cuda", "--backend cuda is not available: "),
    ],
)
def test_bad_values_are_refused(svmax, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = svmax("retrieval", *arguments.split(), "--out", "run")
    assert outcome.code == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.startswith("svmax retrieval: ")
    assert outcome.err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_batch_larger_than_the_data(svmax, small, tmp_path):
    outcome = svmax("retrieval", *small, "--batch-size", 144, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--batch-size 144 needs 36 training classes of 4 pictures, the data has 12; at most 48." in outcome.err
    assert not (tmp_path / "run").exists()


def test_used_folder(svmax, small, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    outcome = svmax("retrieval", *small, "--out", tmp_path)
    assert outcome.code == 2
    assert f"--out {tmp_path} is not empty; choose a new folder, or add --resume" in outcome.err
    assert is_one_sentence(outcome.err)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}
    outcome = svmax("retrieval", *small, "--out", tmp_path, "--resume")
    assert outcome.code == 2
    assert f"--resume: {tmp_path} holds no run (config.json is missing)." in outcome.err
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_folder_that_cannot_be_written(svmax, small, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    outcome = svmax("retrieval", *small, "--out", file / "run")
    assert outcome.code == 2
    assert outcome.err == f"svmax retrieval: cannot write {file / 'run'}: Not a directory.\n"
    outcome = svmax("retrieval", *small, "--out", file)
    assert outcome.code == 2
    assert outcome.err == f"svmax retrieval: cannot write {file}: File exists.\n"
    assert file.read_text() == "not a folder"


def test_folder_without_permission(svmax, small, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):  # root may write everywhere, so the refusal is simulated
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = svmax("retrieval", *small, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err == f"svmax retrieval: cannot write {tmp_path / 'run'}: Permission denied.\n"


@pytest.fixture
def started(svmax, small, tmp_path, monkeypatch) -> Path:
    """A run cut off after its checkpoint at step 4."""

    class Killed(BaseException):
        pass

    whole = Training.step

    def cut(self: Training):
        if self.done == 5:
            raise Killed
        return whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", cut)
        with pytest.raises(Killed):
            svmax("retrieval", *small, "--out", tmp_path / "run")
    return tmp_path / "run"


def test_full_disk(svmax, small, metrics, started, tmp_path, monkeypatch):
    assert svmax("retrieval", *small, "--out", tmp_path / "whole").code == 0
    checkpoint = (started / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(harness.os, "fsync", full)
        outcome = svmax("retrieval", *small, "--out", started, "--resume")
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"svmax retrieval: cannot write {started}: No space left on device; go on with: svmax "
    )
    assert outcome.err.endswith(f"--out {started} --resume\n")
    assert (started / "checkpoint.pt").read_bytes() == checkpoint
    assert not [path for path in started.iterdir() if path.name.endswith(".tmp")]
    assert svmax("retrieval", *small, "--out", started, "--resume").code == 0  # once there is space again
    assert metrics(started) == metrics(tmp_path / "whole")


@pytest.mark.processes
def test_write_error_of_the_system(small, tmp_path):
    """A real one: the system refuses to let a file grow beyond 300 kB, the first checkpoint is larger."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    out = tmp_path / "run"
    command = [sys.executable, "-m", "svmax_ops.cli", "retrieval", *small, "--out", str(out)]
    result = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert result.returncode == 2
    sentence = f"svmax retrieval: cannot write {out / 'best.pt'}: File too large; go on with: svmax retrieval "
    assert result.stderr.startswith(sentence)
    assert {path.name for path in out.iterdir()} == {"config.json", "metrics.jsonl", "events.out.tfevents.run"}


def test_truncated_checkpoint(svmax, small, started):
    path = started / "checkpoint.pt"
    for size in (path.stat().st_size // 2, 10, 0):
        os.truncate(path, size)
        before = contents(started)
        outcome = svmax("retrieval", *small, "--out", started, "--resume")
        assert outcome.code == 2
        assert f"{path} is truncated or no checkpoint of svmax_ops (" in outcome.err
        assert outcome.err.count("\n") == 1
        assert contents(started) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lr", "0.2"], "was started with lr = 0.1, now it is 0.2; give the same command line, or another --out."),
        (["--dim", "16"], "was started with dim = 8, now it is 16;"),
        (["--svmax-weight", "2"], "was started with svmax_weight = 1.0, now it is 2.0;"),
    ],
)
def test_configuration_that_does_not_fit_the_checkpoint(svmax, small, started, change, message):
    before = contents(started)
    outcome = svmax("retrieval", *small, *change, "--out", started, "--resume")
    assert outcome.code == 2
    assert f"--resume: the run in {started} {message}" in outcome.err
    assert is_one_sentence(outcome.err)
    assert contents(started) == before


def test_metrics_that_lost_lines(svmax, small, started):
    os.truncate(started / "metrics.jsonl", 100)
    outcome = svmax("retrieval", *small, "--out", started, "--resume")
    assert outcome.code == 2
    assert outcome.err.endswith(f"--resume: {started / 'metrics.jsonl'} is shorter than it was at the checkpoint.\n")


def test_unreadable_config(svmax, small, started):
    (started / "config.json").write_text("{")
    outcome = svmax("retrieval", *small, "--out", started, "--resume")
    assert outcome.code == 2
    assert f"--resume: {started / 'config.json'} cannot be read: " in outcome.err


@pytest.mark.processes
def test_folder_in_use_by_another_process(svmax, small, started):
    before = contents(started)
    with open(started / "metrics.jsonl", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = svmax("retrieval", *small, "--out", started, "--resume")
    assert outcome.code == 2
    assert outcome.err == f"svmax retrieval: another process is running in {started}.\n"
    assert contents(started) == before


def test_loss_that_becomes_nan(svmax, small, tmp_path):
    outcome = svmax("retrieval", *small, "--lr", "1e38", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "the loss became nan at step " in outcome.err
    assert "try a smaller --lr in a new --out. The last checkpoint in" in outcome.err
    assert outcome.err.endswith(f"is from before; go on with: {outcome.err.partition('go on with: ')[2]}")
    assert outcome.err.count("\n") == 1
