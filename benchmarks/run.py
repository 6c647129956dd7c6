"""Speed of the public functions beside torch.linalg.svdvals: first the error, then the time.

python -m benchmarks.run                    # every case, one thread and torch's default: about 10 minutes, machine idle
python -m benchmarks.run --cases 144x128 --rounds 10
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import RESULTS, machine, text_table, write_rows
from benchmarks.registry import CASES, MODES, PEER, PROVIDERS, Case, Provider
from benchmarks.timing import take_turns


def step(provider: Provider, x: Tensor) -> Callable[[], object]:
    """Forward and backward as a training step does them."""
    x = x.detach().clone().requires_grad_()

    def call() -> None:
        x.grad = None
        provider.objective(x).backward()

    return call


def truth(value: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A provider's value and its gradient in float64, on the CPU."""
    full = x.detach().to("cpu", torch.float64).requires_grad_()
    result = value(full)
    return result.detach(), torch.autograd.grad(result, full)[0]


def errors(provider: Provider, x: Tensor, expected: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Relative error of the value and (Frobenius norm) of the gradient, against :func:`truth`."""
    x = x.detach().clone().requires_grad_()
    value = provider.objective(x)
    (dx,) = torch.autograd.grad(value, x)
    error = abs(value.item() - expected[0].item()) / abs(expected[0].item())
    return error, ((dx.to("cpu", torch.float64) - expected[1]).norm() / expected[1].norm()).item()


def measure(case: Case, threads: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of one case at one number of threads."""
    x = case.input()
    facts = {"case": case.name, "shape": "x".join(map(str, case.shape)), "dtype": case.dtype, "spectrum": case.spectrum}
    truths = {value: truth(value, x) for value in {provider.value for provider in PROVIDERS}}
    found = {provider.name: errors(provider, x, truths[provider.value]) for provider in PROVIDERS}
    rows = []
    for mode in MODES:
        if mode == "forward":
            calls = {p.name: (lambda forward=p.forward: forward(x)) for p in PROVIDERS}
        else:
            calls = {p.name: step(p, x) for p in PROVIDERS}
        timings = take_turns(calls, rounds=rounds)
        for provider, timing in timings.items():
            rows.append(
                {
                    **facts,
                    "mode": mode,
                    "threads": threads,
                    "provider": provider,
                    **timing.columns(),
                    "ratio": round(timings[PEER].median / timing.median, 2),
                    "error": float(f"{found[provider][mode != 'forward']:.1e}"),
                }
            )
    return rows


def arguments() -> argparse.Namespace:
    default = torch.get_num_threads()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", help=f"comma-separated names; default: all of {', '.join(c.name for c in CASES)}")
    parser.add_argument("--threads", default="1,default", help=f"comma-separated; 'default' is torch's, {default} here")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of about 4 ms a provider (default 60)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "cpu" / "speed", help="writes OUT.json, OUT.csv and OUT.png"
    )
    options = parser.parse_args()
    names = [case.name for case in CASES] if options.cases is None else options.cases.split(",")
    unknown = [name for name in names if name not in {case.name for case in CASES}]
    if unknown:
        parser.error(f"--cases: no case named {', '.join(unknown)}; there are {', '.join(c.name for c in CASES)}")
    options.cases = [case for case in CASES if case.name in names]
    try:
        options.threads = sorted({default if t == "default" else int(t) for t in options.threads.split(",")})
    except ValueError:
        parser.error(f"--threads: must be numbers or 'default', got {options.threads!r}")
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    return options


def main() -> None:
    options = arguments()
    facts, rows = machine(), []
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    if facts["load"] > 0.5:
        print("The machine is busy: ratios under load mean nothing.", file=sys.stderr)
    for case in options.cases:
        for threads in options.threads:
            torch.set_num_threads(threads)
            new = measure(case, threads, options.rounds)
            rows += new
            print(f"\n{case.name} ({case.why}), {case.dtype}, threads: {threads}")
            print(
                text_table(
                    ["mode", "provider", "median ms", "20 % - 80 %", "ratio", "error"],
                    [
                        [
                            row["mode"],
                            row["provider"],
                            f"{row['median_ms']:.4f}",
                            f"{row['p20_ms']:.4f} - {row['p80_ms']:.4f}",
                            f"{row['ratio']:.2f}",
                            f"{row['error']:.0e}",
                        ]
                        for row in new
                    ],
                ),
                flush=True,
            )
    write_rows(options.out, facts, rows)
    try:
        from benchmarks.plot import draw_speed
    except ModuleNotFoundError as missing:
        sys.exit(f"rows are in {options.out}.json; no plot, {missing.name} is not installed: pip install matplotlib")
    draw_speed(options.out)


if __name__ == "__main__":
    main()
