"""What a call costs before any arithmetic: the way from Python through autograd to the kernel and back.

python -m benchmarks.overhead [--rounds N] [--out OUT]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import RESULTS, machine, text_table, write_rows
from benchmarks.timing import take_turns
from svmax_ops import svmax_loss

SHAPES = ((2, 2), (8, 4), (32, 16))


def calls(b: int, d: int) -> dict:
    """From the bare op to the whole training step, beside the least that torch's autograd can do."""
    x = torch.randn(b, d)
    wanted = x.clone().requires_grad_()
    options = {"objective": "svmax_loss", "normalize": True, "center": False}

    def backward(value: Tensor) -> None:
        wanted.grad = None
        value.backward()

    def bare_op() -> None:
        value, *kept = torch.ops.svmax.objective(x, **options, need_gradient=True)
        torch.ops.svmax.backward(value, x, *kept, **options)

    return {
        "torch: x.sum()": lambda: x.sum(),
        "torch: x.sum() with gradient": lambda: backward(wanted.sum()),
        "torch: x.mT @ x summed, with gradient": lambda: backward((wanted.mT @ wanted).sum()),
        "torch.linalg.svdvals": lambda: torch.linalg.svdvals(x),
        "torch.ops.svmax.objective": lambda: torch.ops.svmax.objective(x, **options),
        "torch.ops.svmax.objective and backward": bare_op,
        "svmax_loss": lambda: svmax_loss(x),
        "svmax_loss, graph recorded": lambda: svmax_loss(wanted),
        "svmax_loss with gradient": lambda: backward(svmax_loss(wanted)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="rounds of about 4 ms a call (default 60)")
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu" / "overhead", help="writes OUT.json and OUT.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for b, d in SHAPES:
        for name, timing in take_turns(calls(b, d), rounds=options.rounds).items():
            microseconds = {key: round(value * 1e6, 2) for key, value in timing._asdict().items()}
            rows.append(
                {"shape": f"{b}x{d}", "call": name, "threads": 1, **{f"{k}_us": v for k, v in microseconds.items()}}
            )
    print(
        text_table(
            ["shape", "call", "median us", "20 % - 80 %"],
            [[r["shape"], r["call"], f"{r['median_us']:.2f}", f"{r['p20_us']:.2f} - {r['p80_us']:.2f}"] for r in rows],
        )
    )
    write_rows(options.out, machine(), rows)


if __name__ == "__main__":
    main()
