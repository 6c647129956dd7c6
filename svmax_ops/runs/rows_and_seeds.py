"""The rows of a figure and the seeds that a configuration asks for, as they are written on a command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from svmax_ops.runs.command_line import as_option
from svmax_ops.runs.errors import UserError

Config = TypeVar("Config", bound=Any)
_LAST_SEED = 2**32
_MOST_SEEDS = 10_000


def rows_of(text: str, known: Sequence[str]) -> list[str]:
    """The rows named in ``text``, between commas.

    Raises:
        UserError: one is unknown or stands there twice.
    """
    rows = [row.strip() for row in text.split(",")]
    if len(set(rows)) < len(rows) or not set(rows) <= set(known):
        raise UserError(f"--rows must be some of {','.join(known)}, each once; got {text}.")
    return rows


def seeds_of(text: str) -> list[int]:
    """The seeds in ``text``: numbers and ranges between commas; "0-2,7" is 0, 1, 2 and 7.

    Raises:
        UserError: it is not of that form, or a seed stands there twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < _LAST_SEED or last - first >= _MOST_SEEDS:
            raise UserError(
                f"--seeds must be numbers in [0, 2^32) and ranges of up to {_MOST_SEEDS:,} of them, like 0-4 or 0,2,7;"
                f" got {text}."
            )
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must name each seed once; got {text}.")
    return seeds


def spelled(config: Config, known: Sequence[str]) -> Config:
    """``config`` with its rows and seeds written in the one way, so that a run is the same however they were given."""
    rows, seeds = rows_of(config.rows, known), seeds_of(config.seeds)
    return dataclasses.replace(config, rows=",".join(rows), seeds=",".join(map(str, seeds)))


class RowsAndSeeds:
    """What a configuration with ``rows`` and ``seeds`` says of them."""

    rows: str
    seeds: str
    row_settings: ClassVar[Mapping[str, Sequence[str]]]
    """The settings that have an effect on some rows only, with those rows."""

    @classmethod
    def settings_of(cls, row: str, names: Iterable[str]) -> list[str]:
        """Those of the settings ``names`` that have an effect on the row."""
        return [name for name in names if row in cls.row_settings.get(name, (row,))]

    @property
    def several(self) -> bool:
        """Whether it is of more than one run."""
        return "," in self.rows or len(seeds_of(self.seeds)) > 1

    @property
    def row(self) -> str:
        """The row of a run of one."""
        return self.rows.strip()

    @property
    def seed(self) -> int:
        """The seed of a run of one."""
        return seeds_of(self.seeds)[0]

    def of_row(self: Config, row: str) -> Config:
        """That row alone; a setting that has no effect on it is at its default."""
        default = type(self)()
        unused = {name: getattr(default, name) for name, rows in self.row_settings.items() if row not in rows}
        return dataclasses.replace(self, rows=row, **unused)

    def check_row_settings(self: Config) -> None:
        """Refuse a setting that has an effect on none of the rows.

        Raises:
            UserError: with the flag, the rows that it has an effect on and those that were given.
        """
        rows, default = self.resolved().rows, type(self)()
        for name, fitting in self.row_settings.items():
            value = getattr(self, name)
            if value != getattr(default, name) and not set(fitting) & set(rows.split(",")):
                given = " ".join(as_option(name, value))
                raise UserError(f"{given} needs {' or '.join(fitting)} in --rows; got {rows}.")
