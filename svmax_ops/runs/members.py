"""A run of several: some rows of the paper's figure with some seeds each, in parallel processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.folders import Found, Run, read_run, reportable
from svmax_ops.runs.harness import METRICS, RunFolder, is_finished
from svmax_ops.runs.processes import run_all
from svmax_ops.runs.report import ReportConfig, report


class Member(NamedTuple):
    """A finished run of one row and one seed."""

    run: Run
    row: str
    seed: int


def finished_members(
    found: Found, config: type[Any], setting: Callable[[Mapping[str, Any]], object]
) -> tuple[list[Member], Found]:
    """The finished runs of one row and one seed in ``found``, by their seeds; and what a report leaves out.

    Args:
        found: runs of one command.
        config: the command's configuration.
        setting: of a configuration: what, beside row and seed, tells its run from others.
    Raises:
        UserError: none is finished.
    """
    chosen = reportable(found, config, _hindrance, lambda c: (c["rows"], c["seeds"], setting(c)))
    members = [Member(run, run.config["rows"], int(run.config["seeds"])) for run in chosen.runs]
    return sorted(members, key=lambda member: member.seed), chosen


def _hindrance(run: Run) -> str | None:
    if "," in run.config["rows"] + run.config["seeds"]:
        return "is a run of several rows or seeds, and their folders are not in it any more"
    if not is_finished(run.path):
        total = f" of {run.config['steps']}" if "steps" in run.config else ""
        return f"is not finished (step {run.step}{total})"
    if not any(line["split"] == "test" and line["step"] == run.step for line in run.lines):
        return f"cannot be read: {METRICS} lacks the last evaluation"
    return None


def run_members(command: str, config: Any) -> None:
    """Run each row with each seed in a folder of its own in ``config.out``, then bring them together there.

    ``config.out`` gets the metrics of all of them, in the order of the seeds, and the report.

    Args:
        command: of ``svmax``.
        config: a :class:`~svmax_ops.runs.rows_and_seeds.RowsAndSeeds` that is a dataclass, with ``workers``, ``out``,
            ``resume`` and ``resolved()``.
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
