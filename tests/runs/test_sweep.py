"""Sweeps of tiny runs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import is_finished, read_metrics
from svmax_ops.runs.sweep import read_study
from tests.runs.states import cut_off

NOT_A_STUDY = "must have command (retrieval, gan, embed2d), fixed and vary, and nothing else."
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


@pytest.mark.processes
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
    assert {path.name for path in out.iterdir()} == {
        "none",
        "svmax",
        "table.csv",
        "runs.csv",
        "table.md",
        "picture.png",
    }
    outcome = svmax("sweep", study, "--out", out, "--workers", 2)
    assert "2 runs, 2 of them finished" in outcome.out
    assert "[svmax]" not in outcome.out
    assert outcome.code == 0


@pytest.mark.processes
def test_a_sweep_of_gans_is_reported(svmax, tmp_path):
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    fixed = {"steps": 2, "batch-size": 16, "latent-dim": 4, "log-every": 1}
    rows = {"vanilla": {"rows": "vanilla"}, "matched": {"rows": "svmax", "objective": "matched", "svmax-weight": 0.5}}
    study.write_text(json.dumps({"command": "gan", "fixed": fixed, "vary": {"row": rows}}))
    outcome = svmax("sweep", study, "--out", out, "--workers", 2)
    assert (outcome.code, outcome.err) == (0, "")
    drawn = {f"heat_maps-{of}{end}" for of in ("seed0", "all-seeds") for end in (".png", ".svg")}
    written = {"table.csv", "runs.csv", "table.md", *drawn}
    assert {path.name for path in out.iterdir()} == {*rows, *written}

    outcome = svmax("report", out, "--out", tmp_path / "report")
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.name for path in (tmp_path / "report").iterdir()} == written
    for name in written:
        assert (tmp_path / "report" / name).read_bytes() == (out / name).read_bytes()
    printed = [line.split("|")[1:3] for line in outcome.out.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in cells] for cells in printed[2:]] == [["vanilla", ""], ["svmax, matched", "0.5"]]
    with (out / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["row"], row["objective"], row["seeds"], row["steps"]) for row in table] == [
        ("vanilla", "", "0", "2"),
        ("svmax", "matched", "0", "2"),
    ]
    for row, name in zip(table, rows, strict=True):
        (last,) = (line for line in read_metrics(out / name) if (line["split"], line["step"]) == ("test", 2))
        assert (float(row["radius_99"]), float(row["s_2"])) == (last["radius_99"], last["singular_values"][1])
    with (out / "runs.csv").open(newline="") as file:
        assert [(row["row"], row["step"]) for row in csv.DictReader(file)] == [
            (row, step) for row in ("vanilla", "svmax") for step in ("1", "2")
        ]


@pytest.mark.processes
def test_a_failed_run_is_named_and_the_others_are_done(svmax, study, tmp_path):
    (tmp_path / "out" / "none").mkdir(parents=True)
    (tmp_path / "out" / "none" / "thesis.tex").write_text("years of work")
    outcome = svmax("sweep", study, "--out", tmp_path / "out")
    assert outcome.code == 2
    again = f"svmax sweep {study} --out {tmp_path / 'out'}"
    failed = "svmax sweep: 1 of 2 runs failed: none; what they said stands above, go on with:"
    assert outcome.err == f"{failed} {again}\n"
    assert f"[none] svmax retrieval: --out {tmp_path / 'out' / 'none'} is not empty;" in outcome.out
    assert is_finished(tmp_path / "out" / "svmax")
    assert [path.name for path in (tmp_path / "out" / "none").iterdir()] == ["thesis.tex"]


@pytest.mark.further  # by the same code as several runs of a GAN, see test_gan_command.py
@pytest.mark.processes
def test_a_signal_stops_every_run_and_the_same_command_goes_on(svmax, study, tmp_path):
    record = json.loads(study.read_text())
    record["fixed"] |= {"iterations": 120, "checkpoint-every": 120, "evaluate-every": 120}
    study.write_text(json.dumps(record))
    out = tmp_path / "out"
    command = ["sweep", str(study), "--workers", "2"]
    cut = cut_off(command, out, ["none/checkpoint.pt", "svmax/checkpoint.pt"])
    assert cut.returncode == 130, cut.stderr
    assert cut.stderr == f"svmax sweep: stopped; go on with: svmax sweep {study} --out {out} --workers 2\n"
    outcome = svmax(*command, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    for name in ("none", "svmax"):
        assert "--resume" in outcome.out
        steps = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in steps if line["split"] == "train"] == list(range(1, 121))


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_can_be_run(path):
    _, runs = read_study(path, Path("runs"))
    assert len({run.out for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("command: [", "cannot be read: "),
        ("- 1", NOT_A_STUDY),
        ("command: bench", NOT_A_STUDY),
        ("command: retrieval\nruns: 3", NOT_A_STUDY),
        ("command: retrieval\nvary: {loss: npair}", "fixed must map options to values, vary options to lists"),
        ("command: retrieval\nfixed: {lr: fast}", "run run: "),
        ("command: retrieval\nvary: {lr: [0.1, 0]}", "run lr0: --lr must be a positive number; got 0.0."),
        (
            "command: retrieval\nvary: {loss: [triple]}",
            "run triple: --loss must be contrastive, triplet, npair or angular; got 'triple'; did you mean triplet.",
        ),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vary: {seed: []}", ": vary must have at least one value for seed; got []."),
        ("vary: {form: {}}", ": vary must have at least one value for form; got {}."),
        ("fixed: {root: []}", ", run run: --root must be one value, a path; got []."),
        ("fixed: {seed: [1, 2]}", ", run run: --seed must be one value, a whole number; got [1, 2]."),
        ("fixed: {lr: {a: 1}}", ", run run: --lr must be one value, a number; got {'a': 1}."),
        ("fixed: {weights: no}", ", run run: --weights must be a text; got false (YAML reads yes, no, on and off so,"),
        ("fixed: {bounded: 1}", ", run run: --bounded must be true or false; got 1."),
        ("fixed: {bath_size: 1}", ", run run: unknown option --bath-size; did you mean --batch-size."),
        ("fixed: {2: 1}", ", run run: unknown option --2."),
        ("fixed: {out: x}", ": out is not an option of a study;"),
        ("vary: {form: {a: {resume: true}}}", ": resume is not an option of a study;"),
        ("vary: {seed: [0, 1, 0]}", " has the same run twice, as seed0 and as seed0; give each value once."),
        ("vary: {lr: [0.1, 1e-1]}", " has the same run twice, as lr0.1 and as 1e-1; give each value once."),
        ("vary: {svmax_weight: [1, null]}", " has the same run twice, as svmax_weight1 and as svmax_weightNone;"),
        (
            "vary: {form: {a|b: {seed: 1}, a$b: {seed: 2}}}",
            " has two runs whose folder would be a_b; give their values",
        ),
        ("fixed: [1]", ": fixed must map options to values, vary options to lists"),
        ("fixed: {seed: 2024-13-45}", " cannot be read: month must be in 1..12."),
    ],
)
def test_what_a_study_cannot_mean_is_one_sentence(svmax, tmp_path, text, message):
    (tmp_path / "study.yaml").write_text(f"command: retrieval\n{text}")
    outcome = svmax("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith(f"svmax sweep: the study {tmp_path / 'study.yaml'}{message}")
    assert not (tmp_path / "out").exists()


def test_a_command_that_is_a_list_is_no_study(svmax, tmp_path):
    (tmp_path / "study.yaml").write_text("command: [gan]")
    assert NOT_A_STUDY in svmax("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out").err


def folders(study: str, tmp_path: Path) -> list[str]:
    """Of the runs of a study, in the folder that is to have them; none of them leads out of it."""
    (tmp_path / "study.yaml").write_text(study)
    _, runs = read_study(tmp_path / "study.yaml", tmp_path / "out")
    assert all(run.out.resolve().parent == tmp_path / "out" for run in runs)
    return [run.out.name for run in runs]


def test_a_flag_may_be_at_its_default(tmp_path):
    study = "command: retrieval\nfixed: {bounded: true}\nvary: {center: [false, true]}"
    assert folders(study, tmp_path) == ["centerFalse", "centerTrue"]
    _, runs = read_study(tmp_path / "study.yaml", tmp_path)
    assert [(run.bounded, run.center) for run in runs] == [(True, False), (True, True)]


def test_a_value_with_a_path_names_a_folder_in_the_sweeps_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = "[/data/birds, ../birds, ~/cars, 'a $x$ | b', .., .hidden]"
    study = f"command: retrieval\nfixed: {{dataset: folder}}\nvary: {{root: {values}}}"
    assert folders(study, tmp_path) == ["data_birds", "birds", "cars", "a_x_b", "root", "hidden"]
    _, runs = read_study(tmp_path / "study.yaml", tmp_path)
    assert [str(run.root) for run in runs[:3]] == ["/data/birds", "../birds", str(tmp_path / "cars")]
    with pytest.raises(UserError, match="has two runs whose folder would be data_birds; give their values names"):
        folders(study.replace("../", "data/"), tmp_path)


def test_names_may_be_numbers(tmp_path):
    assert folders("command: gan\nvary: {seeds: {2: {seeds: 1}, 2.5: {seeds: 2}, yes: {seeds: 3}}}", tmp_path) == [
        "2", "2.5", "True",
    ]  # fmt: skip


def test_missing_study_and_bad_workers(svmax, study, tmp_path):
    outcome = svmax("sweep", "no.yaml", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "the study no.yaml cannot be read: " in outcome.err
    outcome = svmax("sweep", study, "--out", tmp_path / "out", "--workers", 0)
    assert (outcome.code, outcome.err) == (2, "svmax sweep: --workers must be at least 1; got 0.\n")


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
