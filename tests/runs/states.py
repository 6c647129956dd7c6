"""Comparing what runs end with, and runs with themselves cut off and resumed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from svmax_ops.runs.harness import is_finished


def equal(one: Any, other: Any) -> bool:
    """Containers of tensors and plain values, to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one.equal(other) if isinstance(one, torch.Tensor) else one == other


def whole_and_cut(
    svmax: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, training: type, command: Sequence[str]
) -> tuple[Path, Path]:
    """The folders of a run, and of the same stopped after two steps and resumed; ``training`` is what takes them."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert svmax(*command, "--out", whole).code == 0
    step = training.step

    def stop(self: Any) -> None:
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step", stop)
        outcome = svmax(*command, "--out", cut)
    assert outcome.code == 143
    assert outcome.err.startswith(f"svmax {command[0]}: stopped; go on with: svmax {command[0]} ")
    assert not is_finished(cut)
    assert svmax(*command, "--out", cut, "--resume").code == 0
    again = svmax(*command, "--out", cut, "--resume")
    assert (again.code, "is finished" in again.out) == (0, True)
    return whole, cut


def cut_off(command: Sequence[str], out: Path, begun: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """``svmax`` in a process of its own that gets Ctrl-C once all the files ``begun`` are in its folder ``out``.

    ``begun`` is in the folders of its runs. On a busy machine they may come to their end before this process has
    another turn: then once more.
    """
    for _ in range(20):
        shutil.rmtree(out, ignore_errors=True)
        line = [sys.executable, "-m", "svmax_ops.cli", *command, "--out", str(out)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and not all((out / name).exists() for name in begun):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            said, told = process.communicate()
        if not all(is_finished(out / Path(name).parts[0]) for name in begun):
            break
    return subprocess.CompletedProcess(line, process.returncode, said, told)
