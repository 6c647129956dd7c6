"""Which runs a report is of: each once, whole and finished; what is left out is named with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.folders import read_runs, run_folders
from svmax_ops.runs.retrieval.report.groups import Run, baseline_levels, collect, group
from tests.runs.test_report import change, finished_run, lines_of


def chosen(*paths: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs that a report of these folders is of, and what it leaves out."""
    runs, found = collect(read_runs(run_folders(paths)))
    return runs, found.left_out


def test_a_run_given_twice_or_copied_is_one_seed(svmax, tmp_path):
    for seed in range(2):
        finished_run(tmp_path / "runs" / f"seed{seed}", 0.5 + seed / 10, seed=seed)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "runs" / "seed1", copy)
    given = [tmp_path / "runs", tmp_path / "runs" / "seed0", tmp_path / "runs" / "." / "seed1", copy]
    outcome = svmax("report", *given, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    rows = {row["loss"]: row for row in lines_of(tmp_path / "out" / "table.csv")}
    assert {name: row["runs"] for name, row in rows.items()} == dict.fromkeys(rows, "2")
    assert "mean ± sd of up to 2 seeds" in outcome.out
    assert len(lines_of(tmp_path / "out" / "runs.csv")) == 2
    note = f"\nLeft out:\n\n- `{copy}` is the same run as {tmp_path / 'runs' / 'seed1'}.\n"
    assert note in outcome.out
    assert (tmp_path / "out" / "table.md").read_text().endswith(note)


def test_a_second_run_of_a_seed_is_left_out_and_its_other_numbers_are_told(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    finished_run(first, 0.5)
    finished_run(second, 0.6, log_every=5)
    finished_run(third, float("nan"), seed=1)
    shutil.copytree(third, tmp_path / "d")
    runs, left_out = chosen(tmp_path)
    assert [run.path for run in runs] == [first, third]
    assert left_out == {
        second: f"is the same run as {first}, but came to other numbers",
        tmp_path / "d": f"is the same run as {third}",
    }


def test_a_finished_run_counts_whatever_stands_before_it(tmp_path):
    finished_run(tmp_path / "z", 0.5)
    shutil.copytree(tmp_path / "z", tmp_path / "a")
    drop_last(tmp_path / "a", 2)
    runs, left_out = chosen(tmp_path)
    assert [run.path.name for run in runs] == ["z"]
    assert left_out == {tmp_path / "a": "is not finished (step 0 of 600)"}


def drop_last(folder: Path, count: int) -> None:
    """Lines of its metrics: the cost and the evaluation after the last step, and so on."""
    path = folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-count]))


@pytest.mark.parametrize(
    ("count", "reason"),
    [(2, "is not finished (step 0 of 600)"), (3, "has not been evaluated yet"), (5, "has not been evaluated yet")],
)
def test_a_run_that_is_not_finished_is_no_report_by_itself(svmax, tmp_path, count, reason):
    finished_run(tmp_path / "run", 0.5)
    drop_last(tmp_path / "run", count)
    outcome = svmax("report", tmp_path / "run")
    assert (outcome.code, outcome.err) == (
        2, f"svmax report: no run can be reported: {tmp_path / 'run'} {reason}.\n"
    )  # fmt: skip
    assert not (tmp_path / "run" / "table.md").exists()


def test_a_refusal_names_the_first_three(tmp_path):
    for seed in range(5):
        finished_run(tmp_path / f"seed{seed}", 0.5, seed=seed)
        (tmp_path / f"seed{seed}" / "metrics.jsonl").unlink()
    with pytest.raises(UserError) as refused:
        chosen(tmp_path)
    named = "; ".join(f"{tmp_path / f'seed{seed}'} has not been evaluated yet" for seed in range(3))
    assert str(refused.value) == f"no run can be reported: {named}; and 2 more."


def rewrite(name: str, new: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(new((folder / name).read_text())) and None


def with_value(name: str, value: Any) -> Callable[[str], str]:
    def new(text: str) -> str:
        record = json.loads(text)
        return json.dumps({**record, "config": {**record["config"], name: value}})

    return new


def folderlike(path: Path) -> None:
    path.unlink()
    path.mkdir()


NOT_OURS = "config.json is damaged, or not of a run of svmax"
DAMAGES = {
    "empty": (rewrite("config.json", lambda text: ""), NOT_OURS),
    "foreign": (rewrite("config.json", lambda text: '{"architectures": ["Bert"]}'), f"{NOT_OURS} (no 'command')"),
    "list": (rewrite("config.json", lambda text: "[]"), NOT_OURS),
    "no versions": (rewrite("config.json", lambda text: text.replace('"versions"', '"v"')), "(no 'versions')"),
    "no data set": (rewrite("config.json", with_value("dataset", "birds")), "no 'birds'"),
    "a value of another type": (rewrite("config.json", with_value("loss", ["triplet"])), "unhashable type: 'list'"),
    "bytes": (lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff\xfe") and None, "can't decode byte"),
    "a line": (rewrite("metrics.jsonl", lambda text: "{\n" + text), "line 1 of metrics.jsonl is damaged"),
    "a number": (rewrite("metrics.jsonl", lambda text: "3\n" + text), "line 1 of metrics.jsonl is not one of a run"),
    "no chance": (rewrite("metrics.jsonl", lambda text: text.partition("\n")[2]), "lacks the evaluation of chance"),
    "not a file": (lambda folder: folderlike(folder / "metrics.jsonl"), "metrics.jsonl: Is a directory"),
}


def test_a_damaged_run_is_left_out_and_named(tmp_path):
    finished_run(tmp_path / "whole", 0.5)
    for seed, (name, (damage, _)) in enumerate(DAMAGES.items(), 1):
        finished_run(tmp_path / name, 0.5, seed=seed)
        damage(tmp_path / name)
    runs, left_out = chosen(tmp_path)
    assert [run.path.name for run in runs] == ["whole"]
    assert {path.name for path in left_out} == set(DAMAGES)
    for name, (_, reason) in DAMAGES.items():
        assert left_out[tmp_path / name].startswith("cannot be read: ")
        assert reason in left_out[tmp_path / name]


def test_the_level_of_a_baseline_is_the_mean_over_the_seeds(tmp_path):
    """Of the untrained network as of the others; a seed counts once, however many rows it is in."""
    for seed, regularizer in ((0, "none"), (0, "svmax"), (1, "svmax")):
        finished_run(tmp_path / f"{regularizer}{seed}", 0.5, seed=seed, regularizer=regularizer)
        change(tmp_path / f"{regularizer}{seed}", "network", 0, recall_at_1=0.2 + 0.1 * seed)
    runs, _ = chosen(tmp_path)
    assert baseline_levels(group(runs)) == pytest.approx({"untrained": 0.25, "pixels": 0.55, "chance": 0.01})
