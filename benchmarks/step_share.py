"""SVMax's share of a training step: the whole step without it, with it, and with torch's SVD in its place.

python -m benchmarks.step_share                   # about 10 minutes of one core; MobileNetV2 takes 13 GB
python -m benchmarks.step_share --cases small --rounds 10

Times are CPU seconds of one thread: on an idle machine those of the clock. On a busy one the clock would make a step of
seconds longer, which others interrupt, and leave a term of half a millisecond as it is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.machine import RESULTS, machine, text_table, write_rows
from benchmarks.registry import normalized_svdvals
from benchmarks.timing import Timing
from svmax_ops import svmax_loss
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.losses import LOSSES, ranking_loss
from svmax_ops.runs.retrieval.models import build_network

TERMS: dict[str, Callable[[Tensor], Tensor | float]] = {  # what is added to the ranking loss
    "none": lambda x: 0.0,  # comes first
    "svmax_ops": svmax_loss,
    "torch.linalg.svdvals": lambda x: -normalized_svdvals(x) / x.shape[1],
}


class Case(NamedTuple):
    """A network, its pictures, and how many rounds are worth their time."""

    network: str
    picture: tuple[int, int, int]
    d: int
    rounds: int


CASES = {  # both: the paper's batch and contrastive loss, float32
    "small": Case("small", (1, 32, 32), 64, 60),
    "mobilenet_v2": Case("mobilenet_v2", (3, 224, 224), 128, 7),
}


class Training:
    """A network with its optimizer and one batch of noise, which takes as long as a batch of pictures."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        config = RetrievalConfig(network=case.network, weights="none", dim=case.d).resolved()
        self.weight, self.b = config.weight, config.batch_size
        self.network = build_network(config, case.picture)
        self.ranking_loss = ranking_loss(config)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=config.momentum)
        self.pictures = torch.randn(self.b, *case.picture)
        self.labels = torch.arange(self.b) // LOSSES[config.loss].samples_per_class

    def step(self, term: Callable[[Tensor], Tensor | float]) -> Tensor:
        """As svmax_ops.runs.retrieval.training does it; the activations ``[b, d]``."""
        activations = self.network(self.pictures)
        loss = self.ranking_loss(activations, self.labels) + self.weight * term(activations)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return activations.detach()


def alone(term: Callable[[Tensor], Tensor], activations: Tensor) -> None:
    """Forward and backward of a term, on ``[b, d]``."""
    term(activations.clone().requires_grad_()).backward()


def measure(name: str, case: Case, rounds: int) -> list[dict[str, Any]]:
    """The rows of a case. The three kinds of step take turns; after each the two terms alone do, on its activations."""
    training = Training(case)
    steps: dict[str, list[float]] = {term: [] for term in TERMS}
    terms: dict[str, list[float]] = {term: [] for term in list(TERMS)[1:]}
    for term in TERMS:  # allocates, and loads what is loaded on first use
        training.step(TERMS[term])
    for turn in range(rounds):
        for kind in _from(turn, steps):
            activations = _timed(steps[kind], lambda kind=kind: training.step(TERMS[kind]))
            for term in _from(turn, terms):
                _timed(terms[term], lambda term=term, x=activations: alone(TERMS[term], x))
    facts = {
        "case": name,
        "picture": "x".join(map(str, case.picture)),
        "shape": f"{training.b}x{case.d}",
        "threads": torch.get_num_threads(),
        "rounds": rounds,
    }
    rows = []
    for kind, samples in steps.items():
        step, term = Timing.of(samples), Timing.of(terms.get(kind, [0.0]))  # no term takes no time
        times = {f"{what}_{k}": v for what, t in (("step", step), ("term", term)) for k, v in t.columns().items()}
        rows.append({**facts, "term": kind, **times, "share": float(f"{term.median / step.median:.2g}")})
    return rows


def _from(turn: int, names: Mapping[str, object]) -> list[str]:
    """The names, another one first in each turn."""
    first = turn % len(names)
    return [*names][first:] + [*names][:first]


def _timed(samples: list[float], call: Callable[[], Any]) -> Any:
    begin = time.process_time()
    result = call()
    samples.append(time.process_time() - begin)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_share", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    each = ", ".join(f"{case.rounds} of {name}" for name, case in CASES.items())
    parser.add_argument("--rounds", type=int, help=f"steps of each kind (default: {each})")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_share", help="writes OUT.json and OUT.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts, rows = machine(), []
    for name in options.cases:
        rows += measure(name, CASES[name], options.rounds or CASES[name].rounds)
    header = ["case", "term", "step, median ms", "20 % - 80 %", "term alone, median ms", "20 % - 80 %", "share"]
    print(text_table(header, map(_printed, rows)))
    write_rows(options.out, facts, rows)


def percent(share: float) -> str:
    """Two digits, however small."""
    return f"{100 * share:.2g} %"


def _printed(row: dict[str, Any]) -> list[str]:
    times = [
        text
        for what in ("step", "term")
        for text in (f"{row[f'{what}_median_ms']:.3f}", f"{row[f'{what}_p20_ms']:.3f} - {row[f'{what}_p80_ms']:.3f}")
    ]
    return [row["case"], row["term"], *times, percent(row["share"])]


if __name__ == "__main__":
    main()
