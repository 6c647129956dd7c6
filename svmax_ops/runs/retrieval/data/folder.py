"""A data set of the user's: a folder for each class, or a CSV file of paths and classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.class_folders import (
    SUFFIXES,
    LeftOut,
    first_of,
    has_images,
    read_class_folders,
    subfolders,
)
from svmax_ops.runs.retrieval.data.layouts import content, looks_like
from svmax_ops.runs.retrieval.data.listing import checked, numbered, require_disjoint, split
from svmax_ops.runs.retrieval.data.pictures import RetrievalData, halves
from svmax_ops.runs.retrieval.data.split_words import TEST, TRAIN, VALIDATION, WORDS, split_of
from svmax_ops.runs.retrieval.data.table import find_table, read_table

_DEEPEST = 2  # folders down, as for the data sets of the paper
_UNUSED = "image to validate on", "images to validate on"
_OTHER_FOLDERS = "folder beside those of the split", "folders beside those of the split"


class _Found(NamedTuple):
    root: Path
    """What the names are relative to."""
    names: list[str]
    classes: list[str]
    splits: list[str]
    """As ``split_of`` says; empty: none is given."""
    source: str
    """Where they were found."""
    notes: tuple[str, ...] = ()


def folder(config: RetrievalConfig) -> RetrievalData:
    """``--root``: a CSV file with the columns path, class and split (the last may be left out); a folder with one such
    file; a folder for each class; ``train/`` and ``test/`` with a folder for each class; or the folder around it.

    Without a split, half of the classes train, chosen at random by a fixed seed.
    """
    root = config.root
    if root is None:
        raise UserError("--dataset folder needs --root, a folder of a folder for each class, or a CSV file.")
    if not root.exists():
        raise UserError(f"--root {root} is neither a folder nor a file.")
    left_out = LeftOut()
    found = _without_validation(_table(root) if root.is_file() else _search(root, left_out), left_out)
    labels = numbered(found.classes)
    if found.splits:
        trains = [name == TRAIN for name in found.splits]
    else:
        training = {number + 1 for number in halves(len(set(labels)))[0].tolist()}
        trains = [label in training for label in labels]
    named = split(found.names, found.classes, trains)
    require_disjoint(root, *named)
    train, test = (first_of(sorted(set(half.labels))) or "none" for half in named)
    notes = (f"{found.source}; classes to train on: {train}; to test on: {test}", *found.notes, *left_out.lines())
    return checked("Images", found.root, *split(found.names, labels, trains), notes=notes)


def _table(path: Path) -> _Found:
    table = read_table(path)
    halves = "split by its column" if table.splits else "split by class at random"
    return _Found(path.parent, *table, f"listed in {path.name}, {halves}")


def _search(root: Path, left_out: LeftOut) -> _Found:
    """What is in the folder, or in the only folder in it: a single class could not be trained on."""
    for depth in range(_DEEPEST + 1):
        looks = looks_like(root, depth=0)
        if looks:  # its folders are not its classes, or it has a split of its own
            raise UserError(f"--root {root} {looks}.")
        table = find_table(root, left_out)
        if table is not None:
            return _table(table)
        folders = subfolders(root)
        train_and_test = _train_and_test(root, folders)
        if train_and_test:
            return _read(root, train_and_test, left_out)
        below = root / folders[0] if len(folders) == 1 else root
        if below == root or depth == _DEEPEST or has_images(root) or has_images(below) or not subfolders(below):
            break
        root = below
    return _read(root, {}, left_out)


def _train_and_test(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """For each split that has a folder its name; empty where the folders are classes.

    Raises:
        UserError: two folders are for the same, or there are no others to test or to train on.
    """
    named = [name for name in folders if split_of(name)]
    found = {split_of(name): name for name in named}
    if TRAIN in found and len(found) > 1:
        if len(found) < len(named):
            raise UserError(f"--root {root} has {_with_slashes(named)}: one folder to train on and one to test on.")
        return {name: found[name] for name in WORDS if name in found}
    if named and not any(has_images(root / name) for name in named):  # a class may be called train
        wanted = [f"{name}/" for words in WORDS.values() for name in words]
        raise UserError(
            f"--root {root} has {_with_slashes(named)} without the other half (looked for {', '.join(wanted)}; found"
            f" {content(root)}); --root {root / named[0]} alone would be split by class at random."
        )
    return {}


def _read(root: Path, splits: dict[str, str], left_out: LeftOut) -> _Found:
    """The classes in the folders of the splits, or in ``root`` itself."""
    names, classes, named = [], [], []
    for name, below in (splits or {"": ""}).items():
        more, their_classes = read_class_folders(root, below, left_out)
        names += more
        classes += their_classes
        named += [name] * len(more) if splits else []
    if splits:
        left_out.add(_OTHER_FOLDERS, *(name for name in subfolders(root) if name not in splits.values()))
    if not names:
        raise UserError(
            f"--root {root} has no images: looked for a folder for each class with {', '.join(SUFFIXES)} files, for"
            " train/ and test/ with such folders, and for a CSV file with the columns path and class; found"
            f" {'; '.join([content(root), *left_out.lines()])}."
        )
    source = (
        f"folders {_with_slashes(list(splits.values()))}"
        if splits
        else "a folder for each class, split by class at random"
    )
    return _Found(root, names, classes, named, source, _one_too_high(names, depth=1 + bool(splits)))


def _one_too_high(names: Sequence[str], depth: int) -> tuple[str, ...]:
    """A note where no class, a folder at ``depth``, has images of its own."""
    if any(name.count(os.sep) <= depth for name in names):
        return ()
    further = first_of(sorted({os.path.dirname(name) for name in names}))
    return (f"their images lie further down, in {further}: if those are the classes, give a --root further down",)


def _without_validation(found: _Found, left_out: LeftOut) -> _Found:
    """With two splits: tested is on the images to validate on where there are no others to test on."""
    if not {TEST, VALIDATION} <= set(found.splits):
        return found
    rows = list(zip(found.names, found.classes, found.splits, strict=True))
    left_out.add(_UNUSED, *(name for name, _, its in rows if its == VALIDATION))
    names, classes, splits = (list(column) for column in zip(*(r for r in rows if r[2] != VALIDATION), strict=True))
    return found._replace(names=names, classes=classes, splits=splits)


def _with_slashes(folders: Sequence[str]) -> str:
    return ", ".join(f"{name}/" for name in folders)
