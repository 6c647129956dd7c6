"""Which data set a folder holds: what its files are called, and where below ``--root`` they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.class_folders import first_of, subfolders


class Layout(NamedTuple):
    title: str
    marks: tuple[str, ...]
    """Patterns of names; one of them is enough to know the data set by, so that what else is missing can be named."""


LAYOUTS = {
    "cub200": Layout("CUB-200-2011", ("image_class_labels.txt",)),
    "cars196": Layout("CARS196", ("cars_annos*.mat", "car_ims", "cars_train", "cars_train_annos*.mat", "train/* 2012")),
    "sop": Layout("Stanford Online Products", ("Ebay_train.txt", "Ebay_test.txt")),
}


def locate(config: RetrievalConfig) -> Path:
    """The folder of ``config.dataset``: ``--root``, or one of the folders in it, or one of those in them.

    Raises:
        UserError: there is none; says what was looked for and what is there.
    """
    title, marks = LAYOUTS[config.dataset]
    root = config.root
    if root is None:
        raise UserError(f"--dataset {config.dataset} needs --root, the folder of {title} as it was unpacked.")
    if not root.is_dir():
        raise UserError(f"--root {root} is not a folder.")
    found = _find(root, marks)
    if found is None:
        looks = looks_like(root)
        raise UserError(
            f"--root {root} is not {title}: looked for {' or '.join(marks)}, there and two folders down; found"
            f" {content(root)}{looks and '; this ' + looks}."
        )
    return found


def looks_like(root: Path, depth: int = 2) -> str:
    """Which of the data sets this is, in words, or nothing."""
    for name, (title, marks) in LAYOUTS.items():
        if _find(root, marks, depth):
            return f"looks like {title}: use --dataset {name}"
    return ""


def content(folder: Path) -> str:
    """The first names in a folder."""
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        return "nothing that may be read"
    return first_of(names) or "nothing"


def _below(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in subfolders(folder)]
    except UserError:  # it may not be read; the data set is elsewhere
        return []


def _find(root: Path, marks: tuple[str, ...], depth: int = 2) -> Path | None:
    level = [root]
    for _ in range(depth + 1):
        for folder in level:
            if any(next(folder.glob(mark), None) for mark in marks):
                return folder
        level = [below for folder in level for below in _below(folder)]
    return None
