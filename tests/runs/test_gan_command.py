"""``svmax gan`` on a few steps: its folders, what it refuses, its report."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from svmax_ops.cli import main
from svmax_ops.runs.folders import read_run, read_runs, run_folders
from svmax_ops.runs.gan import figures
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.gan.measures import MEASURES
from svmax_ops.runs.gan.training import GanTraining
from svmax_ops.runs.harness import EVENTS, is_finished, read_metrics
from svmax_ops.runs.members import finished_members
from tests.runs.states import cut_off, equal, whole_and_cut

_FLAGS = "--steps 6 --batch-size 16 --latent-dim 4 --evaluate-every 3 --log-every 2 --checkpoint-every 2"
SMALL = _FLAGS.split()
OF_ROWS = ["--objective", "matched", "--matched-form", "absolute", "--unrolled-steps", "2"]
SEVERAL = ["gan", "--rows", "vanilla,unrolled-svmax", "--seeds", "0,3", *OF_ROWS, *SMALL, "--workers", "2"]
RUN_FILES = {"config.json", "metrics.jsonl", "checkpoint.pt", EVENTS, *figures.RUN_FIGURES}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """But for the measured time, which no two runs share."""
    return [{k: v for k, v in line.items() if k != "seconds_per_1000_steps"} for line in read_metrics(folder)]


def states(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {name: state[name] for name in ("step", "generator", "discriminator", "optimizers", "streams", "samples")}


def test_a_row_of_several_has_what_has_an_effect_on_it():
    regularized = {"objective": "matched", "matched_form": "absolute", "svmax_weight": 0.5}
    unrolled = {"unrolled_steps": 3, "unrolled_gradient": True}
    whole = GanConfig(seeds="0-2", logits=True, **regularized, **unrolled)
    whole.check()
    expected = {"vanilla": {}, "svmax": regularized, "unrolled": unrolled, "unrolled-svmax": regularized | unrolled}
    for row, settings in expected.items():
        of_row = whole.of_row(row)
        assert of_row == GanConfig(rows=row, seeds="0-2", logits=True, **settings)
        of_row.check()


def test_a_run_on_the_environments_backend_is_resumed_without_the_environment(svmax, monkeypatch, tmp_path):
    monkeypatch.setenv("SVMAX_BACKEND", "reference")
    out, step = tmp_path / "run", GanTraining.step

    def cut(self: GanTraining) -> None:
        if self.done == 4:
            raise MemoryError
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GanTraining, "step", cut)
        outcome = svmax("gan", "--rows", "svmax", *SMALL, "--out", out)
    assert outcome.code == 2
    assert json.loads((out / "config.json").read_text())["config"]["backend"] == "reference"
    resume = shlex.split(outcome.err.partition("go on from the last checkpoint with: svmax ")[2])
    monkeypatch.delenv("SVMAX_BACKEND")
    refused = svmax(*(word for word in resume if word not in ("--backend", "reference")))
    assert "was started with backend = 'reference', now it is 'auto';" in refused.err
    assert svmax(*resume).code == 0
    assert is_finished(out)


@pytest.mark.parametrize("row", ["svmax", "unrolled-svmax"])
def test_one_row_and_seed_are_a_run_folder(svmax, tmp_path, row):
    outcome = svmax("gan", "--rows", row, *SMALL, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    lines = read_metrics(tmp_path / "run")
    tests = [line for line in lines if line["split"] == "test"]
    assert [line["step"] for line in tests] == [1, 3, 6]
    assert {"row", "seed", "modes", "high_quality", "radius_99", "seconds_per_1000_steps"} <= set(tests[0])
    trains = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in trains] == [2, 4, 6]
    assert {"loss", "spread", "lr", "loss_discriminator", "regularizer"} <= set(trains[0])
    assert all((line["row"], line["seed"]) == (row, 0) for line in lines)


@pytest.mark.processes
@pytest.mark.parametrize(
    "extra", [(), ("--unrolled-gradient", "--logits", "--objective", "matched", "--mode-weights", "random")]
)
def test_a_stopped_run_goes_on_bit_for_bit(svmax, tmp_path, monkeypatch, extra):
    command = ["gan", "--rows", "unrolled-svmax", *SMALL, *extra]
    whole, cut = whole_and_cut(svmax, monkeypatch, tmp_path, GanTraining, command)
    assert lines_of(cut) == lines_of(whole)
    assert equal(states(cut), states(whole))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """Two rows with two seeds, two at a time."""
    out = tmp_path_factory.mktemp("several")
    assert main([*SEVERAL, "--out", str(out)]) == 0
    return out


@pytest.mark.processes
def test_several_rows_and_seeds_are_the_runs_that_each_would_be(svmax, several, tmp_path):
    members = ["vanilla-seed0", "unrolled-svmax-seed0", "vanilla-seed3", "unrolled-svmax-seed3"]
    assert {path.name for path in several.iterdir() if path.is_dir()} == set(members)
    assert lines_of(several) == [line for name in members for line in lines_of(several / name)]
    figures = {f"heat_maps-{of}{end}" for of in ("seed0", "seed3", "all-seeds") for end in (".png", ".svg")}
    assert {path.name for path in several.iterdir() if path.is_file()} == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "table.csv", "runs.csv", "table.md", *figures
    }  # fmt: skip
    for row, flags in (("vanilla", ()), ("unrolled-svmax", OF_ROWS)):
        one, member = tmp_path / row, several / f"{row}-seed3"
        assert svmax("gan", "--rows", row, "--seeds", "3", *flags, *SMALL, "--out", one).code == 0
        assert lines_of(one) == lines_of(member)
        assert equal(states(one), states(member))
        assert read_run(one).config == read_run(member).config
        assert {path.name for path in member.iterdir()} == RUN_FILES
    assert svmax(*SEVERAL, "--out", several).code == 2  # not empty
    again = svmax(*SEVERAL, "--out", several, "--resume")
    assert (again.code, "all 4 runs are done" in again.out) == (0, True)


def test_a_run_of_several_made_before_goes_on_and_is_reported(svmax, several, tmp_path):
    """A run then also kept what had no effect on its row."""
    out = tmp_path / "before"
    shutil.copytree(several, out)
    (out / "checkpoint.pt").unlink()
    before = {"objective": "matched", "matched_form": "absolute", "svmax_weight": 1.0, "unrolled_steps": 2}
    for seed in (0, 3):
        member = out / f"vanilla-seed{seed}"
        record = json.loads((member / "config.json").read_text())
        record["command"] = shlex.join([*record["command"].split(), *OF_ROWS])
        assert record["config"].keys() >= before.keys()
        (member / "config.json").write_text(json.dumps({**record, "config": record["config"] | before}))
        checkpoint = torch.load(member / "checkpoint.pt", weights_only=True)
        torch.save({**checkpoint, "config": checkpoint["config"] | before}, member / "checkpoint.pt")
    outcome = svmax(*SEVERAL, "--out", out, "--resume")
    assert (outcome.code, outcome.err) == (0, "")
    assert "4 runs, 4 of them finished" in outcome.out
    assert lines_of(out) == lines_of(several)
    for name in ("table.csv", "runs.csv", "table.md"):
        assert (out / name).read_bytes() == (several / name).read_bytes()


@pytest.mark.processes
def test_several_runs_cut_off_go_on_by_the_command_that_is_printed(svmax, tmp_path):
    flags = [*SMALL, "--steps", "400", "--checkpoint-every", "50", "--evaluate-every", "200"]
    command = ["gan", "--rows", "vanilla, svmax", *flags, "--workers", "2"]
    # On two cores either may be first.
    cut = cut_off(command, tmp_path / "all", ["vanilla-seed0", "svmax-seed0/checkpoint.pt"])
    assert cut.returncode == 130, cut.stderr
    assert "Traceback" not in cut.stdout + cut.stderr
    again = shlex.split(cut.stderr.partition("go on with: ")[2])
    assert again[:2] == ["svmax", "gan"]
    shutil.rmtree(tmp_path / "all" / "vanilla-seed0")  # made anew
    resumed = svmax(*again[1:])
    assert (resumed.code, resumed.err) == (0, "")
    expected = []
    for row in ("vanilla", "svmax"):
        assert svmax("gan", "--rows", row, *flags, "--out", tmp_path / row).code == 0
        expected += lines_of(tmp_path / row)
    assert lines_of(tmp_path / "all") == expected


def test_a_run_is_the_same_however_its_rows_and_weight_were_given(svmax, tmp_path):
    for rows, name in ((" svmax", "one"), ("vanilla, svmax", "several")):
        command = ["gan", *SMALL, "--out", tmp_path / name]
        assert svmax(*command, "--rows", rows, "--seeds", "0-0").code == 0
        again = svmax(*command, "--rows", rows.replace(" ", ""), "--svmax-weight", "0.01", "--resume")
        assert (again.code, "is finished" in again.out) == (0, True)


def test_the_report_has_every_seed_and_what_each_setting_changed(svmax, tmp_path):
    paper, relu = tmp_path / "paper", tmp_path / "relu"
    for seed in (0, 1):
        assert svmax("gan", "--rows", "svmax", "--seeds", seed, *SMALL, "--out", paper / f"seed{seed}").code == 0
    flags = ["--generator-activation", "relu", "--objective", "matched", "--matched-form", "absolute"]
    assert svmax("gan", "--rows", "svmax", *flags, *SMALL, "--out", relu).code == 0
    (tmp_path / "cut").mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "cut" / name).write_bytes((relu / name).read_bytes())
    outcome = svmax("report", paper, relu, tmp_path / "cut", "--out", tmp_path / "report")
    assert (outcome.code, outcome.err) == (0, "")
    note = f"\nLeft out:\n\n- `{tmp_path / 'cut'}` is not finished (step 6 of 6).\n"  # it has no checkpoint
    assert note in outcome.out
    assert (tmp_path / "report" / "table.md").read_text().endswith(note)
    assert "**lr 0.025" not in outcome.out
    assert "generator_activation relu, batch_size 16" in outcome.out
    assert "| svmax, matched, absolute " in outcome.out
    with (tmp_path / "report" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["step"]) for row in rows] == [(s, k) for s in ("0", "1", "0") for k in ("1", "3", "6")]
    last = [line for seed in (0, 1) for line in read_metrics(paper / f"seed{seed}") if line["split"] == "test"][2::3]
    with (tmp_path / "report" / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["s_2"]) == pytest.approx(sum(line["singular_values"][1] for line in last) / 2)
    assert float(first["radius_99_max"]) == pytest.approx(max(line["radius_99"] for line in last))
    assert (first["seeds"], second["seeds"], second["objective"]) == ("0 1", "0", "matched")
    figures = {path.name for path in (tmp_path / "report").iterdir() if path.suffix in (".png", ".svg")}
    assert len(figures) == 2 * (2 + 1 + 2)  # a figure a seed and one of all seeds, for each of the two settings
    assert all(name in outcome.out for name in figures)


def test_samples_that_are_not_finite_end_a_run(svmax, tmp_path):
    for flags in ((), ("--logits",)):
        command = ["gan", "--rows", "vanilla", *SMALL, "--lr", "1e30", *flags, "--out", tmp_path / f"run{len(flags)}"]
        outcome = svmax(*command)
        assert outcome.code == 2
        assert (
            outcome.err
            == "svmax gan: the networks' outputs are not finite any more; try a smaller --lr in a new --out.\n"
        )


def test_a_finished_run_that_lost_its_numbers_or_its_samples_is_left_out(several, tmp_path):
    shutil.copytree(several, tmp_path / "runs")
    lost, damaged = (tmp_path / "runs" / name for name in ("vanilla-seed0", "unrolled-svmax-seed3"))
    metrics = (lost / "metrics.jsonl").read_text().splitlines(keepends=True)
    (lost / "metrics.jsonl").write_text("".join(metrics[:-1]))
    (damaged / "checkpoint.pt").write_bytes((damaged / "checkpoint.pt").read_bytes()[:1000])
    found = read_runs(run_folders([tmp_path / "runs"]))
    members, chosen = finished_members(found, GanConfig, lambda config: config["lr"])
    assert [(member.row, member.seed) for member in members] == [("unrolled-svmax", 0), ("vanilla", 3)]
    assert chosen.left_out.keys() == {lost, damaged}
    assert chosen.left_out[lost] == "cannot be read: metrics.jsonl lacks the last evaluation"
    unreadable = f"cannot be read: {damaged / 'checkpoint.pt'} is truncated or no checkpoint of svmax_ops"
    assert chosen.left_out[damaged].startswith(unreadable)


def test_a_number_has_one_name_and_its_digits_in_progress_and_table(svmax, tmp_path):
    outcome = svmax("gan", "--rows", "svmax", *SMALL, "--out", tmp_path / "run")
    told = next(line for line in outcome.out.splitlines() if line.startswith("step 6  modes"))
    table = svmax("report", tmp_path / "run", "--out", tmp_path / "report").out.splitlines()
    names, cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (table[0], table[2]))
    shown = dict(zip(names, cells, strict=True))
    assert "high_quality" not in outcome.out
    for name in ("modes_wide", "modes", "high_quality", "radius_99", "seconds_per_1000_steps"):
        assert f"  {MEASURES[name].name}: {shown[MEASURES[name].heading]}" in told
    assert names[2:4] == ["modes within 0.5", "modes within 0.2"]


def test_a_report_of_several_runs_without_their_folders_is_refused(svmax, tmp_path):
    assert svmax("gan", "--rows", "vanilla", *SMALL, "--out", tmp_path).code == 0
    record = json.loads((tmp_path / "config.json").read_text())
    for name, several in (("rows", "vanilla,svmax"), ("seeds", "0-1")):
        changed = {**record, "config": {**record["config"], name: several}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        outcome = svmax("report", tmp_path)
        assert outcome.code == 2
        assert "is a run of several rows or seeds, and their folders are not in it any more." in outcome.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rows vanila", "--rows must be some of vanilla,svmax,unrolled,unrolled-svmax, each once; got vanila."),
        ("--rows svmax,svmax", "each once; got svmax,svmax."),
        (
            "--seeds 4-0",
            "ranges of up to 10,000 of them, like 0-4 or 0,2,7; got 4-0.",
        ),
        ("--seeds 0,0-2", "--seeds must name each seed once; got 0,0-2."),
        ("--seeds -1", "--seeds"),
        ("--objective eq2", "--objective must be eq1, bounded or matched; got 'eq2'"),
        ("--matched-form absolute", "--matched-form absolute needs --objective matched; got eq1."),
        ("--rows vanilla --svmax-weight 0.01", "--svmax-weight 0.01 needs svmax or unrolled-svmax in --rows;"),
        (
            "--rows vanilla,unrolled --objective matched --matched-form absolute",
            "--objective matched needs svmax or unrolled-svmax in --rows; got vanilla,unrolled.",
        ),
        (
            "--rows svmax --unrolled-steps 3",
            "--unrolled-steps 3 needs unrolled or unrolled-svmax in --rows; got svmax.",
        ),
        ("--rows vanilla,svmax --unrolled-gradient", "--unrolled-gradient needs unrolled or unrolled-svmax in"),
        ("--steps 0", "--steps must be at least 1; got 0."),
        ("--workers 0", "--workers must be at least 1; got 0."),
        ("--batch-size 1", "--batch-size must be at least 2, the dimensions of a sample; got 1."),
        ("--lr nan", "--lr must be a positive number; got nan."),
        ("--svmax-weight -1", "--svmax-weight"),
        ("--mode-weights 1,2", "--mode-weights must be uniform, random or 8 numbers between commas"),
        ("--mode-weights 0,0,0,0,0,0,0,0", "none negative and not all zero"),
        ("--backend cuda", "--backend cuda is not available: "),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(svmax, tmp_path, flags, message):
    outcome = svmax("gan", *flags.split(), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith("svmax gan: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
