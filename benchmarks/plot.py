"""The picture of a speed result, drawn from its rows: python -m benchmarks.plot [OUT of benchmarks.run]."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.machine import RESULTS, read_rows
from benchmarks.registry import MODES, PEER

COLORS = {"svmax_loss": "#1b6ca8", "nuclear_norm": "#69b3d6", "svdvals": "#e08e45"}


def draw_speed(path: Path) -> None:
    """Write ``path``.png: how many times faster than the peer, a panel for each mode and number of threads."""
    facts, rows = read_rows(path)
    cases = list(dict.fromkeys(row["case"] for row in rows))
    threads = sorted({row["threads"] for row in rows})
    figure, axes = plt.subplots(
        len(threads),
        len(MODES),
        figsize=(5.5 * len(MODES), 1.6 + len(threads) * (0.6 + 0.42 * len(cases))),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for i, count in enumerate(threads):
        for j, mode in enumerate(MODES):
            axis = axes[i][j]
            for k, (provider, color) in enumerate(COLORS.items()):
                ratios = {
                    row["case"]: row["ratio"]
                    for row in rows
                    if row["provider"] == provider and row["mode"] == mode and row["threads"] == count
                }
                positions = [len(cases) - 1 - cases.index(case) + 0.26 * (1 - k) for case in ratios]
                bars = axis.barh(positions, list(ratios.values()), height=0.24, color=color, label=provider)
                axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
            axis.axvline(1, color="0.3", linewidth=1, linestyle="--")
            axis.set_yticks(range(len(cases)), cases[::-1], fontsize=8)
            axis.set_title(f"{mode}, {count} thread{'s' if count > 1 else ''}", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.1)
    for axis in axes[-1]:
        axis.set_xlabel(f"times as fast as {PEER} (dashed)", fontsize=9)
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(COLORS))
    figure.suptitle(
        f"float32, {facts['cpu']}, {facts['instruction_set']}, torch {facts['torch']}, commit {facts['commit']}",
        fontsize=9,
    )
    figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("result", type=Path, nargs="?", default=RESULTS / "cpu" / "speed")
    draw_speed(parser.parse_args().result)
