"""The README's table of the paper's figures 1, 3 and 4: claim, what came out, seeds, command."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from benchmarks.machine import RESULTS, read_csv, text_table
from svmax_ops.runs.embed2d.figure1 import EXAMPLES, example
from svmax_ops.runs.embed2d.measures import singular_values

Row = dict[str, str]
HEADER = ["figure", "the paper", "here", "seeds", "command"]
EMBEDDINGS = {  # row -> name, the paper's claim
    "vanilla": ("vanilla", "less uniformly and rapidly"),
    "svmax": ("SVMax", "more uniformly and rapidly"),
    "centred": ("SVMax, centred", ""),
}
GANS = {  # row -> name, the paper's claim
    "vanilla": ("vanilla", "collapses"),
    "svmax": ("SVMax", "collapse mitigated"),
    "unrolled": ("unrolled", ""),
    "unrolled-svmax": ("unrolled, SVMax", ""),
}
EARLY = 4  # an epoch: "rapidly"


def reproduction() -> tuple[str, dict[str, Row]]:
    """The table, and for figures 3 and 4 the facts of where their numbers were measured."""
    gan, embed2d = (RESULTS / study for study in ("gan", "embed2d"))
    table = [*_figure_1(), *_figure_3(read_csv(gan / "runs.csv")), *_figure_4(read_csv(embed2d / "runs.csv"))]
    facts = {"3": gan, "4": embed2d}
    return text_table(HEADER, table), {figure: read_csv(study / "table.csv")[0] for figure, study in facts.items()}


def _figure_1() -> list[list[str]]:
    claims = {"polarised": "s₁ large, s₂ small", "even": "both comparably large"}
    rows = []
    for name in EXAMPLES:
        s_1, s_2 = singular_values(torch.from_numpy(example(name)))
        rows.append([f"1, {name}", claims[name], f"s₁ {s_1:.2f}, s₂ {s_2:.2f}", "", "`svmax report runs/embed2d`"])
    return rows


def _figure_3(rows: Sequence[Row]) -> list[list[str]]:
    """The last pictures, by the paper's setting and by the one that collapses."""
    last = [row for row in rows if row["step"] == row["steps"]]
    names = ("generator_activation", "logits", "row", "objective", "matched_form")
    table = []
    for setting in dict.fromkeys(tuple(row[name] for name in names) for row in last):
        here = [row for row in last if tuple(row[name] for name in names) == setting]
        activation, logits, row, objective, form = setting
        name, claim = GANS[row]
        options = f" --objective {objective}" if objective not in ("", "eq1") else ""
        options += f" --matched-form {form}" if form == "absolute" else ""
        if logits == "True":
            options += f" --generator-activation {activation} --logits"
            claim, name = "", ", ".join(["ReLU and logits", name, *filter(None, (objective, form))])
        modes, far = ", ".join(r["modes_wide"] for r in here), max(float(r["radius_99"] or "inf") for r in here)
        table.append(
            [
                f"3, {name}",
                claim,
                f"modes {modes}; radius up to {far:.2g}",
                str(len(here)),
                f"`svmax gan --rows {row}{options} --seeds {','.join(r['seed'] for r in here)}`",
            ]
        )
    return table


def _figure_4(rows: Sequence[Row]) -> list[list[str]]:
    table = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for row, (name, claim) in EMBEDDINGS.items():
            here = [found for found in rows if (found["dataset"], found["row"]) == (dataset, row)]
            last = max(int(found["epoch"]) for found in here)
            at = {epoch: [found for found in here if int(found["epoch"]) == epoch] for epoch in (EARLY, last)}
            images = f" --images {here[0]['images']}" if here[0]["images"] else ""
            options = f"--dataset {dataset} --epochs {last}{images}"
            seeds = ",".join(dict.fromkeys(found["seed"] for found in here))
            table.append(
                [
                    f"4, {dataset}, {name}",
                    claim,
                    f"empty arc {_both(at, 'largest_gap', 1)}°, entropy {_both(at, 'angular_entropy', 1, 2)},"
                    f" R@1 {_both(at, 'recall_at_1', 100)} %",
                    str(len(at[last])),
                    f"`svmax embed2d --rows {row} {options} --seeds {seeds}`",
                ]
            )
    return table


def _both(at: dict[int, list[Row]], measure: str, scale: float, digits: int = 0) -> str:
    """The mean over the seeds, early and after the last epoch."""
    means: list[Any] = [scale * mean(float(row[measure]) for row in rows) for rows in at.values()]
    return " / ".join(f"{value:.{digits}f}" for value in means)
