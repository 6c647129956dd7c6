"""What the evaluation of retrieval costs on as many embeddings as the largest data set has to test on.

python -m benchmarks.evaluation_scale                       # about 10 minutes of one core, 2 GiB
python -m benchmarks.evaluation_scale --pictures 2000 --classes 400

The sizes are those of Stanford Online Products: 60,502 test pictures in 11,316 classes, R@1, 8, 10, 100 and 1000. Each
row is measured in a process of its own, for its peak memory. The CPU seconds of one thread are those of the clock on an
idle machine; more threads are faster there, but wait for each other on a busy one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import RESULTS, machine, text_table, write_rows
from svmax_ops.runs.retrieval.evaluation import evaluate, recalls
from svmax_ops.runs.retrieval.samplers import ClassBatches

DIMENSIONS = 128
RECALL_AT = (1, 8, 10, 100, 1000)
SPREAD, COLLAPSED, CLUMPS = "spread", "collapsed, 1e-4", "two clumps, 1e-4"
_NOISE = 1.5  # within a class: two fifths of the queries miss at R@1
_TRAIN = 59_551 / 60_502  # pictures to train on for one to test on, and two more classes
Measure = Callable[[Tensor, Tensor], dict[str, float]]


def labelled_embeddings(kind: str, pictures: int, classes: int) -> tuple[Tensor, Tensor]:
    """Unit vectors ``[n, 128]`` around the centre of their class; or that, 1e-4 small, around one or two points."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(pictures) % classes
    noise = _NOISE * torch.randn(pictures, DIMENSIONS, generator=generator)
    x = F.normalize(torch.randn(classes, DIMENSIONS, generator=generator)[labels] + noise)
    if kind != SPREAD:
        points = F.normalize(torch.randn(1 if kind == COLLAPSED else 2, DIMENSIONS, generator=generator))
        x = F.normalize(points[labels % len(points)] + 1e-4 * x)
    return x, labels


def faiss_recalls(x: Tensor, labels: Tensor) -> dict[str, float]:
    """The usual way: faiss's exact search in float32, for as many neighbours as the largest K."""
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x.numpy())
    most = min(max(RECALL_AT), len(x) - 1)
    hits = torch.zeros(len(RECALL_AT))
    for chunk in torch.arange(len(x)).split(4096):  # whose neighbours fit in memory
        found = torch.from_numpy(index.search(x[chunk].numpy(), most + 1)[1])
        itself = found == chunk[:, None]
        itself[~itself.any(1), -1] = True  # not found among them: drop the last
        right = labels[found[~itself].view(-1, most)] == labels[chunk, None]
        hits += torch.stack([right[:, :k].any(1).sum() for k in RECALL_AT])
    return {f"recall_at_{k}": count.item() / len(x) for k, count in zip(RECALL_AT, hits, strict=True)}


def class_lists(x: Tensor, labels: Tensor) -> dict[str, float]:
    """The pictures of each class, as the batches need them: of the test set and of a training set like it."""
    train = torch.arange(round(_TRAIN * len(labels))) % (len(labels.unique()) + 2)
    for each in (train, labels):
        ClassBatches(each[torch.randperm(len(each))], p=2, l=2, seed=0)
    return {}


MEASURES: dict[str, tuple[Measure, tuple[str, ...]]] = {
    "R@K, NMI and spectra": (lambda x, labels: evaluate(x, labels, 144, RECALL_AT), (SPREAD,)),
    "R@K": (lambda x, labels: recalls(x, labels, RECALL_AT), (SPREAD, COLLAPSED, CLUMPS)),
    "R@K, faiss search in float32": (faiss_recalls, (SPREAD, COLLAPSED, CLUMPS)),
    "class lists": (class_lists, (SPREAD,)),
}


def measure(name: str, kind: str, pictures: int, classes: int) -> dict[str, Any]:
    """One row, in this process."""
    x, labels = labelled_embeddings(kind, pictures, classes)
    clock, cpu = time.perf_counter(), time.process_time()
    values = MEASURES[name][0](x, labels)
    row: dict[str, Any] = {
        "measure": name,
        "embeddings": kind,
        "pictures": pictures,
        "classes": classes,
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - clock, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_gib": round(peak_memory() / 2**30, 2),
    }
    shown = ("nmi", *(f"recall_at_{k}" for k in RECALL_AT))
    return row | {name: round(values[name], 4) if name in values else None for name in shown}


def peak_memory() -> int:
    """The most bytes this process held at once; getrusage's would begin with those of the process it came from."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def measure_apart(name: str, kind: str, pictures: int, classes: int, threads: int) -> dict[str, Any]:
    """One row, in a new process."""
    command = [sys.executable, "-m", "benchmarks.evaluation_scale", "--one", json.dumps([name, kind])]
    command += ["--pictures", str(pictures), "--classes", str(classes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    root = Path(__file__).parent.parent
    return json.loads(subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=60_502, help="embeddings (default 60502)")
    parser.add_argument("--classes", type=int, default=11_316, help="of them (default 11316)")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of faiss (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation_scale", help="writes OUT.json and OUT.csv")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.pictures, options.classes)))
        return
    facts, rows = machine(), []
    for name, (_, kinds) in MEASURES.items():
        for kind in kinds:
            rows.append(measure_apart(name, kind, options.pictures, options.classes, options.threads))
            print(f"{name}, {kind}: {rows[-1]['seconds']} s", file=sys.stderr)
    shown = ("measure", "embeddings", "seconds", "cpu_seconds", "peak_gib", "recall_at_1", "recall_at_1000", "nmi")
    print(text_table(shown, [["" if row[name] is None else str(row[name]) for name in shown] for row in rows]))
    write_rows(options.out, facts, rows)


if __name__ == "__main__":
    main()
