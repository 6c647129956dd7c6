"""A run of several: some rows of the paper's figure with some seeds each, in parallel processes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from svmax_ops.runs.command_line import as_arguments, as_command, kept_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.folders import Run, read_run
from svmax_ops.runs.harness import RunFolder, is_finished
from svmax_ops.runs.processes import run_all
from svmax_ops.runs.report import ReportConfig, report

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
        rows = self.resolved().rows
        for name, fitting in self.row_settings.items():
            given = as_arguments(type(self)(**{name: getattr(self, name)}))
            if given and not set(fitting) & set(rows.split(",")):
                raise UserError(f"{' '.join(given)} needs {' or '.join(fitting)} in --rows; got {rows}.")


class Member(NamedTuple):
    """A finished run of one row and one seed."""

    run: Run
    row: str
    seed: int


def finished_members(folders: Sequence[Path], setting: Callable[[dict[str, Any]], object]) -> list[Member]:
    """The finished runs in the run folders ``folders``, by their seeds; what is left out is named.

    Args:
        folders: of one row and one seed each.
        setting: of a configuration: what, beside row and seed, tells its run from others.
    Raises:
        UserError: none is finished, or a folder is that of several runs.
    """
    found: dict[str, Member] = {}
    for folder in folders:
        if not is_finished(folder):
            print(f"{folder}: not finished, left out")
            continue
        run = read_run(folder)
        row, seeds = run.config["rows"].strip(), seeds_of(run.config["seeds"])
        if "," in row or len(seeds) > 1:
            raise UserError(f"{folder} is a run of several rows or seeds, and their folders are not in it any more.")
        key = repr((row, seeds, setting(run.config)))
        if key in found:
            print(f"{folder}: the same run as {found[key].run.path}, left out")
        found.setdefault(key, Member(run, row, seeds[0]))
    if not found:
        raise UserError("none of the runs is finished yet.")
    return sorted(found.values(), key=lambda member: member.seed)


def run_members(command: str, config: Any) -> None:
    """Run each row with each seed in a folder of its own in ``config.out``, then bring them together there.

    ``config.out`` gets the metrics of all of them, in the order of the seeds, and the report.

    Args:
        command: of ``svmax``.
        config: a :class:`RowsAndSeeds` that is a dataclass, with ``workers``, ``out``, ``resume`` and ``resolved()``.
    Raises:
        UserError: the folder cannot be used, or a run failed.
        Stopped: a signal, or nobody reads the output any more; the runs under way have written their checkpoints.
    """
    whole = config.resolved()
    members = [
        dataclasses.replace(
            config.of_row(row), seeds=seed, workers=1, out=config.out / f"{row}-seed{seed}", resume=False
        )
        for seed in whole.seeds.split(",")
        for row in whole.rows.split(",")
    ]
    with RunFolder(
        config.out,
        kept_values(whole),
        as_command(command, dataclasses.replace(config, resume=False)),
        config.resume,
        events=False,  # in one file, lines of several rows and seeds would share their tags
    ) as folder:
        if folder.checkpoint and folder.checkpoint["finished"]:
            print(f"{config.out} is finished: all {len(members)} runs are done.")
            return
        run_all(str(config.out), command, members, config.workers, folder.resume_command)
        lines = [line for member in members for line in read_run(member.out).lines]
        for line in lines:
            folder.log(line)
        report(ReportConfig(tuple(member.out for member in members), config.out))
        folder.save(max(line["step"] for line in lines), {"finished": True})
