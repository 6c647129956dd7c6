"""Data-parallel training: two processes of torchrun end like one with the same global batch."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from svmax_ops.cli import main
from svmax_ops.runs import processes
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.harness import read_checkpoint, read_metrics
from svmax_ops.runs.retrieval import parallel
from svmax_ops.runs.retrieval.parallel import Ranks

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CUT = """
import os, signal, sys
from svmax_ops.cli import main
from svmax_ops.runs.retrieval.training import Training
whole = Training.step
def cut(self):
    if self.done + 1 == {step} and os.environ["RANK"] == "{rank}":
        os.kill(os.getpid(), signal.{signal})
    return whole(self)
Training.step = cut
try:
    sys.exit(main(sys.argv[1:]))
finally:
    print("threads at the end:", len(os.listdir("/proc/self/task")), flush=True)
"""
ALONE = "1"  # thread at the end: gloo's have ended, of which one that outlives Python may abort the process


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)


def threads_at_the_end(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Of each process that got so far: once one has ended in an error, torchrun kills the others where they are."""
    return re.findall(r"threads at the end: (\d+)", result.stdout)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.processes
@pytest.mark.parametrize(
    "options",
    [
        "--loss contrastive --center",
        pytest.param("--loss triplet", marks=pytest.mark.further),
        pytest.param("--loss angular --regularizer none", marks=pytest.mark.further),
        pytest.param("--loss npair --npair-l2 0.02 --regularizer spread-out --lr 0.002", marks=pytest.mark.further),
    ],
)
def test_two_processes_end_like_one(small, tmp_path, one_thread, options):
    command = ["retrieval", *small, "--lr", "0.02", *options.split(), "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    result = torchrun("-m", "svmax_ops.cli", *command, tmp_path / "two")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 6/6") == 1  # one of them speaks
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert [(line["step"], line.get("of")) for line in one] == [(line["step"], line.get("of")) for line in two]
    for ours, theirs in zip(one, two, strict=True):
        for name in {"loss", "ranking_loss", "regularizer", "lr", "spread"} & set(ours):
            tolerance = 1e-4 if name == "spread" else 1e-5
            assert theirs[name] == pytest.approx(ours[name], rel=tolerance), name
    networks = [read_checkpoint(tmp_path / name / "checkpoint.pt")["network"] for name in ("one", "two")]
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.processes
def test_a_stopped_group_goes_on_bit_for_bit_and_as_a_group_only(svmax, small, tmp_path, metrics):
    command = ["retrieval", *small, "--out"]
    script = tmp_path / "cut.py"
    script.write_text(CUT.format(step=0, rank=1, signal="SIGTERM"))  # never
    whole = torchrun(script, *command, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert threads_at_the_end(whole) == [ALONE, ALONE]
    script.write_text(CUT.format(step=3, rank=1, signal="SIGTERM"))
    stopped = torchrun(script, *command, tmp_path / "cut")
    assert stopped.returncode != 0
    assert set(threads_at_the_end(stopped)) == {ALONE}
    assert read_checkpoint(tmp_path / "cut/checkpoint.pt")["step"] == 3
    expected = "stopped; go on with: torchrun --nproc-per-node 2 --no-python svmax retrieval --dataset fonts --root"
    assert stopped.stderr.count(expected) == 1
    alone = svmax(*command, tmp_path / "cut", "--resume")
    assert "was started with processes = 2, now it is 1;" in alone.err
    refused = torchrun("-m", "svmax_ops.cli", *command, tmp_path / "cut", "--resume", "--lr", "3")
    assert refused.stderr.count("was started with lr = 0.1, now it is 3.0;") == 1
    resumed = torchrun("-m", "svmax_ops.cli", *command, tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


@pytest.mark.processes
def test_a_process_that_dies_ends_the_others(small, tmp_path):
    script = tmp_path / "die.py"
    script.write_text(CUT.format(step=4, rank=1, signal="SIGKILL"))
    result = torchrun(script, "retrieval", *small, "--out", tmp_path / "run")
    assert result.returncode != 0
    assert threads_at_the_end(result) == [ALONE]
    assert "another process of torchrun ended or was not heard of at step 4" in result.stderr
    assert (
        "go on from the last checkpoint with: torchrun --nproc-per-node 2 --no-python svmax retrieval" in result.stderr
    )
    assert read_checkpoint(tmp_path / "run/checkpoint.pt")["step"] == 2


def test_a_batch_that_cannot_be_shared_out():
    ranks = Ranks("cpu")
    ranks.count = 5
    with pytest.raises(UserError, match=r"--batch-size must be a multiple of the 5 processes of torchrun; got 144\."):
        ranks.check(144)


def test_a_process_that_torchrun_did_not_start_is_alone_and_says_so(monkeypatch, capsys):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)  # as a cluster sets them, or a shell has kept them
    with Ranks("cpu") as ranks:
        assert ranks.group is None
        assert ranks.own(torch.arange(4)).equal(torch.arange(4))
    said = "RANK=1, WORLD_SIZE=2 in the environment is not of torchrun: this process runs alone.\n"
    assert capsys.readouterr().out == said


@pytest.fixture
def of_torchrun(monkeypatch):
    """This process as if torchrun had started it, the first of two; the other one does not come."""
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    yield
    ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG, see below


@pytest.mark.processes
def test_waiting_for_the_other_processes_is_said(of_torchrun, monkeypatch):
    said, texts = threading.Event(), []
    monkeypatch.setattr(parallel, "_UNTIL_SAID", 0.0)
    monkeypatch.setattr(parallel, "print", lambda text: (texts.append(text), said.set()), raising=False)

    def never(backend, timeout):
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # Ctrl-C ends the wait
        assert said.wait(300)
        raise UserError("nobody came")

    monkeypatch.setattr(parallel.dist, "init_process_group", never)
    with pytest.raises(UserError, match="nobody came"), Ranks("cpu"):
        pass
    assert texts == ["waiting for all 2 processes of torchrun"]
    assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL


def test_a_process_of_torchrun_ends_with_it(of_torchrun, monkeypatch):
    """Also when torchrun is killed, and can end nobody: the kernel sends a SIGTERM."""
    monkeypatch.setattr(parallel.dist, "init_process_group", lambda *args, **kwargs: None)
    Ranks("cpu").__enter__()
    signum = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(signum))  # PR_GET_PDEATHSIG
    assert signum.value == signal.SIGTERM


