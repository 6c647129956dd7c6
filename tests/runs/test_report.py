"""The report on runs whose numbers are known."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from svmax_ops.runs.environment import environment
from svmax_ops.runs.retrieval.config import RetrievalConfig


def finished_run(folder: Path, recall: float, **config: Any) -> None:
    """A run folder as training leaves it, with known numbers."""
    folder.mkdir(parents=True)
    full = RetrievalConfig(**config)
    values = {"svmax_weight": full.resolved().svmax_weight, "root": full.root and str(full.root)}
    fields = {n: getattr(full, n) for n in full.__dataclass_fields__ if n not in ("out", "resume")} | values
    (folder / "config.json").write_text(json.dumps({"command": "svmax retrieval", "config": fields, **environment()}))
    measures = {"recall_at_8": 0.9, "nmi": 0.5, "spread": 0.7, "effective_rank": 3.0}
    measures |= {"singular_values": [2.0, 1.0, 0.5, 0.1]}
    lines = [
        {"step": 0, "split": "test", "of": "chance", "recall_at_1": 0.01, "recall_at_8": 0.08},
        {"step": 0, "split": "test", "of": "pixels", "recall_at_1": 0.55, **measures},
        {"step": 0, "split": "test", "of": "network", "recall_at_1": 0.2, **measures},
        {"step": full.resolved().iterations, "split": "test", "of": "network", "recall_at_1": recall, **measures},
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
    svmax("report", tmp_path / "a", tmp_path / "b", tmp_path / "c")
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["loss", "regularizer", "lr", "runs"]
    assert [(row["regularizer"], row["lr"]) for row in rows[:3]] == [
        ("svmax", "0.1"), ("svmax", "0.01"), ("svmax-centred", "0.01"),
    ]  # fmt: skip
    assert (tmp_path / "picture.png").exists()


@pytest.mark.parametrize("varied", [{}, {"lr": 0.01}], ids=["over iterations", "over lr"])
def test_a_path_with_signs_of_markdown_and_mathematics_is_shown_as_it_is(svmax, tmp_path, varied):
    roots = {"a": r"/data/a|b", "b": r"/data/$\frac$"}
    for name, root in roots.items():
        finished_run(tmp_path / name, 0.5, dataset="folder", **({} if name == "a" else varied))
        record = json.loads((tmp_path / name / "config.json").read_text())
        record["config"]["root"] = root
        (tmp_path / name / "config.json").write_text(json.dumps(record))
    outcome = svmax("report", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "picture.png").exists()
    tables = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) == 1
    if not varied:
        assert any(r"/data/a\|b" in line for line in tables)


def test_report_refusals(svmax, tmp_path):
    assert svmax("report", tmp_path / "no").err == f"svmax report: {tmp_path / 'no'} is not a folder.\n"
    expected = f"svmax report: {tmp_path} holds no run (no config.json in it or in its folders).\n"
    assert svmax("report", tmp_path).err == expected
    finished_run(tmp_path / "a", 0.5)
    none = f"svmax report: no run can be reported: {tmp_path / 'a'}"
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    outcome = svmax("report", tmp_path)
    assert (outcome.code, outcome.err) == (2, f"{none} has not been evaluated yet.\n")
    (tmp_path / "a" / "config.json").write_text("{}")
    damaged = "cannot be read: config.json is damaged, or not of a run of svmax (no 'command')"
    assert svmax("report", tmp_path).err == f"{none} {damaged}.\n"
    finished_run(tmp_path / "b", 0.5)
    run_of(tmp_path / "c", "svmax gan --rows svmax")
    assert svmax("report", tmp_path).err == (
        "svmax report: report takes runs of one of retrieval, gan, embed2d at a time; got those of svmax retrieval"
        f" ({tmp_path / 'b'}), svmax gan ({tmp_path / 'c'}).\n"
    )
    assert svmax("report").err == "svmax report: RUN is missing; see svmax report --help.\n"
    assert not (tmp_path / "table.md").exists()


def run_of(folder: Path, command: str) -> None:
    """A run folder of another command, with the metrics and configuration of nothing."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"command": command, "config": {}, **environment()}))


