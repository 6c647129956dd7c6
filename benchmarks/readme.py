"""The README's tables, written from benchmarks/results/ between `<!-- begin NAME -->` and `<!-- end NAME -->`.

python -m benchmarks.readme            # write them
python -m benchmarks.readme --check    # exit 1 where the README and the results differ; for CI
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.accuracy import TORCH
from benchmarks.evaluation_scale import COLLAPSED, SPREAD
from benchmarks.gpu_model import totals
from benchmarks.machine import RESULTS, read_csv, read_rows, text_table
from benchmarks.readme_figures import EARLY, reproduction
from benchmarks.registry import MODES, PEER
from benchmarks.step_share import percent

README = Path(__file__).parent.parent / "README.md"
PAPER = Path(__file__).parent / "paper"
BACKENDS = {TORCH: "float32 SVD", "svmax_ops cpu": "cpu", "svmax_ops triton": "triton"}
DEMO_COLUMNS = {  # column of the demo's table -> heading, digits, factor
    "loss": ("loss", None, 1),
    "regularizer": ("regularizer", None, 1),
    "recall_at_1": ("R@1 %", 1, 100),
    "recall_at_8": ("R@8 %", 1, 100),
    "nmi": ("NMI", 2, 1),
    "spread": ("spread", 3, 1),
    "effective_rank": ("effective rank", 1, 1),
}

REGULARIZERS = {"spread-out": "spread-out", "svmax": "SVMax", "svmax-centred": "SVMax, centred"}
STAND_INS = {  # the study's data sets
    "strokes, medium": {"dataset": "strokes", "jitter": "medium"},
    "strokes, strong": {"dataset": "strokes", "jitter": "strong"},
    "fonts": {"dataset": "fonts"},
}


def speed() -> str:
    facts, rows = read_rows(RESULTS / "cpu" / "speed")
    found = {(r["case"], r["threads"], r["mode"], r["provider"]): r for r in rows}
    table = []
    for case, threads in dict.fromkeys((r["case"], r["threads"]) for r in rows):
        cells = [case, str(threads)]
        for mode in MODES:
            peer, ours = (found[case, threads, mode, provider] for provider in (PEER, "svmax_loss"))
            cells += [_milliseconds(peer), _milliseconds(ours), f"**{ours['ratio']:.1f}x**"]
        table.append(cells)
    header = ["float32 input", "threads", "`svdvals`", "`svmax_loss`", "ratio"]
    header += ["`svdvals`, with gradient", "`svmax_loss`, with gradient", "ratio"]
    note = "Medians in ms; `svdvals` is `torch.linalg.svdvals`, with gradient of `svdvals(F.normalize(x)).sum()`."
    return f"{text_table(header, table)}\n\n{note}\n{_where(facts)}"


def step_share() -> str:
    facts, rows = read_rows(RESULTS / "step_share")
    found = {(row["case"], row["term"]): row for row in rows}
    table = []
    for case in dict.fromkeys(row["case"] for row in rows):
        ours, peer = (found[case, term] for term in ("svmax_ops", PEER))
        cells = [f"{case}, {ours['picture']}", ours["shape"], f"{ours['step_median_ms']:.0f}"]
        for row in (ours, peer):
            cells += [f"{row['term_median_ms']:.2f}", f"**{percent(row['share'])}**"]
        table.append(cells)
    header = [
        "network, pictures",
        "batch",
        "training step",
        "`svmax_loss` in it",
        "share",
        "`svdvals` instead",
        "share",
    ]
    note = (
        "Medians of the CPU time of one thread in ms: forward, contrastive loss, backward and SGD; `svdvals` is that of"
        f"\n`F.normalize(x)`, summed, and its share that of a step with it. The machine was shared, its load"
        f" {facts['load']} before."
    )
    return f"{text_table(header, table)}\n\n{note}\n{_where(facts)}"


def accuracy() -> str:
    facts, rows = read_rows(RESULTS / "accuracy")
    found = {(r["case"], r["provider"]): r for r in rows}
    columns = {"N": "error_of_nuclear_norm", "P": "error_of_gradient", "‖P‖₂ − 1": "excess_of_norm"}
    header = ["float32 input"]
    header += [f"{heading}, {who}" for heading in columns for who in BACKENDS.values()]
    table = [
        [case, *(f"{found[case, who][column]:.0e}" for column in columns.values() for who in BACKENDS)]
        for case in dict.fromkeys(r["case"] for r in rows)
    ]
    note = (
        "Against a float64 SVD of the same numbers, 144x128 where nothing else is said: relative error of the nuclear"
        " norm N; error of\nits gradient P in the directions with s > 1e-4 s₁; by how much ‖P‖₂ exceeds 1."
        " float32 SVD is `torch.linalg`'s; triton was run by\nTriton's interpreter."
    )
    return f"{text_table(header, table)}\n\n{note}\n{_where(facts)}"


def triton() -> str:
    """How long the first call takes: what the compilers took for the kernels of one training step."""
    facts, rows = read_rows(RESULTS / "triton_compile")
    seconds = {(row["kernel"], row["target"]): row["seconds"] for row in rows}

    def of(kernels: Sequence[str]) -> str:
        totals = [sum(seconds[kernel, target] for kernel in kernels) for target in ("sm_90", "gfx942")]
        return " and ".join(f"{total:.1f}" for total in totals)

    fused = ("objective 64 tall", "backward tall")
    # Of a product two forms, for rows and for columns that lie one after the other in memory.
    products = ("norms", "embed", "product", "product", "product quintic", "value", "project")
    return (
        f"The first call of a process that finds nothing in Triton's cache compiles: up to n = 64 {of(fused)} s of one"
        f" core for an H100 (sm_90)\nand an MI300 (gfx942), beyond {of(products)} s, with the gradient. Other options,"
        " or a size that is a multiple of 16 where\nthe one before was not, are compiled when they first come.\n"
        f"{_where(facts)}"
    )


def evaluation() -> str:
    facts, rows = read_rows(RESULTS / "evaluation_scale")
    found = {(r["measure"], r["embeddings"]): r for r in rows}
    whole = found["R@K, NMI and spectra", SPREAD]
    ours, peer = (found[name, COLLAPSED]["recall_at_1"] for name in ("R@K", "R@K, faiss search in float32"))
    return (
        "R@K is exact in float64, also at collapse: of embeddings that differ by 1e-4, a float32 search by faiss"
        f" finds {peer:.1%} at R@1\nwhere {ours:.1%} is right. NMI is by faiss's k-means. An evaluation of"
        f" {whole['pictures']:,} embeddings in {whole['classes']:,} classes, as many as\nStanford Online Products tests"
        f" on, takes {whole['cpu_seconds']:.0f} s of one core and {whole['peak_gib']:.1f} GiB.\n{_where(facts)}"
    )


def gpu() -> str:
    """The predictions of benchmarks.gpu_model, and nothing that looks like a measurement."""
    facts, rows = read_rows(RESULTS / "gpu_model")
    cards = {row["architecture"]: row["card"] for row in rows}
    found = totals(rows)
    table = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        for mode in MODES:
            times = (found[shape, mode, architecture] for architecture in cards)
            table.append([shape, mode, *(f"{_short(best)} – {_short(worst)}" for best, worst in times)])
    header = ["float32 input", "", *(f"{card} ({architecture}), predicted" for architecture, card in cards.items())]
    note = (
        "Predicted µs of the kernels on the GPU, if all work overlaps and if none does; not measured. By"
        " `python -m benchmarks.gpu_model`,\ncommit "
    )
    return f"{text_table(header, table)}\n\n{note}{facts['commit']}."


def _short(us: float) -> str:
    """Two digits: a prediction has no more."""
    return f"{float(f'{us:.1e}'):.0f}"


def demo() -> str:
    rows = read_csv(RESULTS / "demo" / "table.csv")
    columns = {name: spec for name, spec in DEMO_COLUMNS.items() if name in rows[0]}
    table = [[_demo_cell(row[name], *spec[1:]) for name, spec in columns.items()] for row in rows]
    return f"{text_table([heading for heading, *_ in columns.values()], table)}\n\n{_where(rows[0])}"


def retrieval() -> str:
    """What a regularizer adds to R@1: the paper's tables 1 and 2 beside the study on stand-in data."""
    paper = [{**row, "lr": row["learning_rate"], "seed": ""} for row in read_csv(PAPER / "tables.csv")]
    ours = read_csv(RESULTS / "retrieval" / "runs.csv")
    facts = read_csv(RESULTS / "retrieval" / "table.csv")[0]
    where = {**facts, "commit": " and ".join(dict.fromkeys(row["commit"] for row in ours))}
    columns = [("CUB-200, paper", paper, {"dataset": "cub200"}), ("SOP, paper", paper, {"dataset": "sop"})]
    columns += [(name, ours, data) for name, data in STAND_INS.items()]
    table, found = [], []
    for loss in dict.fromkeys(row["loss"] for row in ours):
        for regularizer, heading in REGULARIZERS.items():
            gains = [_gains(rows, {**data, "loss": loss}, regularizer) for _, rows, data in columns]
            found += [seeds for by_rate in gains[2:] for seeds in by_rate]
            table.append([loss, heading, *map(_gain_cell, gains)])
    counts = sorted({len(seeds) for seeds in found if seeds})
    spread = max((stdev(seeds) for seeds in found if len(seeds) > 1), default=None)
    note = (
        "Points of R@1 over the same loss and seed without a regularizer, at the large / middle / small learning rate:"
        "\nthe paper's 0.01 / 0.001 / 0.0001 (GoogLeNet with ImageNet weights), ours 0.1 / 0.01 / 0.001 (a small"
        f"\nnetwork from scratch, means of {' to '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"
        + (f", sd of a cell's seeds up to {spread:.1f})." if spread is not None else ").")
    )
    header = ["loss", "regularizer", *(name for name, *_ in columns)]
    return f"{text_table(header, table)}\n\n{note}\n{_where(where)}"


