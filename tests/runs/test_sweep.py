"""Sweeps of tiny runs, and the report on runs whose numbers are known."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from svmax_ops.runs.environment import environment
from svmax_ops.runs.harness import is_finished
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.sweep import read_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study(small, tmp_path) -> Path:
    fixed = dict(zip((flag[2:] for flag in small[::2]), small[1::2], strict=True))
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"command": "retrieval", "fixed": fixed, "vary": {"regularizer": ["none", "svmax"]}}))
    return path


def test_the_demo_is_the_one_described():
    command, runs = read_study(STUDIES / "demo.yaml", Path("runs/demo"))
    assert command == "retrieval"
    assert [str(run.out) for run in runs] == [
        f"runs/demo/{loss}-{regularizer}"
        for loss in ("contrastive", "triplet", "npair")
        for regularizer in ("none", "svmax")
    ]
    for run in runs:
        assert (run.dataset, run.jitter, run.lr, run.iterations, run.seed) == ("strokes", "medium", 0.1, 600, 0)


def test_a_sweep_runs_all_then_nothing(svmax, study, tmp_path):
    out = tmp_path / "out"
    outcome = svmax("sweep", study, "--out", out, "--workers", 2)
    assert (outcome.code, outcome.err) == (0, "")
    assert is_finished(out / "none")
    assert is_finished(out / "svmax")
    assert "[svmax] SVMax took" in outcome.out
    threads = json.loads((out / "none" / "config.json").read_text())["machine"]["threads"]
    assert threads == max(1, len(os.sched_getaffinity(0)) // 2)
    assert "| contrastive | svmax " in outcome.out
    assert {path.name for path in out.iterdir()} == {"none", "svmax", "table.csv", "table.md", "picture.png"}
    outcome = svmax("sweep", study, "--out", out, "--workers", 2)
    assert "2 runs, 2 of them finished" in outcome.out
    assert "[svmax]" not in outcome.out
    assert outcome.code == 0


def test_a_failed_run_is_named_and_the_others_are_done(svmax, study, tmp_path):
    (tmp_path / "out" / "none").mkdir(parents=True)
    (tmp_path / "out" / "none" / "thesis.tex").write_text("years of work")
    outcome = svmax("sweep", study, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err == "svmax sweep: 1 of 2 runs failed: none; the reasons stand above.\n"
    assert f"[none] svmax retrieval: --out {tmp_path / 'out' / 'none'} is not empty;" in outcome.out
    assert is_finished(tmp_path / "out" / "svmax")
    assert [path.name for path in (tmp_path / "out" / "none").iterdir()] == ["thesis.tex"]


def test_a_signal_stops_every_run_and_the_same_command_goes_on(study, tmp_path):
    record = json.loads(study.read_text())
    record["fixed"] |= {"iterations": 400, "checkpoint-every": 400, "evaluate-every": 400}
    study.write_text(json.dumps(record))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "svmax_ops.cli", "sweep", str(study), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not all((out / name / "checkpoint.pt").exists() for name in ("none", "svmax")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"svmax sweep: stopped; go on with: svmax sweep {study} --out {out} --workers 2\n"
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    for name in ("none", "svmax"):
        assert "--resume" in result.stdout
        steps = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in steps if line["split"] == "train"] == list(range(1, 401))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("command: [", "cannot be read: "),
        ("- 1", "must have command (retrieval), fixed and vary, and nothing else."),
        ("command: gan", "must have command (retrieval), fixed and vary, and nothing else."),
        ("command: retrieval\nruns: 3", "must have command (retrieval), fixed and vary, and nothing else."),
        ("command: retrieval\nvary: {loss: npair}", "fixed must map options to values, vary options to lists"),
        ("command: retrieval\nfixed: {lr: fast}", "run run: "),
        ("command: retrieval\nvary: {lr: [0.1, 0]}", "run lr0: --lr must be a positive number; got 0.0."),
        ("command: retrieval\nvary: {loss: [triple]}", "run triple: invalid choice 'triple' for argument '--loss'."),
    ],
)
def test_a_study_that_does_not_fit_starts_nothing(svmax, tmp_path, text, message):
    (tmp_path / "study.yaml").write_text(text)
    outcome = svmax("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.startswith(f"svmax sweep: the study {tmp_path / 'study.yaml'}")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_study_and_bad_workers(svmax, study, tmp_path):
    outcome = svmax("sweep", "no.yaml", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "the study no.yaml cannot be read: " in outcome.err
    outcome = svmax("sweep", study, "--out", tmp_path / "out", "--workers", 0)
    assert (outcome.code, outcome.err) == (2, "svmax sweep: --workers must be at least 1; got 0.\n")


def finished_run(folder: Path, recall: float, **config: Any) -> None:
    """A run folder as training leaves it, with known numbers."""
    folder.mkdir(parents=True)
    full = RetrievalConfig(**config)
    values = {"svmax_weight": full.resolved().svmax_weight, "root": None}
    fields = {n: getattr(full, n) for n in full.__dataclass_fields__ if n not in ("out", "resume")} | values
    (folder / "config.json").write_text(json.dumps({"command": "svmax retrieval", "config": fields, **environment()}))
    measures = {"recall_at_8": 0.9, "nmi": 0.5, "spread": 0.7, "effective_rank": 3.0}
    measures |= {"singular_values": [2.0, 1.0, 0.5, 0.1]}
    lines = [
        {"step": 0, "split": "test", "of": "chance", "recall_at_1": 0.01, "recall_at_8": 0.08},
        {"step": 0, "split": "test", "of": "pixels", "recall_at_1": 0.55, **measures},
        {"step": 0, "split": "test", "of": "network", "recall_at_1": 0.2, **measures},
        {"step": 600, "split": "test", "of": "network", "recall_at_1": recall, **measures},
    ]
    if full.regularizer == "svmax":
        lines.append({"step": 600, "split": "cost", "step_ms": 40.0, "svmax_ms": 0.5, "torch_svd_ms": 2.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_report_averages_seeds_and_keeps_the_baselines(svmax, tmp_path):
    for seed, recall in enumerate((0.60, 0.70, 0.71)):
        finished_run(tmp_path / f"svmax{seed}", recall, seed=seed)
    for loss, recall in (("contrastive", 0.25), ("triplet", 0.35)):
        finished_run(tmp_path / f"none-{loss}", recall, regularizer="none", loss=loss)
    outcome = svmax("report", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        rows = {(row["loss"], row["regularizer"]): row for row in csv.DictReader(file)}
    assert set(rows) == {
        ("contrastive", "none"), ("triplet", "none"), ("contrastive", "svmax"),
        ("untrained", ""), ("pixels", ""), ("chance", ""),
    }  # fmt: skip
    mean = rows["contrastive", "svmax"]
    assert float(mean["recall_at_1"]) == pytest.approx(0.67)
    assert float(mean["recall_at_1_sd"]) == pytest.approx(0.0608, abs=1e-4)
    assert (mean["runs"], mean["svmax_ms"], mean["torch_svd_ms"]) == ("3", "0.5", "2.0")
    assert float(rows["pixels", ""]["recall_at_1"]) == 0.55
    assert float(rows["untrained", ""]["recall_at_1"]) == 0.2
    assert float(rows["chance", ""]["recall_at_1"]) == 0.01
    assert rows["chance", ""]["nmi"] == ""
    assert all(row["cpu"] and row["torch"] for row in rows.values())
    assert [row[:2] for row in rows][:3] == [("contrastive", "none"), ("contrastive", "svmax"), ("triplet", "none")]
    table = (tmp_path / "table.md").read_text()
    assert table in outcome.out
    assert "| contrastive | svmax       | 67.0 ± 6.1 |  90.0 | 0.50 |  0.700 |" in table
    assert "mean ± sd of up to 3 seeds" in table
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 1000


def test_report_names_what_was_varied_and_nothing_else(svmax, tmp_path):
    finished_run(tmp_path / "a", 0.5, lr=0.1)
    finished_run(tmp_path / "b", 0.6, lr=0.01)
    finished_run(tmp_path / "c", 0.7, lr=0.01, center=True)
    header = svmax("report", tmp_path / "a", tmp_path / "b", tmp_path / "c").out.splitlines()[0]
    assert [name.strip() for name in header.split("|")][1:5] == ["loss", "regularizer", "center", "lr"]
    assert (tmp_path / "picture.png").exists()


def test_report_refusals(svmax, tmp_path):
    assert svmax("report", tmp_path / "no").err == f"svmax report: {tmp_path / 'no'} is not a folder.\n"
    expected = f"svmax report: {tmp_path} holds no run (no config.json in it or in its folders).\n"
    assert svmax("report", tmp_path).err == expected
    finished_run(tmp_path / "a", 0.5)
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    outcome = svmax("report", tmp_path)
    assert (outcome.code, outcome.err) == (2, "svmax report: none of the runs has been evaluated yet.\n")
    assert "a: nothing evaluated yet, left out" in outcome.out
    (tmp_path / "a" / "config.json").write_text("{}")
    assert svmax("report", tmp_path).err.startswith(f"svmax report: the run in {tmp_path / 'a'} cannot be read: ")


def test_names_stand_for_options(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "command: retrieval\n"
        "vary:\n"
        "  seed: [3, 4]\n"
        "  form:\n"
        "    plain: {regularizer: none}\n"
        "    centred: {regularizer: svmax, center: true}\n"
    )
    _, runs = read_study(tmp_path / "study.yaml", tmp_path)
    assert [run.out.name for run in runs] == ["seed3-plain", "seed3-centred", "seed4-plain", "seed4-centred"]
    assert [(run.seed, run.regularizer, run.center) for run in runs[1:3]] == [(3, "svmax", True), (4, "none", False)]
