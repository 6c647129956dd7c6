"""TensorBoard's file of a run: its scalars and histograms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_BINS = 30  # as TensorBoard shows them


class EventRecords:
    """Appends to ``file``; where that is empty, what every such file begins with."""

    def __init__(self, file: BinaryIO) -> None:
        # tensorboard's own writer fails in a thread of its own, with a traceback and too late for us to end well.
        self._records = RecordWriter(file)
        if not file.tell():
            self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def log(self, line: Mapping[str, Any], histograms: Mapping[str, Sequence[float]]) -> None:
        """The plain numbers of a ``line`` with ``step``; as histograms its lists and the further ones."""
        prefix = "/".join(str(line[key]) for key in ("split", "of") if key in line)
        values = [Summary.Value(tag=f"{prefix}/{k}", simple_value=v) for k, v in line.items() if _is_plotted(k, v)]
        lists = {**{k: v for k, v in line.items() if isinstance(v, list)}, **histograms}
        values += [Summary.Value(tag=f"{prefix}/{k}", histo=_histogram(v)) for k, v in lists.items()]
        event = Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values))
        self._records.write(event.SerializeToString())
        self._records.flush()


def _is_plotted(name: str, value: object) -> bool:
    return name != "step" and isinstance(value, (int, float))


def _histogram(values: Sequence[float]) -> HistogramProto:
    """As TensorBoard keeps one: how many values are at most each limit and above the one before."""
    numbers = np.asarray(values, np.float64)
    counts, edges = [], np.zeros(1)
    if np.isfinite(numbers).all():
        # NumPy's own rules make as many bins as memory holds, or refuse, where most of the values are almost equal.
        edges = np.linspace(numbers.min(), numbers.max(), _BINS + 1)
        counts, _ = np.histogram(numbers, edges)
    return HistogramProto(
        min=numbers.min(), max=numbers.max(), num=len(numbers), sum=numbers.sum(), sum_squares=np.square(numbers).sum(),
        bucket_limit=edges[1:], bucket=counts,
    )  # fmt: skip
