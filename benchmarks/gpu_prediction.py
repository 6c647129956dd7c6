"""From a kernel's counters to a predicted time. Nothing here was measured on a GPU: it is arithmetic on the assumptions
below, good for comparing kernels and chips, and to be replaced by measurements (make gpu-check).

A block does work of several kinds. Each has a throughput (what the emulator counted, at the rates that are published)
and a chain (how much of it waits for itself, read off the kernels). For a block that is alone on its multiprocessor
there are two times, and the truth is expected between them:
  at best   the longer of all chains, one after the other, and the busiest kind's throughput: all work overlaps;
  at worst  of every kind the longer of the two, one kind after the other: nothing overlaps but within a kind.
Blocks that share a multiprocessor overlap until one kind's throughput is used up. Blocks beyond what fits at once wait
for the next wave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.gpu_architectures import WARP, Architecture, occupancy, resident_blocks
from benchmarks.gpu_compiler import Compiled


class Assumption(NamedTuple):
    value: float
    unit: str
    source: str


SASS = "counted in what nvcc 13.0 makes of it for sm_90 (its usual path)"
ASSUMPTIONS = {
    "f64_latency": Assumption(
        8, "cycles", "V100: Jia et al. 2018, table of instruction latencies; taken for later chips"
    ),
    "f64_latency_two_units": Assumption(
        40, "cycles", "guess for sm_86, sm_89, sm_120: a warp needs 16 cycles of the two units, and then waits"
    ),
    "f32_latency": Assumption(4, "cycles", "A100: Abdelkhalik et al. 2022"),
    "special_latency": Assumption(
        36, "cycles", "guess: first approximation of a reciprocal or root, and the way there"
    ),
    "divide_f64": Assumption(8, "multiply-adds, one after the other", SASS),
    "root_f64": Assumption(8, "multiply-adds, one after the other", SASS),
    "exp_f64": Assumption(15, "multiply-adds, one after the other", SASS),
    "shuffle_latency": Assumption(23, "cycles", "A100, V100: about that of shared memory (Jia et al. 2018)"),
    "shuffles_a_clock": Assumption(1, "warp", "CUDA C++ Programming Guide: 32 results a clock"),
    "shared_latency": Assumption(23, "cycles", "A100: Abdelkhalik et al. 2022"),
    "l1_latency": Assumption(33, "cycles", "A100: Abdelkhalik et al. 2022"),
    "l2_latency": Assumption(230, "cycles", "A100 200 (Abdelkhalik et al. 2022), H100 about 260 (Luo et al. 2024)"),
    "l1_bytes_a_clock": Assumption(
        128,
        "bytes and multiprocessor",
        "CUDA tuning guides; all reads are counted, though lanes share some and L2 has many",
    ),
    "barrier_latency": Assumption(30, "cycles", "guess: arrival, release and the first instruction after"),
    "launch": Assumption(2.0, "us a kernel", "guess: from the end of a kernel to the next one's first instruction"),
    "quadrature": Assumption(2500, "cycles", "guess: elliptic functions of the poles, not counted by the emulator"),
}


def constant(name: str) -> float:
    return ASSUMPTIONS[name].value


@dataclass(frozen=True)
class Launch:
    """One kernel launch as the emulator reports it: counters of one block, the same for every block."""

    kernel: str
    threads: int
    shared_bytes: int
    blocks: int
    counters: dict[str, Any]

    @property
    def warps(self) -> int:
        return -(-self.threads // WARP)

    @property
    def in_f32(self) -> bool:
        """Whether most of its multiply-adds are float32."""
        return self.counters["f32"]["fma"] > self.counters["f64"]["fma"]


@dataclass(frozen=True)
class Chain:
    """The longest sequence of operations that wait for each other: how many of each."""

    arithmetic: float = 0
    """Multiply-adds, in the type that most of the kernel's are in."""
    divisions: float = 0
    roots: float = 0
    exponentials: float = 0
    shuffles: float = 0
    shared: float = 0
    l1: float = 0
    l2: float = 0
    cycles: float = 0
    """Of what is not listed."""

    def __add__(self, other: Chain) -> Chain:
        return Chain(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def __mul__(self, times: float) -> Chain:
        return Chain(*(getattr(self, f) * times for f in self.__dataclass_fields__))


# ---- chains, read off the kernels of csrc/cuda; n = min(b, d), N the kernel's template


@dataclass(frozen=True)
class Problem:
    b: int
    d: int
    poles: int
    gradient: bool
    splits: int = 1
    """Parts that the Gram matrix comes in."""

    @property
    def n(self) -> int:
        return min(self.b, self.d)


def template(n: int) -> int:
    """csrc/cuda/launch_plans.h: with_size."""
    return next(size for size in (16, 32, 64, 128, 256, 1024) if n <= size)


WARP_SUM = Chain(arithmetic=5, shuffles=5)


def gram_chain(p: Problem, launch: Launch) -> Chain:
    terms, tall = max(p.b, p.d), p.b >= p.d
    pieces = math.ceil(math.ceil(terms / 64) / p.splits)
    norms = (Chain(arithmetic=p.d / WARP, roots=1, l2=1) + WARP_SUM) * (64 / launch.warps)  # of a warp, in turn
    # A thread reads its eight numbers of a tile in groups of four, and divides for each; two tiles off the diagonal.
    tiles = 2 if p.n > 32 else 1
    piece = Chain(arithmetic=66, divisions=8 * tiles, l2=2 * tiles, shared=2)
    return (piece + norms) * pieces if tall else piece * pieces + norms


def spectral_chain(p: Problem, launch: Launch) -> Chain:
    n, size = p.n, template(p.n)
    alone = size <= 32
    warps, columns = 1 if alone else launch.warps, max(1, size / WARP)
    if size <= 128:
        # In registers: the pending update of a row, one pass over the rows of a warp, the sum over lanes; then, beside
        # each other, the sums over warps and the reflector; the new vectors.
        step = Chain(arithmetic=size / warps + columns + 11, roots=1, divisions=1, shuffles=2, shared=1) + WARP_SUM
        step = step + (Chain() if alone else Chain(shared=3))
    else:
        # In shared memory: a warp takes one row after the other, half of the matrix on average.
        row = Chain(arithmetic=n / 2 / WARP, shared=1) + WARP_SUM
        step = Chain(arithmetic=10 + 2 * warps, roots=1, divisions=1, shared=5) + row * (n / 2 / warps) + WARP_SUM
    reads = 9 if size == 128 else max(2, size / warps / 8 * columns)  # groups of eight numbers of a part, and the row
    load = Chain(arithmetic=p.splits + 6, l2=1 + reads * p.splits)
    # tr((T + shift)^-1), then that of every pole side by side, each from both ends of T; two lanes a pole. The factors
    # of a gradient go through all of T, in warps of their own where a matrix has more than one.
    rounds = math.ceil(p.poles / 16) if alone else 1
    length = n / 2 * (1 + rounds) + (n if alone else n / 2) * p.gradient
    pivots = Chain(arithmetic=3, divisions=1) * length
    factors = Chain(arithmetic=2, l2=0.125) * n if p.gradient else Chain()
    return load + step * n + pivots + factors + Chain(exponentials=1, cycles=constant("quadrature"))


def transform_chain(p: Problem, launch: Launch) -> Chain:
    n, size = p.n, template(p.n)
    # Two float64 vectors [N, columns] a warp are its shared memory: so that tells how many lanes a column has.
    lanes = launch.warps * WARP * 2 * 8 * size / launch.shared_bytes
    over_lanes = Chain(arithmetic=1, shuffles=1) * math.log2(lanes)
    reflect = Chain(arithmetic=size / lanes / 4 + 4, l2=0.5) + over_lanes  # half: the next one is read meanwhile
    passes = math.ceil(p.poles / (2 * lanes))  # two poles a lane
    block = Chain(arithmetic=12, l2=1, shared=2) + over_lanes  # of 8 rows
    return Chain(l2=4) + reflect * (2 * (n - 1)) + block * (2 * passes * math.ceil(n / 8))


def backward_chain(p: Problem, launch: Launch) -> Chain:
    chunk = Chain(arithmetic=17, l2=2, shared=2)
    rows_a_warp = 4 if p.d <= 32 else 1  # narrow matrices have more rows a block
    projection = (Chain(arithmetic=2, shared=2) * (p.d / WARP) + WARP_SUM) * rows_a_warp
    return Chain(divisions=2, l2=3) + chunk * (math.ceil(p.d / 128) * math.ceil(p.n / 16)) + projection


CHAINS = {
    "gram_kernel": gram_chain,
    "spectral_kernel": spectral_chain,
    "transform_kernel": transform_chain,
    "backward_kernel": backward_chain,
}


# ---- time


class Prediction(NamedTuple):
    """Of one launch on one chip."""

    best: float
    """Microseconds, if all work overlaps."""
    worst: float
    """Microseconds, if nothing overlaps but within a kind of work."""
    resident_blocks: int
    occupancy: float
    waves: int
    bound: str
    """The kind of work that takes longest, and which of its two: "f64 chain", "shared throughput"."""


def operations(counted: dict[str, float]) -> float:
    """Multiply-adds that the operations of a float type become, by the thread."""
    return (
        counted["add"]
        + counted["mul"]
        + counted["fma"]
        + counted["compare"]
        + counted["convert"]
        + constant("divide_f64") * counted["div"]
        + constant("root_f64") * counted["sqrt"]
        + constant("exp_f64") * counted["other"]
    )


def throughput(launch: Launch, chip: Architecture) -> dict[str, float]:
    """Cycles of a multiprocessor that a block takes, kind by kind."""
    counters = launch.counters
    reached = min(1.0, launch.warps / chip.schedulers)  # fewer warps leave schedulers without work
    return {
        "f64": operations(counters["f64"]) / chip.f64 / reached,
        "f32": operations(counters["f32"]) / chip.f32 / reached,
        "shuffles": counters["shuffles"] / constant("shuffles_a_clock"),
        "shared": counters["shared_wavefronts"],
        "global": (counters["global_read_bytes"] + counters["global_write_bytes"]) / constant("l1_bytes_a_clock"),
        "barriers": 0.0,
    }


def chains(launch: Launch, chain: Chain, chip: Architecture) -> dict[str, float]:
    """Cycles that a block takes if every unit were free, kind by kind."""
    f64_latency = constant("f64_latency") if chip.f64 > 2 else constant("f64_latency_two_units")
    arithmetic = constant("f32_latency") if launch.in_f32 else f64_latency
    special = constant("special_latency")
    return {
        "f64": chain.arithmetic * (0 if launch.in_f32 else arithmetic)
        + chain.divisions * (special + constant("divide_f64") * f64_latency)
        + chain.roots * (special + constant("root_f64") * f64_latency)
        + chain.exponentials * constant("exp_f64") * f64_latency
        + chain.cycles,
        "f32": chain.arithmetic * (arithmetic if launch.in_f32 else 0),
        "shuffles": chain.shuffles * constant("shuffle_latency"),
        "shared": chain.shared * constant("shared_latency"),
        "global": chain.l1 * constant("l1_latency") + chain.l2 * constant("l2_latency"),
        "barriers": launch.counters["barriers"] * constant("barrier_latency"),
    }


def predict(launch: Launch, compiled: Compiled, problem: Problem, chip: Architecture) -> Prediction:
    """The predicted time of one launch, with what the compiler made of it.

    Raises:
        ValueError: a block does not fit the chip, or a kernel whose chain is not known.
    """
    name = launch.kernel.split("<")[0]
    if name not in CHAINS:
        raise ValueError(f"predict: no chain is known for {name}; there are {', '.join(CHAINS)}.")
    shared = launch.shared_bytes + compiled.static_shared
    fit = resident_blocks(chip, launch.threads, compiled.registers, shared)
    if fit == 0:
        raise ValueError(f"predict: a block of {launch.kernel} does not fit {chip.name}.")
    busy, waiting = throughput(launch, chip), chains(launch, CHAINS[name](problem, launch), chip)
    each = {kind: max(busy[kind], waiting[kind]) for kind in busy}
    waves = -(-launch.blocks // (fit * chip.multiprocessors))
    together = min(fit, -(-launch.blocks // chip.multiprocessors))
    sharing = together * max(busy.values())
    best = waves * max(sum(waiting.values()), sharing)
    worst = waves * max(sum(each.values()), sharing)
    longest = max(each, key=each.__getitem__)
    return Prediction(
        *(constant("launch") + cycles / chip.clock / 1e3 for cycles in (best, worst)),
        fit,
        occupancy(chip, launch.threads, compiled.registers, shared),
        waves,
        f"{longest} {'chain' if waiting[longest] > busy[longest] else 'throughput'}",
    )
