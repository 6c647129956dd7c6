"""The command itself: what it lists, what it needs, and how signals end it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

import svmax_ops
from svmax_ops.backend_names import NAMES
from svmax_ops.backends import NAMED
from svmax_ops.runs.command_line import as_arguments, parse
from svmax_ops.runs.harness import read_checkpoint, read_metrics
from svmax_ops.runs.progress import Progress
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.losses import LOSSES

SVMAX = [sys.executable, "-m", "svmax_ops"]


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as many as in this process
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_choices_are_what_the_registries_hold():
    choices = get_type_hints(RetrievalConfig)
    assert get_args(choices["dataset"]) == tuple(DATASETS)
    assert get_args(choices["loss"]) == tuple(LOSSES)
    assert get_args(choices["backend"]) == NAMES


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--dataset fonts --root '/a b' --loss triplet --regularizer spread-out --spread-out-weight 0.5",
        "--svmax-weight 0.3 --no-bounded --center --lr 1e-05 --iterations 7 --batch-size 24 --dim 8 --seed 3"
        " --backend reference --out x --resume",
    ],
)
def test_command_line_and_configuration_are_each_others_inverse(line: str):
    arguments = shlex.split(line)
    assert as_arguments(parse(RetrievalConfig, "retrieval", arguments)) == arguments


@pytest.mark.processes
def test_info_needs_the_package_alone():
    blocked = "yaml", "matplotlib", "tqdm", "sklearn", "tensorboard", "pytorch_metric_learning", "PIL"
    result = python(
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));"
        "from svmax_ops.cli import main; sys.exit(main(['info']))"
    )
    assert (result.returncode, result.stderr) == (0, "")
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert rows["svmax_ops"].strip() == svmax_ops.__version__
    for name, state in svmax_ops.available_backends().items():
        assert rows[f"backend {name}"].strip() == state
    assert {"Python", "torch", "CUDA of torch"} <= set(rows)
    described = NAMED["cpu"].describe() | NAMED["cuda"].describe()
    assert len(described) == 4
    assert {name: rows[name].strip() for name in described} == described


@pytest.mark.processes
@pytest.mark.parametrize(("package", "command"), [("sklearn", "retrieval"), ("yaml", "sweep")])
def test_a_missing_extra_is_one_sentence(package: str, command: str):
    arguments = [command, "--out", "x", *(["study.yaml"] if command == "sweep" else [])]
    result = python(
        f"import sys; sys.modules[{package!r}] = None; from svmax_ops.cli import main; sys.exit(main({arguments}))"
    )
    assert result.returncode == 2
    expected = f"svmax {command}: needs {package}, which is not installed: pip install 'svmax-ops[runs]'\n"
    assert result.stderr == expected


@pytest.mark.processes
def test_the_package_imports_neither_runs_nor_command():
    result = python("import sys, svmax_ops; print([name for name in sys.modules if 'svmax_ops' in name])")
    assert "svmax_ops.functional" in result.stdout
    assert "svmax_ops.runs" not in result.stdout
    assert "svmax_ops.cli" not in result.stdout


def test_unknown_command_and_no_command(svmax):
    outcome = svmax("train")
    assert outcome.code == 2
    assert outcome.err == "svmax: unknown command 'train'; accepted: retrieval, gan, embed2d, sweep, report, info.\n"
    for arguments in ((), ("--help",)):
        outcome = svmax(*arguments)
        assert outcome.code == 0
        assert all(f"  {name} " in outcome.out for name in ("retrieval", "gan", "embed2d", "sweep", "report", "info"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.further)]
)
def test_a_signal_ends_with_a_checkpoint_and_the_command_that_resumes(small, tmp_path, signum, code):
    out = tmp_path / "run"
    command = [*SVMAX, "retrieval", *small, "--iterations", "100000", "--checkpoint-every", "100000", "--out", str(out)]
    command += ["--evaluate-every", "100000"]
    for _ in range(2):  # the second time with the command that the first one printed
        known = len(read_metrics(out)) if out.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_steps(out, process, known)
        process.send_signal(signum)
        _, err = process.communicate(timeout=1800)
        assert process.returncode == code
        assert err.startswith("svmax retrieval: stopped; go on with: svmax retrieval --dataset fonts")
        assert err.count("\n") == 1
        steps = [line["step"] for line in read_metrics(out) if line["split"] == "train"]
        assert steps == list(range(1, len(steps) + 1))
        assert read_checkpoint(out / "checkpoint.pt")["step"] == len(steps)
        command = [*SVMAX, *shlex.split(err.partition("go on with: ")[2])[1:]]


@pytest.mark.processes
@pytest.mark.parametrize("importing", [True, False])
def test_a_command_that_is_interrupted_before_it_has_begun_says_so_in_a_line(tmp_path, importing):
    """Also within an import, where an exception becomes another, or is lost in a callback."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException: raise ImportError\n"
    )
    stop = "__import__('interrupted')" if importing else "os.kill(os.getpid(), signal.SIGINT)"
    result = python(
        f"import os, signal, sys; from svmax_ops import cli; sys.path.insert(0, {str(tmp_path)!r});"
        f"from svmax_ops.backends.native import Cpu; Cpu.describe = lambda self: {stop}; sys.argv = ['svmax', 'info'];"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(cli.main())"
    )
    who = "svmax" if importing else "svmax info"
    assert (result.returncode, result.stderr) == (130, f"{who}: interrupted.\n")


def wait_for_steps(out: Path, process: subprocess.Popen[str], known: int) -> None:
    """Until the run has logged some lines more than it had."""
    deadline = time.monotonic() + 1800
    while not (out / "metrics.jsonl").exists() or len(read_metrics(out)) < known + 8:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = Progress(10, 0)
    progress.update(4, {"loss": "1.23", "spread": "0.500"})
    progress.bar.refresh()
    progress.say("step 4  evaluated")
    progress.close()
    text = capsys.readouterr().out
    assert "4/10" in text
    assert "it/s" in text
    assert "loss 1.23  spread 0.500" in text
    assert "step 4  evaluated\n" in text


def test_progress_is_plain_lines_elsewhere(capsys):
    progress = Progress(10, 2, plain_seconds=3600)
    for done in range(3, 11):
        progress.update(done, {"loss": "1.23", "spread": "0.500"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1  # the last step; the others came too soon after each other
    assert lines[0].startswith("step 10/10  loss 1.23  spread 0.500  ")
    assert lines[0].endswith(" it/s")
    often = Progress(10, 0, plain_seconds=0)
    often.update(1, {"loss": "1"})
    assert capsys.readouterr().out.startswith("step 1/10  loss 1  ")


def test_metrics_cut_off_in_mid_line_are_read_up_to_it(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_metrics_damaged_before_the_last_line_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"^line 2 of metrics\.jsonl is damaged \("):
        read_metrics(tmp_path)
