"""The data sets: each a function of the configuration that returns its pictures, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.fonts import fonts
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from svmax_ops.runs.retrieval.data.strokes import strokes

DATASETS: dict[str, Callable[[RetrievalConfig], RetrievalData]] = {"strokes": strokes, "fonts": fonts}
