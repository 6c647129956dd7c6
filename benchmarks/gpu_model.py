"""What the CUDA kernels cost, and a predicted time for each chip, on a machine without a GPU.

python -m benchmarks.gpu_model                           # every shape and architecture; a few minutes, the first time
python -m benchmarks.gpu_model --shapes 144x128 --architectures sm_90

The kernels run on the emulator of tests/host, which counts what one block does; nvcc compiles them for each
architecture, which gives registers, spills and shared memory; benchmarks.gpu_prediction makes a time of both, with
every assumption written down. No number of this command was measured on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_architectures import ARCHITECTURES
from benchmarks.gpu_compiler import Compiled, CompilerError, compiled
from benchmarks.gpu_prediction import ASSUMPTIONS, Launch, Problem, operations, predict, template
from benchmarks.machine import RESULTS, commit, text_table, write_rows
from benchmarks.matrices import matrices
from benchmarks.registry import MODES

EMULATED = 8
"""Of a batch so many matrices are emulated: every block does the same."""
SHAPES = {  # name -> (number of matrices, b, d)
    "144x128": (1, 144, 128),
    "64x128": (1, 64, 128),
    "72x64": (1, 72, 64),
    "32x16": (1, 32, 16),
    "1024x128": (1, 1024, 128),
    "208x192": (1, 208, 192),
    "288x256": (1, 288, 256),
    "1000 of 64x32": (1000, 64, 32),
}


def pole_count(x: Tensor) -> int:
    """How many poles the rule takes for a matrix [b, d] of normalised rows: ALGORITHM's formula on its spectrum."""
    e = torch.nn.functional.normalize(x.double(), dim=-1)
    values = torch.linalg.svdvals(e).square()
    ratio = (values[0] * (1 / values).sum()).item()
    return math.ceil((math.log(ratio) + 3) * math.log(1e9) / (2 * math.pi**2))


def launches(report: str, b: int, d: int, matrices_run: int, matrices_all: int) -> list[Launch]:
    """The emulator's report, each kernel with the template it has for this size; blocks as for the whole batch."""
    found = []
    for launch in json.loads(report):
        name = launch["kernel"].strip("()").split("<")[0]
        kernel = {
            "gram_kernel": "gram_kernel<float>",
            "backward_kernel": f"backward_kernel<float, {32 if d <= 32 else 128}>",
            "mean_kernel": "mean_kernel<float>",
        }.get(name, f"{name}<{template(min(b, d))}>")
        blocks = math.ceil(launch["blocks"] * matrices_all / matrices_run)
        found.append(Launch(kernel, launch["threads"], launch["shared_bytes"], blocks, launch["block"]))
    return found


def emulate(shape: tuple[int, int, int], mode: str) -> tuple[list[Launch], int, int]:
    """The launches of the loss on random float32 rows, how many parts its Gram matrix comes in, and its poles."""
    from tests.host import library

    host = library.load()
    host.svmax_host_report.restype = ctypes.c_char_p
    count, b, d = shape
    run = min(count, EMULATED)
    x = torch.from_numpy(matrices("random", run, b, d)).float()
    x = x[0] if count == 1 else x
    options = {"objective": "svmax_loss", "normalize": True, "center": False}
    gradient = mode != MODES[0]
    host.svmax_host_reset()
    value, *kept = torch.ops.svmax_host.objective(x, **options, need_gradient=gradient)
    if gradient:
        torch.ops.svmax_host.backward(torch.ones_like(value), x, *kept, **options)
    report = host.svmax_host_report().decode()
    splits = next((entry["grid"][1] for entry in json.loads(report) if "gram_kernel" in entry["kernel"]), 0)
    return launches(report, b, d, run, count), splits, pole_count(x.reshape(-1, b, d)[0])


def counters_of(launch: Launch) -> dict[str, Any]:
    """The emulator's counters of one block as columns of a row."""
    counters = launch.counters
    return {
        "barriers": counters["barriers"],
        "shuffles": counters["shuffles"],
        "f64_operations": int(operations(counters["f64"])),
        "f32_operations": int(operations(counters["f32"])),
        "shared_bytes_moved": counters["shared_read_bytes"] + counters["shared_write_bytes"],
        "shared_wavefronts": counters["shared_wavefronts"],
        "bank_conflicts": counters["bank_conflicts"],
        "global_bytes": counters["global_read_bytes"] + counters["global_write_bytes"],
    }


def rows_of(name: str, architectures: dict[str, dict[str, Compiled]]) -> list[dict[str, Any]]:
    """The rows of one shape: each mode, architecture and kernel. Empty where other kernels than ours do the work."""
    _, b, d = SHAPES[name]
    rows = []
    for mode in MODES:
        found, splits, poles = emulate(SHAPES[name], mode)
        if not any(launch.kernel.startswith("spectral_kernel") for launch in found):
            return []
        problem = Problem(b, d, poles, mode != MODES[0], splits)
        for architecture, kernels in architectures.items():
            chip = ARCHITECTURES[architecture]
            for launch in found:
                made = kernels[launch.kernel]
                time = predict(launch, made, problem, chip)
                rows.append(
                    {
                        "shape": name,
                        "mode": mode,
                        "architecture": architecture,
                        "card": chip.card,
                        "kernel": launch.kernel,
                        "blocks": launch.blocks,
                        "threads": launch.threads,
                        **counters_of(launch),
                        "registers": made.registers,
                        "spilled_bytes": made.spill_stores + made.spill_loads,
                        "shared_bytes": launch.shared_bytes + made.static_shared,
                        "resident_blocks": time.resident_blocks,
                        "occupancy": round(time.occupancy, 3),
                        "waves": time.waves,
                        "bound": time.bound,
                        "predicted_us_at_best": round(time.best, 1),
                        "predicted_us_at_worst": round(time.worst, 1),
                    }
                )
    return rows


