"""A run of several: some rows of the paper's figure with some seeds each, in parallel processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.folders import Run, read_run
from svmax_ops.runs.harness import RunFolder, is_finished
from svmax_ops.runs.processes import run_all
from svmax_ops.runs.report import ReportConfig, report
from svmax_ops.runs.rows_and_seeds import seeds_of


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
        config: a :class:`~svmax_ops.runs.rows_and_seeds.RowsAndSeeds` that is a dataclass, with ``workers``, ``out``,
            ``resume`` and ``resolved()``.
    Raises:
        UserError: the folder cannot be used, or a run failed.
        Stopped: SIGINT or SIGTERM; the runs under way have written their checkpoints.
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
