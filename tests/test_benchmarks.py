"""The benchmark commands write the rows they promise, and the README's tables come from them."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch

import svmax_ops
from benchmarks import accuracy, evaluation_scale, overhead, readme, run, step_share
from benchmarks.machine import RESULTS, read_rows
from benchmarks.timing import take_turns


def command(monkeypatch, module, *arguments) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


def test_speed_rows_and_picture(monkeypatch, tmp_path, capsys):
    out = tmp_path / "cpu" / "speed"
    command(monkeypatch, run, "--cases", "32x16,64 of 64x32", "--threads", "1", "--rounds", "1", "--out", out)
    result = json.loads(out.with_suffix(".json").read_text())
    assert {"device", "cpu", "cores", "instruction_set", "torch", "commit", "load"} <= set(result["machine"])
    assert len(result["rows"]) == 2 * 2 * 4
    for row in result["rows"]:
        assert 0 < row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
        assert row["ratio"] > 0
        assert row["error"] < 1e-5  # float32 against float64
    assert all(row["ratio"] == 1 for row in result["rows"] if row["provider"] == "torch.linalg.svdvals")
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result["rows"])
    assert rows[0]["commit"] == result["machine"]["commit"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "svmax_loss" in capsys.readouterr().out
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert "| 32x16 " in readme.speed()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cases", "7x7"], "no case named 7x7; there are 144x128"),
        (["--threads", "many"], "must be numbers or 'default', got 'many'"),
        (["--rounds", "0"], "must be at least 1"),
    ],
)
def test_wrong_arguments(monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, run, *arguments)
    assert said in capsys.readouterr().err


def test_accuracy_rows(monkeypatch, tmp_path):
    command(monkeypatch, accuracy, "--out", tmp_path / "accuracy")
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    available = sum(reason == "ok" for reason in svmax_ops.available_backends().values())
    assert len(rows) == 15 * (1 + available)
    for row in rows:
        if row["provider"] != accuracy.TORCH:
            assert row["error_of_nuclear_norm"] <= 2e-7
            assert row["excess_of_norm"] <= 1e-5


def test_overhead_rows(native, monkeypatch, tmp_path):
    command(monkeypatch, overhead, "--rounds", 1, "--out", tmp_path / "overhead")
    rows = json.loads((tmp_path / "overhead.json").read_text())["rows"]
    assert all(row["median_us"] > 0 for row in rows)


def test_step_share_rows(monkeypatch, tmp_path, capsys):
    command(monkeypatch, step_share, "--cases", "small", "--rounds", 2, "--out", tmp_path / "step_share")
    without, ours, peer = rows = json.loads((tmp_path / "step_share.json").read_text())["rows"]
    assert [row["term"] for row in rows] == ["none", "svmax_ops", "torch.linalg.svdvals"]
    assert {row["shape"] for row in rows} == {"144x64"}
    assert without["share"] == 0
    for row in (ours, peer):
        assert 0 < row["term_p20_ms"] <= row["term_median_ms"] <= row["term_p80_ms"]
        assert row["share"] == pytest.approx(row["term_median_ms"] / row["step_median_ms"], rel=0.05)
    assert "| small | svmax_ops " in capsys.readouterr().out
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert f"**{step_share.percent(ours['share'])}**" in readme.step_share()


def test_the_steps_that_are_timed_differ_by_their_term():
    case = step_share.Case("small", (1, 16, 16), 8, 1)
    weights = {}
    for name, term in step_share.TERMS.items():
        training = step_share.Training(case)
        assert training.step(term).shape == (144, 8)
        weights[name] = training.network.embedding.weight.detach()
    before = step_share.Training(case).network.embedding.weight.detach()
    moved = [weights["none"] - before, *(weights[name] - weights["none"] for name in list(weights)[1:])]
    assert all(difference.norm() > 1e-4 for difference in moved)


def test_evaluation_rows(monkeypatch, tmp_path):
    """Exact at any size of the differences, where a float32 search is not; and the README says both."""
    monkeypatch.setattr(evaluation_scale, "measure_apart", lambda *row: evaluation_scale.measure(*row[:4]))
    out = tmp_path / "evaluation_scale"
    command(monkeypatch, evaluation_scale, "--pictures", 1000, "--classes", 200, "--out", out)
    rows = {(row["measure"], row["embeddings"]): row for row in read_rows(out)[1]}
    assert len(rows) == sum(len(kinds) for _, kinds in evaluation_scale.MEASURES.values())
    recall = {key: row["recall_at_1"] for key, row in rows.items()}
    right = recall["R@K, NMI and spectra", evaluation_scale.SPREAD]
    assert 0.5 < right < 1
    assert recall["R@K", evaluation_scale.SPREAD] == right
    assert recall["R@K, faiss search in float32", evaluation_scale.SPREAD] == pytest.approx(right, abs=0.002)
    assert recall["R@K", evaluation_scale.COLLAPSED] == pytest.approx(right, abs=0.02)
    assert recall["R@K, faiss search in float32", evaluation_scale.COLLAPSED] < 0.1
    assert recall["R@K", evaluation_scale.CLUMPS] > right - 0.02
    assert 0.5 < rows["R@K, NMI and spectra", evaluation_scale.SPREAD]["nmi"] < 1
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert f"finds {recall['R@K, faiss search in float32', evaluation_scale.COLLAPSED]:.1%}" in readme.evaluation()


@pytest.mark.processes
def test_evaluation_is_measured_in_a_process_of_its_own():
    held = torch.ones(2**30 // 4)  # 1 GiB, here
    row = evaluation_scale.measure_apart("class lists", evaluation_scale.SPREAD, 3000, 600, threads=2)
    assert held.sum() > 0
    assert row["threads"] == 2
    assert 0.1 < row["peak_gib"] < 1


def test_kept_evaluation_is_that_of_the_largest_data_set_and_within_its_aim():
    rows = {(row["measure"], row["embeddings"]): row for row in read_rows(RESULTS / "evaluation_scale")[1]}
    assert {(row["pictures"], row["classes"], row["threads"]) for row in rows.values()} == {(60_502, 11_316, 1)}
    whole = rows["R@K, NMI and spectra", evaluation_scale.SPREAD]
    assert whole["peak_gib"] < 4
    assert whole["cpu_seconds"] < 180
    assert rows["class lists", evaluation_scale.SPREAD]["seconds"] < 5


def test_turns_are_interleaved():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = take_turns(calls, rounds=4, round_seconds=1e-9)
    assert set(timings) == {"a", "b"}
    rounds = "".join(order[6:])  # after three calls of each to choose how often a round repeats
    assert rounds == "aabbbbaaaabbbbaa"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "TABLES", {"speed": lambda: "| new |"})
    return tmp_path / "README.md"


def test_readme_is_written_between_its_markers(project, monkeypatch, capsys):
    project.write_text("a\n<!-- begin speed -->\n| old |\n<!-- end speed -->\nb\n")
    monkeypatch.setattr(sys, "argv", ["readme", "--check"])
    assert readme.main() == 1
    assert "python -m benchmarks.readme" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["readme"])
    assert readme.main() == 0
    assert project.read_text() == "a\n<!-- begin speed -->\n| new |\n<!-- end speed -->\nb\n"
    monkeypatch.setattr(sys, "argv", ["readme", "--check"])
    assert readme.main() == 0


def test_readme_without_markers_or_results(project, monkeypatch, capsys, tmp_path):
    project.write_text("nothing\n")
    monkeypatch.setattr(sys, "argv", ["readme"])
    assert readme.main() == 2
    assert "<!-- begin speed -->" in capsys.readouterr().err
    monkeypatch.setattr(readme, "TABLES", {"speed": readme.speed})
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    project.write_text("<!-- begin speed -->\n<!-- end speed -->\n")
    assert readme.main() == 2
    assert "speed.json" in capsys.readouterr().err


def test_gains_are_differences_to_the_same_loss_without_a_regularizer():
    """Two of them from the paper's table 1: 41.26 - 25.73, 43.11 - 28.68, 29.56 - 24.49."""
    cells = {tuple(cell.strip() for cell in row.split("|")[1:3]): row for row in readme.retrieval().splitlines()[2:]}
    assert "| +15.5 / +14.4 / +5.1 |" in cells["contrastive", "SVMax"].replace("  ", " ")
    runs = [
        ("none", 0.1, 0, 0.2), ("none", 0.1, 1, 0.3), ("none", 0.01, 0, 0.3), ("none", 0.001, 0, 0.1),
        ("svmax", 0.1, 0, 0.45), ("svmax", 0.1, 1, 0.53), ("svmax", 0.1, 2, 0.9), ("svmax", 0.01, 0, 0.25),
    ]  # fmt: skip
    names = ("regularizer", "lr", "seed", "recall_at_1")
    rows = [{"loss": "npair", "dataset": "fonts", **dict(zip(names, map(str, run), strict=True))} for run in runs]
    where = {"loss": "npair", "dataset": "fonts"}
    gains = readme._gains(rows, where, "svmax")
    assert [[round(gain, 9) for gain in seeds] for seeds in gains] == [[25, 23], [-5], []]  # seed 2 has no partner
    assert readme._gain_cell(gains) == "+24.0 / -5.0 / –"
    assert readme._gain_cell(readme._gains(rows, where, "spread-out")) == "–"
