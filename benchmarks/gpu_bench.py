"""Speed on a GPU beside torch.linalg's with every cuSOLVER driver: first the error, then the time.

python -m benchmarks.gpu_bench --seconds 150    # a stage of benchmarks.gpu_check; writes what it has after every case

Two clocks, both CUDA events: "calls" are what a user's calls cost, one after another, with all that Python and the
dispatcher add; "graph" replays the same calls captured in a CUDA graph, so it is the kernels' own time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.machine import RESULTS, machine, text_table, write_rows
from benchmarks.plot import draw_speed
from benchmarks.registry import CAPTURED, GPU_CASES, GPU_PROVIDERS, MODES, PEER, Case, Provider
from benchmarks.run import errors, step, truth
from benchmarks.timing import Timing, take_turns, wall_clock

MANY = 10_000
"""From so many matrices on, a provider that takes them one by one is left out: it would take the whole time."""
CHECKED = 64
"""Of a batch so many matrices are compared with float64."""


class Aim(NamedTuple):
    """What an H100 shall do."""

    case: str
    mode: str
    column: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, value: float) -> bool:
        return value >= self.at_least if self.at_most is None else value <= self.at_most


AIMS = (
    Aim("144x128", "forward", "median_ms", at_most=0.070),
    Aim("144x128", "forward+backward", "median_ms", at_most=0.150),
    Aim("1000 of 64x32", "forward", "median_ms", at_most=0.200),
    Aim("144x128", "forward", "ratio", at_least=20),
)


def events(call: Callable[[], object], repeats: int) -> float:
    """Seconds a call on the current stream, of ``repeats`` in a row; the clock of benchmarks.timing.take_turns."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """The same work as a CUDA graph: its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def all_captured(calls: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Those that could be captured; of the others a line says why, so that the rows of all cases are still written."""
    graphs: dict[str, Callable[[], object]] = {}
    for name, call in calls.items():
        try:
            graphs[name] = captured(call)
        except RuntimeError as error:
            print(f"{name}: no CUDA graph: {str(error).splitlines()[0]}", file=sys.stderr)
    return graphs


def call_of(provider: Provider, mode: str, x: Tensor) -> Callable[[], object]:
    return (lambda: provider.forward(x)) if mode == "forward" else step(provider, x)


def rounds_within(calls: dict[str, Callable[[], object]], seconds: float, clock: Any) -> int:
    """How many rounds of about 4 ms a call fit; a call that alone takes long runs once a round, and once to warm up."""
    once = sum(clock(call, 1) for call in calls.values())  # also compiles, allocates, picks algorithms
    again = sum(clock(call, 1) for call in calls.values())
    left = seconds - once - again - 3 * again  # take_turns runs each three times to choose its repeats
    return max(3, min(50, int(left / (again + sum(max(0.004, again / len(calls)) for _ in calls)))))


def measure(
    case: Case,
    seconds: float,
    failures: list[str],
    *,
    device: str = "cuda",
    providers: Iterable[Provider] = GPU_PROVIDERS,
    clocks: tuple[str, ...] = ("calls", "graph"),
) -> list[dict[str, Any]]:
    """The rows of one case, in about ``seconds``; what a provider cannot do is told in ``failures``."""
    x = case.input().to(device)
    clock = events if x.is_cuda else wall_clock
    sample = x[:CHECKED] if x.dim() > 2 else x
    found: dict[str, tuple[float, float]] = {}
    able: dict[str, Provider] = {}
    truths: dict[Any, tuple[Tensor, Tensor]] = {}
    for provider in providers:
        if provider.loops and x.dim() > 2 and len(x) >= MANY:
            failures.append(f"{case.name}: {provider.name}: left out, it takes {len(x)} matrices one by one")
            continue
        try:
            if provider.value not in truths:
                truths[provider.value] = truth(provider.value, sample)
            found[provider.name] = errors(provider, sample, truths[provider.value])
            able[provider.name] = provider
        except RuntimeError as error:
            failures.append(f"{case.name}: {provider.name}: {str(error).strip().splitlines()[0]}")
    rows = []
    for mode in MODES:
        peer: float | None = None
        for name in clocks:
            chosen = [p for p in able if name == "calls" or p in CAPTURED]
            if not chosen:
                continue
            calls = {p: call_of(able[p], mode, x) for p in chosen}
            if name == "graph":
                calls = all_captured(calls)
                if not calls:
                    continue
            rounds = rounds_within(calls, seconds / len(MODES) / len(clocks), clock)
            timings = take_turns(calls, rounds=rounds, clock=clock)
            if name == "calls" and PEER in timings:
                peer = timings[PEER].median
            rows += [
                row(case, mode, name, p, timing, rounds, peer, found[p][mode != "forward"])
                for p, timing in timings.items()
            ]
    return rows


def row(
    case: Case, mode: str, clock: str, provider: str, timing: Timing, rounds: int, peer: float | None, error: float
) -> dict[str, Any]:
    return {
        "case": case.name,
        "shape": "x".join(map(str, case.shape)),
        "dtype": case.dtype,
        "spectrum": case.spectrum,
        "mode": mode,
        "clock": clock,
        "provider": provider,
        **timing.columns(),
        "rounds": rounds,
        "ratio": None if peer is None else round(peer / timing.median, 2),
        "error": float(f"{error:.1e}"),
    }


def aims_table(rows: list[dict[str, Any]], device: str) -> str:
    """The aims, which are set for an H100, beside what was measured here."""
    found = {(r["case"], r["mode"], r["clock"]): r for r in rows if r["provider"] == "svmax_loss"}
    table = []
    for aim in AIMS:
        times = aim.column == "ratio"
        cells = [
            f"{aim.case} {aim.mode}" + (f", times as fast as {PEER}" if times else ""),
            f">= {aim.at_least:g}x" if times else f"<= {aim.at_most * 1e3:g} us",
        ]
        for clock in ("calls", "graph"):
            value = found.get((aim.case, aim.mode, clock), {}).get(aim.column)
            if value is None:
                cells.append("not measured")
                continue
            shown = f"{value:g}x" if times else f"{value * 1e3:.1f} us"
            cells.append(f"{shown} ({'met' if aim.met(value) else 'missed'})")
        table.append(cells)
    return text_table(["svmax_loss, float32", "aim for an H100", f"calls on {device}", "graph replay"], table)


def file_name(device: str) -> str:
    """ "NVIDIA H100 80GB HBM3" -> "nvidia_h100_80gb_hbm3"."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bench", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150, help="when to stop (default 150)")
    parser.add_argument("--tested", type=Path, help="a JSON file with what the test stage found, kept with the rows")
    parser.add_argument("--out", type=Path, help="writes OUT.json, OUT.csv and OUT.png (default results/<device>)")
    return parser.parse_args()


