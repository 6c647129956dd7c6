"""CUB-200-2011 (Wah et al., 2011): 200 birds; the first half of the classes trains (paper, section 4)."""

from __future__ import annotations

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.layouts import LAYOUTS, locate
from svmax_ops.runs.retrieval.data.listing import Count, checked, read_columns, split
from svmax_ops.runs.retrieval.data.pictures import RetrievalData

PUBLISHED = Count(100, 5864), Count(100, 5924)
LAST_TRAINING_CLASS = 100


def cub200(config: RetrievalConfig) -> RetrievalData:
    """``images.txt``, ``image_class_labels.txt`` and ``images/``; a label is the number of a class, from 1."""
    root = locate(config)
    images, names = read_columns(root / "images.txt", ("image_id", "path"))
    labelled, classes = read_columns(root / "image_class_labels.txt", ("image_id", "class_id"))
    class_of = dict(zip(labelled, classes, strict=True))
    for image in images:
        if image not in class_of:
            raise UserError(f"{root / 'image_class_labels.txt'} has no line for image {image} of images.txt.")
    labels = [class_of[image] for image in images]
    halves = split([f"images/{name}" for name in names], labels, [label <= LAST_TRAINING_CLASS for label in labels])
    return checked(LAYOUTS["cub200"].title, root, *halves, PUBLISHED if config.check_counts else None)