def test_runs_without_a_folder_in_common_need_out(svmax, tmp_path, monkeypatch):
    finished_run(tmp_path / "a", 0.5)
    monkeypatch.setattr("os.path.commonpath", lambda paths: "/")
    expected = "svmax report: the runs have no folder in common to write the report to; give --out.\n"
    assert svmax("report", tmp_path / "a").err == expected


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def study(tmp_path) -> Path:
    """Two data sets, two learning rates, two regularizers and seeds; R@1 tells them apart."""
    kinds = itertools.product((("strokes", 600), ("fonts", 400)), (0.1, 0.01), ("none", "svmax"), (0, 1))
    for (dataset, iterations), lr, regularizer, seed in kinds:
        recall = 0.1 * (dataset == "strokes") + 2 * lr + 0.3 * (regularizer == "svmax") + 0.02 * seed
        name = f"{dataset}-{lr}-{regularizer}-{seed}"
        options = {"dataset": dataset, "iterations": iterations, "lr": lr, "regularizer": regularizer, "seed": seed}
        finished_run(tmp_path / "runs" / name, recall, **options)
    return tmp_path / "runs"


def test_learning_rates_stand_side_by_side_in_one_table_for_each_data_set(svmax, study):
    text = svmax("report", study).out
    assert [line for line in text.splitlines() if line.startswith("**")] == ["**fonts**", "**strokes**"]
    fonts, strokes = text.split("**strokes**")
    header, _, none, regularized = (line.split("|")[1:-1] for line in fonts.splitlines() if line.startswith("|"))
    rates = ["lr 0.1: R@1 %", "R@8 %", "NMI", "spread", "lr 0.01: R@1 %", "R@8 %", "NMI", "spread"]
    assert [cell.strip() for cell in header] == ["loss", "regularizer", *rates, "runs"]
    assert [none[i].strip() for i in (0, 1, 2, 6, 10)] == ["contrastive", "none", "21.0 ± 1.4", "3.0 ± 1.4", "2"]
    assert [regularized[i].strip() for i in (1, 2, 6)] == ["svmax", "51.0 ± 1.4", "33.0 ± 1.4"]
    assert "| contrastive | svmax       |    61.0 ± 1.4 |" in strokes
    assert "untrained network: R@1 % 20.0, R@8 % 90.0, NMI 0.50, spread 0.700; raw pixels: R@1 % 55.0," in strokes
    assert "After 400, 600 iterations; mean ± sd of up to 2 seeds." in text


def test_every_run_is_in_runs_csv(svmax, study):
    svmax("report", study)
    rows = lines_of(study / "runs.csv")
    assert len(rows) == 16
    found = {(row["dataset"], row["lr"], row["regularizer"], row["seed"]): float(row["recall_at_1"]) for row in rows}
    assert len(found) == 16
    assert found["strokes", "0.1", "svmax", "1"] == pytest.approx(0.62)
    assert all(row["commit"] and row["nmi"] and row["spread"] for row in rows)


def test_a_missing_seed_is_told_in_its_row(svmax, study):
    (study / "fonts-0.01-none-1" / "config.json").unlink()
    rows = [line for line in svmax("report", study).out.splitlines() if line.endswith("| 2, 1 |")]
    assert len(rows) == 1


def test_runs_under_way_are_left_out_and_named(svmax, study):
    metrics = study / "fonts-0.01-none-1" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    outcome = svmax("report", study)
    note = f"\nLeft out:\n\n- `{metrics.parent}` is not finished (step 0 of 400).\n"
    assert note in outcome.out
    assert (study / "table.md").read_text().endswith(note)
    assert len(lines_of(study / "runs.csv")) == 15


def test_runs_of_an_earlier_version_belong_to_the_same_group(svmax, tmp_path):
    """Its config.json lacks the fields that have been added since."""
    for seed in range(2):
        finished_run(tmp_path / str(seed), 0.5 + 0.1 * seed, seed=seed)
    record = json.loads((tmp_path / "0/config.json").read_text())
    for name in ("network", "weights", "npair_l2", "autocast", "channels_last", "check_counts", "device", "workers"):
        del record["config"][name]
    (tmp_path / "0/config.json").write_text(json.dumps(record))
    svmax("report", tmp_path)
    assert [row["runs"] for row in lines_of(tmp_path / "table.csv") if row["loss"] == "contrastive"] == ["2"]