def test_runs_that_are_not_shared_out_are_refused_under_torchrun(of_torchrun, svmax, tmp_path):
    for flags in (["--seeds", "0"], ["--seeds", "0-1"]):
        outcome = svmax("gan", "--rows", "vanilla", *flags, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert "torchrun started 2 processes of this command; only svmax retrieval shares its work" in outcome.err


def test_a_run_of_several_inherits_nothing_of_a_launcher(of_torchrun, monkeypatch, tmp_path):
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *args, env, **kwargs: pytest.fail(repr(sorted(env))))
    with pytest.raises(pytest.fail.Exception) as failure:
        processes._Process("gan", GanConfig(out=tmp_path), 1)
    found = str(failure.value)
    assert "'PATH'" in found
    assert not any(f"'{name}'" in found for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"))


def test_a_run_that_cannot_be_started_is_named(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.subprocess, "Popen", fail)
    with pytest.raises(UserError, match="the run one cannot be started: Resource temporarily unavailable"):
        processes._Process("gan", GanConfig(out=tmp_path / "one"), 1)


@pytest.mark.processes
def test_runs_stop_with_a_checkpoint_when_what_started_them_is_killed(tmp_path):
    flags = "--rows vanilla --seeds 0-1 --workers 2 --batch-size 16 --latent-dim 4"
    steps = "--steps 100000000 --log-every 1 --evaluate-every 100000000 --checkpoint-every 100000000"
    command = [sys.executable, "-m", "svmax_ops.cli", "gan", *flags.split(), *steps.split(), "--out", str(tmp_path)]
    several = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folders = [tmp_path / f"vanilla-seed{seed}" for seed in (0, 1)]
    deadline = time.monotonic() + 600
    while not all((folder / "metrics.jsonl").exists() and len(read_metrics(folder)) > 2 for folder in folders):
        assert several.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    several.kill()
    several.wait()
    for folder in folders:
        while not (folder / "checkpoint.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with open(folder / "metrics.jsonl", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the process is gone
        assert read_checkpoint(folder / "checkpoint.pt")["step"] > 0


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a process for each GPU at most: --nproc-per-node 1; got 2"), Ranks("auto"):
        pass
