"""A list of images with their classes: a CSV file, whichever program wrote it."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path, PurePath
from typing import NamedTuple

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.class_folders import LeftOut, is_image, listed
from svmax_ops.runs.retrieval.data.split_words import split_of

OTHER_TABLES = "CSV file without a column for the path", "CSV files without a column for the path"
COLUMNS = {
    "path": (
        *("path", "image_path", "img_path", "file_path", "filepath", "file", "filename", "file_name"),
        *("image", "image_name", "image_file", "img"),
    ),
    "class": ("class", "label", "class_name", "label_name", "class_id", "label_id", "category", "target"),
    "split": ("split", "set", "subset", "partition"),
}
"""What a column may be called, its own name first."""
_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"
_LONGEST_SHOWN = 60


class Table(NamedTuple):
    names: list[str]
    """Paths of the images, relative to the file's folder."""
    classes: list[str]
    splits: list[str]
    """``split_of`` them; empty where the file has no such column."""


class _Header(NamedTuple):
    line: str
    delimiter: str
    columns: dict[str, str]
    """For each of ``COLUMNS`` that is there, how the file writes it."""

    @property
    def is_whole(self) -> bool:
        return {"path", "class"} <= self.columns.keys()


def find_table(root: Path, left_out: LeftOut) -> Path | None:
    """The file in a folder that lists images with their classes, where it has one; other tables are left out.

    Raises:
        UserError: there are two, or one lists images in a way that is not understood.
    """
    found = []
    for path in (root / name for name in listed(root) if name.lower().endswith(_SUFFIXES)):
        if not path.is_file():
            continue
        header = _header(path, _text(path))
        if header.is_whole:
            found.append(path)
        elif "path" in header.columns or any(map(is_image, header.line.replace('"', "").split(header.delimiter))):
            raise UserError(f"{_not_understood(path, header)}, or move the file elsewhere.")
        else:
            left_out.add(OTHER_TABLES, path.name)
    if len(found) > 1:
        raise UserError(f"--root {root} has more than one CSV file of images, {found[0].name} and {found[1].name}.")
    return found[0] if found else None


def read_table(path: Path) -> Table:
    """The images that the file lists.

    Raises:
        UserError: a column is missing, or a line is not as it should be; names it.
    """
    text = _text(path)
    header = _header(path, text)
    if not header.is_whole:
        raise UserError(f"{_not_understood(path, header)}.")
    rows = csv.DictReader(io.StringIO(text), delimiter=header.delimiter, skipinitialspace=True)
    table = Table([], [], [])
    try:
        for row in rows:
            values = {column: (row[written] or "").strip() for column, written in header.columns.items()}
            split = split_of(values.get("split", ""))
            if not all(values.values()) or ("split" in values and split is None):
                given = ", ".join(f"{column} {value!r}" for column, value in values.items())
                accepted = "a path, a class" + (" and train, test or val" if "split" in values else "")
                raise UserError(f"{path}, line {rows.line_num}: {given} is not {accepted}.")
            table.names.append(str(PurePath(values["path"])))  # "./a.jpg" is a.jpg
            table.classes.append(values["class"])
            if split is not None:
                table.splits.append(split)
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}.") from error
    if not table.names:
        raise UserError(f"{path} names no images.")
    return table


def _header(path: Path, text: str) -> _Header:
    """The first line, by the delimiter that makes the most of it.

    Raises:
        UserError: two columns may be meant for the same.
    """
    line = text.partition("\n")[0].rstrip("\r")
    headers = [_Header(line, delimiter, _columns(path, _cells(line, delimiter))) for delimiter in _DELIMITERS]
    return max(headers, key=lambda header: len(header.columns))


def _columns(path: Path, cells: list[str]) -> dict[str, str]:
    columns = {}
    for column, words in COLUMNS.items():
        fitting = [cell for cell in cells if _word(cell) in words]
        own = [cell for cell in fitting if _word(cell) == column]
        if len(own or fitting) > 1:
            raise UserError(
                f"{path} has {len(fitting)} columns for the {column}, {', '.join(map(repr, fitting))}; call one of them"
                f" {column}."
            )
        if fitting:
            columns[column] = (own or fitting)[0]
    return columns


def _word(cell: str) -> str:
    return cell.strip().lower().replace(" ", "_").replace("-", "_")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def _not_understood(path: Path, header: _Header) -> str:
    line = header.line if len(header.line) <= _LONGEST_SHOWN else header.line[:_LONGEST_SHOWN] + "..."
    lacking = " and ".join(
        f"the {column} ({', '.join(COLUMNS[column])})" for column in ("path", "class") if column not in header.columns
    )
    rest = "rename one (between commas, semicolons or tabs)"
    return f"{path}: its first line, {line!r}, has no column for {lacking}; {rest}"


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # a spreadsheet's "Unicode text"
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")