def main() -> int:
    begin = time.monotonic()
    options = arguments()
    if not torch.cuda.is_available():
        print(f"gpu_bench: torch {torch.__version__} sees no GPU here.", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name()
    out = options.out or RESULTS / file_name(device)
    facts = {**machine(), "device": device, "cuda": torch.version.cuda}
    if options.tested is not None and options.tested.exists():
        facts["tests"] = json.loads(options.tested.read_text())
    facts["failures"] = []
    rows: list[dict[str, Any]] = []
    for index, case in enumerate(GPU_CASES):
        left = options.seconds - (time.monotonic() - begin)
        if left < 5 and rows:
            facts["failures"].append(f"{case.name}: not measured, the time was up")
            continue
        new = measure(case, left / (len(GPU_CASES) - index), facts["failures"])
        rows += new
        print(f"\n{case.name} ({case.why}), {case.dtype}")
        columns = ["mode", "clock", "provider", "median_ms", "p20_ms", "p80_ms", "ratio", "error"]
        print(text_table(columns, [[str(r[column]) for column in columns] for r in new]), flush=True)
        write_rows(out, facts, rows)
    write_rows(out, facts, rows)
    draw_speed(out)
    for failure in facts["failures"]:
        print(failure)
    print(f"\n{aims_table(rows, device)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