def totals(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(shape, mode, architecture) -> predicted microseconds of all its kernels, at best and at worst."""
    result: dict[tuple[str, str, str], tuple[float, float]] = {}
    for row in rows:
        key = row["shape"], row["mode"], row["architecture"]
        best, worst = result.get(key, (0.0, 0.0))
        result[key] = best + row["predicted_us_at_best"], worst + row["predicted_us_at_worst"]
    return result


def show(rows: list[dict[str, Any]]) -> None:
    """Two tables of one shape: what a block does, the same on every chip; and the chips."""
    first = rows[0]["architecture"]
    counted = ["blocks", "threads", *counters_of_columns()]
    gradient = [row for row in rows if row["architecture"] == first and row["mode"] == MODES[1]]
    print(f"\n{rows[0]['shape']}, float32: of a block, counted on the host")
    print(text_table(["kernel", *counted], [[row["kernel"], *(str(row[c]) for c in counted)] for row in gradient]))
    columns = ["registers", "spilled_bytes", "shared_bytes", "resident_blocks", "occupancy", "bound"]
    columns += ["predicted_us_at_best", "predicted_us_at_worst"]
    table = [
        [row["architecture"], row["card"], row["kernel"], *(str(row[c]) for c in columns)]
        for row in rows
        if row["mode"] == MODES[1]
    ]
    print(text_table(["architecture", "card", "kernel", *columns], table))
    print(
        text_table(
            ["mode", *(f"{name}, predicted us" for name in dict.fromkeys(row["architecture"] for row in rows))],
            [
                [mode, *(f"{best:.0f} - {worst:.0f}" for (_, m, _), (best, worst) in totals(rows).items() if m == mode)]
                for mode in MODES
            ],
        ),
        flush=True,
    )


def counters_of_columns() -> list[str]:
    zeros = dict.fromkeys(("add", "mul", "fma", "div", "sqrt", "other", "compare", "convert"), 0)
    names = ("barriers", "shuffles", "shared_read_bytes", "shared_write_bytes", "shared_wavefronts", "bank_conflicts")
    empty = dict.fromkeys((*names, "global_read_bytes", "global_write_bytes"), 0) | {"f64": zeros, "f32": zeros}
    return list(counters_of(Launch("", 0, 0, 0, empty)))


def spills(architectures: dict[str, dict[str, Compiled]]) -> list[str]:
    """One sentence for each kernel that keeps its matrix in registers, and has more of it than there are."""
    return [
        f"{architecture}: {name} spills {made.spill_stores} bytes, and reads {made.spill_loads} of spills"
        for architecture, kernels in architectures.items()
        for name, made in kernels.items()
        if made.spill_stores + made.spill_loads and not name.endswith(("<256>", "<1024>"))
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_model", description=__doc__.splitlines()[0])
    for option, known in (("shapes", SHAPES), ("architectures", ARCHITECTURES)):
        parser.add_argument(f"--{option}", help=f"comma-separated; default: all of {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_model", help="writes OUT.json and OUT.csv")
    options = parser.parse_args()
    for option, known in (("shapes", SHAPES), ("architectures", ARCHITECTURES)):
        given = getattr(options, option)
        names = list(known) if given is None else given.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            parser.error(f"--{option}: {', '.join(unknown)} is not known; there are {', '.join(known)}")
        setattr(options, option, names)
    return options


def main() -> int:
    options = arguments()
    try:
        with ThreadPoolExecutor(2) as pool:  # nvcc is one process a job
            architectures = dict(zip(options.architectures, pool.map(compiled, options.architectures), strict=True))
    except CompilerError as error:
        print(f"gpu_model: {error}", file=sys.stderr)
        return 2
    print("Predicted, never measured; assumptions:")
    print(text_table(["constant", "value", "unit", "source"], [[n, *map(str, a)] for n, a in ASSUMPTIONS.items()]))
    rows: list[dict[str, Any]] = []
    for name in options.shapes:
        new = rows_of(name, architectures)
        if new:
            show(new)
        else:
            print(f"\n{name}: float64 matrix products of cuBLAS do the work, of which this model knows nothing")
        rows += new
    facts = {
        "device": "none: predicted",
        "torch": torch.__version__,
        "commit": commit(),
        "assumptions": {name: assumption._asdict() for name, assumption in ASSUMPTIONS.items()},
    }
    if rows:
        write_rows(options.out, facts, rows)
    for sentence in spills(architectures):
        print(sentence, file=sys.stderr)
    return 1 if spills(architectures) else 0


if __name__ == "__main__":
    sys.exit(main())
