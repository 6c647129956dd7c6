"""The README's table of the paper's figures 1 and 4: claim, what came out, seeds, command."""

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
EARLY = 4  # an epoch: "rapidly"


def reproduction() -> tuple[str, Row]:
    """The table, and the facts of where its numbers were measured."""
    table = [*_figure_1(), *_figure_4(read_csv(RESULTS / "embed2d" / "runs.csv"))]
    return text_table(HEADER, table), read_csv(RESULTS / "embed2d" / "table.csv")[0]


def _figure_1() -> list[list[str]]:
    claims = {"polarised": "s₁ large, s₂ small", "even": "both comparably large"}
    rows = []
    for name in EXAMPLES:
        s_1, s_2 = singular_values(torch.from_numpy(example(name)))
        rows.append([f"1, {name}", claims[name], f"s₁ {s_1:.2f}, s₂ {s_2:.2f}", "", "`svmax report runs/embed2d`"])
    return rows


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
