"""The picture of a speed result, drawn from its rows: python -m benchmarks.plot [OUT of run or gpu_bench]."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.machine import RESULTS, read_rows
from benchmarks.registry import MODES, PEER

COLORS = {"svmax_loss": "#1b6ca8", "nuclear_norm": "#69b3d6", "svdvals": "#e08e45"}
OTHERS = ("#8c8c8c", "#b5b5b5", "#6b8e6b", "#9c7a97", "#c9b458")  # other ways to an SVD, in the order of the rows


def draw_speed(path: Path) -> None:
    """Write ``path``.png: how many times faster than the peer, a panel for each mode and number of threads.

    Rows of a GPU have a clock in place of threads; their ratios span decades, so they are drawn on a log axis.
    """
    facts, rows = read_rows(path)
    by = "threads" if "threads" in rows[0] else "clock"
    cases = list(dict.fromkeys(row["case"] for row in rows))
    panels = sorted({row[by] for row in rows})
    others = dict.fromkeys(row["provider"] for row in rows if row["provider"] not in (PEER, *COLORS))
    colors = COLORS | dict(zip(others, OTHERS, strict=False))
    height = 0.84 / max(len(colors), 3)
    figure, axes = plt.subplots(
        len(panels),
        len(MODES),
        figsize=(5.5 * len(MODES), 1.6 + len(panels) * (0.6 + 0.14 * len(cases) * max(len(colors), 3))),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for i, panel in enumerate(panels):
        for j, mode in enumerate(MODES):
            axis = axes[i][j]
            for k, (provider, color) in enumerate(colors.items()):
                ratios = {
                    row["case"]: row["ratio"]
                    for row in rows
                    if row["provider"] == provider and row["mode"] == mode and row[by] == panel and row["ratio"]
                }
                middle = (len(colors) - 1) / 2
                positions = [len(cases) - 1 - cases.index(case) + height * (middle - k) for case in ratios]
                bars = axis.barh(positions, list(ratios.values()), height=height * 0.92, color=color, label=provider)
                axis.bar_label(bars, fmt="%.3g" if by == "clock" else "%.1f", padding=2, fontsize=7)
            if by == "clock":
                axis.set_xscale("log")
            axis.axvline(1, color="0.3", linewidth=1, linestyle="--")
            axis.set_yticks(range(len(cases)), cases[::-1], fontsize=8)
            threads = f"{panel} thread{'s' if panel != 1 else ''}"
            axis.set_title(f"{mode}, {threads if by == 'threads' else panel}", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.1)
    for axis in axes[-1]:
        axis.set_xlabel(f"times as fast as {PEER} (dashed)", fontsize=9)
    handles = {text: bar for axis in axes.flat for bar, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside lower center", ncols=4)
    where = f"{facts['cpu']}, {facts['instruction_set']}" if by == "threads" else facts["device"]
    figure.suptitle(f"float32, {where}, torch {facts['torch']}, commit {facts['commit']}", fontsize=9)
    figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("result", type=Path, nargs="?", default=RESULTS / "cpu" / "speed")
    draw_speed(parser.parse_args().result)
