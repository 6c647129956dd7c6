"""From a data set's lists to its two halves, checked: the files are there, and as many as were published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.data.pictures import RetrievalData


class Half(NamedTuple):
    names: list[str]
    """Paths of the images, relative to the data set's folder."""
    labels: list[Any]
    """Their classes."""


class Count(NamedTuple):
    """Of a half."""

    classes: int
    images: int


def read_columns(path: Path, columns: Sequence[str], header: bool = False) -> list[list]:
    """The columns of a text file.

    Args:
        path: a line for each image; words separated by blanks.
        columns: their names; one named ``..._id`` holds whole numbers, and the last one's words may have blanks.
        header: the first line names the columns.
    Raises:
        UserError: there is no such file, or a line of it is not as it should be; names the line.
    """
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    lines = enumerate(text.split("\n"), 1)
    if header:
        number, line = next(lines)
        if line.split() != list(columns):
            raise _damaged(path, number, line, " ".join(columns))
    rows = []
    for number, line in lines:
        words = line.strip().split(None, len(columns) - 1)
        if not words:
            continue
        if not _fit(words, columns):
            raise _damaged(path, number, line, " ".join(f"<{column}>" for column in columns))
        rows.append([int(word) if _is_number(column) else word for word, column in zip(words, columns, strict=True)])
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]


def _fit(words: Sequence[str], columns: Sequence[str]) -> bool:
    return len(words) == len(columns) and all(
        word.isdecimal() for word, column in zip(words, columns, strict=True) if _is_number(column)
    )


def _is_number(column: str) -> bool:
    return column.endswith("_id")


def _damaged(path: Path, number: int, line: str, expected: str) -> UserError:
    shown = line if len(line) <= 60 else line[:60] + "..."
    return UserError(f"{path}, line {number}: {shown!r} is not {expected}.")


def numbered(classes: Sequence[str]) -> list[int]:
    """A number for each name, in alphabetical order from 1."""
    numbers = {name: number for number, name in enumerate(sorted(set(classes)), 1)}
    return [numbers[name] for name in classes]


def split(names: Sequence[str], labels: Sequence[Any], trains: Sequence[bool]) -> tuple[Half, Half]:
    """The images that train, and the others."""
    halves = Half([], []), Half([], [])
    for name, label, training in zip(names, labels, trains, strict=True):
        half = halves[0 if training else 1]
        half.names.append(name)
        half.labels.append(label)
    return halves


def require_disjoint(where: Path, train: Half, test: Half) -> None:
    """Refuse a split that puts images of one class in both halves."""
    shared = sorted(set(train.labels) & set(test.labels))
    if shared:
        more = f" and {len(shared) - 1:,} others" if len(shared) > 1 else ""
        raise UserError(
            f"{where} has class {shared[0]}{more} both to train and to test on: retrieval is for new classes."
        )


def checked(
    title: str,
    root: Path,
    train: Half,
    test: Half,
    published: tuple[Count, Count] | None = None,
    recall_at: tuple[int, ...] = RetrievalData.recall_at,
    notes: Sequence[str] = (),
) -> RetrievalData:
    """The data set, if it is whole.

    Args:
        title: its name.
        root: its folder.
        train: what to train on.
        test: the other classes.
        published: how many classes and images there are; None: not checked.
        recall_at: see ``RetrievalData``.
        notes: what else was found, and what was left out.
    Raises:
        UserError: other counts than the published ones, a half with fewer than two classes, or a file that is missing
            or listed twice.
    """
    counts = tuple(Count(len(set(half.labels)), len(half.names)) for half in (train, test))
    found = f"{_words(counts[0])} to train on, {_words(counts[1])} to test on"
    if published not in (None, counts):
        expected = f"{title} has {_words(published[0])}, and {_words(published[1])}"
        raise UserError(f"{root} has {found}; {expected} (--no-check-counts takes what is there).")
    if min(count.classes for count in counts) < 2:
        noted = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{root} has {found}; at least 2 classes of each are needed{noted}.")
    names = train.names + test.names
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{root / name} is listed {times} times.")
    missing = _missing(root, names)
    if missing:
        raise UserError(f"{root / missing[0]} is missing, the first of {len(missing):,} of {len(names):,} images.")
    train_images, test_images = (ImageFiles(root, *half) for half in (train, test))
    return RetrievalData(
        train_images, test_images, (f"{title} from {root}: {found}", *(f"  {note}" for note in notes)), recall_at
    )


def _words(count: Count) -> str:
    return f"{count.classes:,} class{'' if count.classes == 1 else 'es'} with {count.images:,} images"


def _missing(root: Path, names: Sequence[str]) -> list[str]:
    """Those that are not there; each folder is listed once, which is much faster than to ask for every file."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, file = os.path.split(name)
        if folder not in present:
            present[folder] = _listed(root / folder)
        if file not in present[folder]:
            missing.append(name)
    return missing


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.") from error
