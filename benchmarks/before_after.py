"""The price of a change: the speed of this checkout beside that of another one, taken in turns.

python -m benchmarks.before_after ../before --out benchmarks/results/cpu/rooms    # that one built; machine idle
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, read_rows, text_table, write_rows
from benchmarks.registry import CASES

ROOT = Path(__file__).parents[1]
KEY = ("case", "mode", "threads", "provider")


def measured(checkout: Path, options: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    """The commit of a checkout and what its own ``benchmarks.run`` measures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speed"
        command = [sys.executable, "-m", "benchmarks.run", "--cases", options.cases, "--threads", "1"]
        command += ["--rounds", str(options.rounds), "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        facts, rows = read_rows(out)
        return facts["commit"], rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before_after", description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="the other checkout, with its native library built")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES), help="of benchmarks.run (all)")
    parser.add_argument("--rounds", type=int, default=15, help="of a run; about 4 ms a provider (default 15)")
    parser.add_argument("--turns", type=int, default=5, help="runs of each checkout (default 5)")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json, OUT.csv and OUT.md")
    options = parser.parse_args()
    options.before = options.before.resolve()
    if not (options.before / "svmax_ops" / "_C.so").exists():
        parser.error(f"before must be a checkout with its native library built, got {options.before}")
    facts = machine()
    found: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for turn in range(options.turns):
        sides = [("before", options.before), ("after", ROOT)]
        for side, checkout in sides if turn % 2 == 0 else sides[::-1]:
            facts[f"{side}_commit"], rows = measured(checkout, options)
            for row in rows:
                found.setdefault(tuple(row[k] for k in KEY), {"before": [], "after": []})[side].append(row)
        print(f"turn {turn + 1} of {options.turns}", file=sys.stderr)
    rows = []
    for key, sides in found.items():
        median = {side: statistics.median(row["median_ms"] for row in each) for side, each in sides.items()}
        spread = [row["median_ms"] / median["before"] for row in sides["before"]]
        rows.append(
            {
                **dict(zip(KEY, key, strict=True)),
                **{f"{side}_ms": round(value, 5) for side, value in median.items()},
                "ratio": round(median["before"] / median["after"], 2),
                "noise": round(max(spread) - min(spread), 2),
                **{f"{side}_error": each[0]["error"] for side, each in sides.items()},
            }
        )
    write_rows(options.out, facts, rows)
    header = ["case", "mode", "provider", "before ms", "after ms", "before / after", "noise", "error before", "after"]
    table = text_table(header, [[str(row[k]) for k in row if k != "threads"] for row in rows])
    said = (
        f"Median of {options.turns} runs of each, in turns, one thread; noise is the range of the runs of `before`,"
        f" in parts of their median. Before: {facts['before_commit']}, after: {facts['after_commit']}."
    )
    options.out.with_suffix(".md").write_text(f"{table}\n\n{said}\n")
    print(table)


if __name__ == "__main__":
    main()