def reproduced() -> str:
    """The paper's figures 1, 3 and 4 beside what came out."""
    table, where = reproduction()
    note = (
        "Figure 3: for each seed, of eight modes those that at least 1 % of the samples are within 0.5 of at the end;"
        " the largest\nradius that holds 99 % of the samples (the ring's is 2). Figure 4: means over the seeds, after"
        f" {EARLY} epochs / after the last."
    )
    return "\n".join([table, "", note, *(f"Figure {figure}: {_where(facts)}" for figure, facts in where.items())])


def _gains(rows: list[dict[str, str]], where: dict[str, str], regularizer: str) -> list[list[float]]:
    """R@1 with the regularizer minus R@1 without, in points: for each learning rate, the largest first, each seed's."""
    here = [row for row in rows if all(row[name] == value for name, value in where.items())]
    points = 1 if any(row["regularizer"] == "vanilla" for row in here) else 100  # the paper's are in percent
    found = {(row["regularizer"], float(row["lr"]), row["seed"]): points * float(row["recall_at_1"]) for row in here}
    without = {(lr, seed): recall for (name, lr, seed), recall in found.items() if name in ("none", "vanilla")}
    return [
        [
            found[regularizer, lr, seed] - recall
            for (at, seed), recall in without.items()
            if (regularizer, lr, seed) in found and at == lr
        ]
        for lr in sorted({lr for _, lr, _ in found}, reverse=True)
    ]