def test_batch_sizes_and_dimensions_get_a_picture_of_their_own(svmax, tmp_path):
    for batch_size, dim, regularizer in itertools.product((72, 144), (64, 128), ("none", "svmax")):
        name = f"{batch_size}-{dim}-{regularizer}"
        finished_run(tmp_path / name, 0.5, batch_size=batch_size, dim=dim, regularizer=regularizer)
    assert svmax("report", tmp_path).code == 0
    rows = lines_of(tmp_path / "table.csv")
    assert len({(row["batch_size"], row["dim"]) for row in rows if row["loss"] == "contrastive"}) == 4
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.height > 900  # R@1 and spread


def test_baselines_are_told_apart_by_what_they_depend_on_and_count_a_seed_once(svmax, tmp_path):
    """The untrained network by b and d, pixels (their spread) by b, chance by neither."""
    for batch_size, dim, regularizer, seed in itertools.product((72, 144), (64, 128), ("none", "svmax"), (0, 1)):
        folder = tmp_path / f"{batch_size}-{dim}-{regularizer}-{seed}"
        finished_run(folder, 0.5, batch_size=batch_size, dim=dim, regularizer=regularizer, seed=seed)
        change(folder, "network", 0, recall_at_1=dim / 1000 + seed / 10)
    assert svmax("report", tmp_path).code == 0
    rows = lines_of(tmp_path / "table.csv")
    untrained = [row for row in rows if row["loss"] == "untrained"]
    assert [(row["batch_size"], row["dim"], row["runs"]) for row in untrained] == [
        ("144", "128", "2"), ("144", "64", "2"), ("72", "128", "2"), ("72", "64", "2"),
    ]  # fmt: skip
    assert [float(row["recall_at_1"]) for row in untrained] == pytest.approx([0.178, 0.114, 0.178, 0.114])
    assert float(untrained[0]["recall_at_1_sd"]) == pytest.approx(0.1 / 2**0.5)
    assert [row["batch_size"] for row in rows if row["loss"] == "pixels"] == ["144", "72"]
    assert [row["loss"] for row in rows].count("chance") == 1


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.01)], ids=str)
def test_recalls_are_those_that_were_measured(svmax, tmp_path, rates):
    """Stanford Online Products has R@1, 10, 100 and 1000. The table beside the paper's takes the K nearest to 8."""
    for lr in rates:
        finished_run(tmp_path / str(lr), 0.5, dataset="sop", lr=lr, iterations=600)
        for of in ("chance", "pixels", "network"):
            change(tmp_path / str(lr), of, recall_at_8=None, recall_at_10=0.6, recall_at_100=0.7, recall_at_1000=0.8)
    header = next(line for line in svmax("report", tmp_path).out.splitlines() if line.startswith("| loss"))
    shown = [cell.strip() for cell in header.split("|") if "R@" in cell]
    if len(rates) == 1:
        assert shown == ["R@1 %", "R@10 %", "R@100 %", "R@1000 %"]
    else:
        assert shown == ["lr 0.1: R@1 %", "R@10 %", "lr 0.01: R@1 %", "R@10 %"]
    assert float(lines_of(tmp_path / "table.csv")[0]["recall_at_1000"]) == 0.8
    assert list(lines_of(tmp_path / "runs.csv")[0])[-8:-4] == [f"recall_at_{k}" for k in (1, 10, 100, 1000)]


def test_weights_of_spread_out_have_a_table_each(svmax, tmp_path):
    for weight, lr in itertools.product((1.0, 2.0), (0.1, 0.01)):
        options = {"regularizer": "spread-out", "spread_out_weight": weight, "lr": lr}
        finished_run(tmp_path / f"{weight}-{lr}", weight / 10 + lr, **options)
    text = svmax("report", tmp_path).out
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**spread_out_weight 1.0**", "**spread_out_weight 2.0**"]


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.01)], ids=str)
def test_a_name_with_dollars_is_drawn_as_it_is(svmax, tmp_path, rates):
    """Between two of them matplotlib would read a formula, and this is none."""
    for root, lr in itertools.product(("/data/a$_$", "/data/b$^$"), rates):
        finished_run(tmp_path / f"{root[-4:]}{lr}", 0.5, dataset="folder", root=Path(root), lr=lr)
    outcome = svmax("report", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "picture.png").exists()


def change(folder: Path, of: str, step: int | None = None, **measures: float | None) -> None:
    """Other numbers in the evaluations of ``of``, at ``step`` or at all; None takes one away."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for line in lines:
        if line.get("of") == of and step in (None, line["step"]):
            line |= measures
            for name in [name for name, value in measures.items() if value is None]:
                del line[name]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
