"""A data set of the user's: a folder for each class, or a CSV file of paths and classes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.layouts import content, looks_like
from svmax_ops.runs.retrieval.data.listing import checked, image_folder, numbered, require_disjoint, split
from svmax_ops.runs.retrieval.data.pictures import RetrievalData, halves

_REQUIRED = ("path", "class")


def folder(config: RetrievalConfig) -> RetrievalData:
    """``--root``: a CSV file with the columns path, class and split (train or test; the column may be left out); a
    folder with one such file; a folder for each class; or ``train/`` and ``test/`` with a folder for each class.

    Without a split, half of the classes train, chosen at random by a fixed seed.
    """
    root = config.root
    if root is None:
        raise UserError("--dataset folder needs --root, a folder of a folder for each class, or a CSV file.")
    if not root.exists():
        raise UserError(f"--root {root} is neither a folder nor a file.")
    table = root if root.is_file() else _table(root)
    if table is not None:
        root = table.parent
        names, classes, splits = _read(table)
    else:
        names, classes, splits = _folders(root)
    labels = numbered(classes)
    if not splits:
        training = {number + 1 for number in halves(len(set(labels)))[0].tolist()}
        splits = ["train" if label in training else "test" for label in labels]
    trains = [name == "train" for name in splits]
    require_disjoint(config.root, *split(names, classes, trains))
    return checked("Images", root, *split(names, labels, trains))


def _folders(root: Path) -> tuple[list[str], list[str], list[str]]:
    looks = looks_like(root, depth=0)
    if looks:  # its folders are not its classes, or it has a split of its own
        raise UserError(f"--root {root} {looks}.")
    if (root / "train").is_dir() and (root / "test").is_dir():
        train, test = (image_folder(root, half) for half in ("train", "test"))
        names, classes = train[0] + test[0], train[1] + test[1]
        splits = ["train"] * len(train[0]) + ["test"] * len(test[0])
    else:
        names, classes = image_folder(root)
        splits = []
    if not names:
        raise UserError(
            f"--root {root} has no images: looked for a folder for each class with {', '.join(IMG_EXTENSIONS)} files,"
            " for train/ and test/ with such folders, and for a CSV file with the columns path and class; found"
            f" {content(root)}."
        )
    return names, classes, splits


def _table(root: Path) -> Path | None:
    """The CSV file in a folder, where it has one that names images."""
    files = [path for path in sorted(root.glob("*.csv")) if _columns(_rows(path))]
    if len(files) > 1:
        raise UserError(f"--root {root} has more than one CSV file of images, {files[0].name} and {files[1].name}.")
    return files[0] if files else None


def _read(path: Path) -> tuple[list[str], list[str], list[str]]:
    """The columns path, class and, if there is one, split."""
    rows = _rows(path)
    columns = _columns(rows)
    if not columns:
        raise UserError(f"{path} is no CSV file with the columns path, class and, if wanted, split in its first line.")
    found = []
    try:
        for row in rows:
            values = [(row[column] or "").strip() for column in columns]
            if not all(values) or values[2:] not in ([], ["train"], ["test"]):
                given = ", ".join(f"{column} {value!r}" for column, value in zip(columns, values, strict=True))
                accepted = "a path, a class" + (" and train or test" if len(columns) == 3 else "")
                raise UserError(f"{path}, line {rows.line_num}: {given} is not {accepted}.")
            found.append(values)
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}.") from error
    if not found:
        raise UserError(f"{path} names no images.")
    names, classes, *splits = (list(column) for column in zip(*found, strict=True))
    return names, classes, splits[0] if splits else []


def _columns(rows: csv.DictReader[str]) -> list[str]:
    """Those that are wanted and there; none if the required ones are not."""
    try:
        header = rows.fieldnames or ()
    except csv.Error:
        return []
    return [*_REQUIRED, *({"split"} & set(header))] if set(_REQUIRED) <= set(header) else []


def _rows(path: Path) -> csv.DictReader[str]:
    try:
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return csv.DictReader(io.StringIO(text))
