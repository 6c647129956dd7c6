"""The data sets: each a function of the configuration that returns its pictures, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.cars196 import cars196
from svmax_ops.runs.retrieval.data.cub200 import cub200
from svmax_ops.runs.retrieval.data.folder import folder
from svmax_ops.runs.retrieval.data.fonts import fonts
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from svmax_ops.runs.retrieval.data.sop import sop
from svmax_ops.runs.retrieval.data.strokes import strokes

DATASETS: dict[str, Callable[[RetrievalConfig], RetrievalData]] = {
    "strokes": strokes,
    "fonts": fonts,
    "cub200": cub200,
    "cars196": cars196,
    "sop": sop,
    "folder": folder,
}