def _gain_cell(gains: list[list[float]]) -> str:
    return " / ".join(f"{mean(seeds):+.1f}" if seeds else "–" for seeds in gains) if any(gains) else "–"


def _demo_cell(text: str, digits: int | None, factor: float) -> str:
    return text if digits is None or not text else f"{float(text) * factor:.{digits}f}"


def _milliseconds(row: dict[str, Any]) -> str:
    return f"{row['median_ms']:.3g}"


def _where(facts: dict[str, Any]) -> str:
    """One line: the machine and the commit."""
    names = {"cpu": "", "cores": "{} cores", "instruction_set": "", "torch": "torch {}"}
    names |= {"triton": "Triton {}", "commit": "commit {}"}
    known = {name: text for name, text in names.items() if facts.get(name)}
    return "Measured on " + ", ".join((text or "{}").format(facts[name]) for name, text in known.items()) + "."


TABLES: dict[str, Callable[[], str]] = {
    "speed": speed,
    "step_share": step_share,
    "accuracy": accuracy,
    "triton": triton,
    "evaluation": evaluation,
    "gpu": gpu,
    "demo": demo,
    "retrieval": retrieval,
    "reproduction": reproduced,
}


def with_tables(text: str) -> str:
    """``text`` with what lies between the markers of each table replaced by the table."""
    for name, table in TABLES.items():
        found = re.search(rf"<!-- begin {name} -->\n.*?<!-- end {name} -->", text, re.DOTALL)
        if found is None:
            raise ValueError(f"{README.name} has no <!-- begin {name} --> ... <!-- end {name} -->.")
        text = f"{text[: found.start()]}<!-- begin {name} -->\n{table()}\n<!-- end {name} -->{text[found.end() :]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where README and results differ")
    options = parser.parse_args()
    try:
        before = README.read_text("utf-8")
        after = with_tables(before)
    except (FileNotFoundError, ValueError) as error:
        print(f"benchmarks.readme: {error}", file=sys.stderr)
        return 2
    if options.check:
        if before != after:
            print("README.md differs from benchmarks/results/: run python -m benchmarks.readme", file=sys.stderr)
        return int(before != after)
    README.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
