"""A run of several: some rows of the paper's figure with some seeds each, in parallel processes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import RunFolder, read_metrics
from svmax_ops.runs.processes import run_all
from svmax_ops.runs.report import ReportConfig, report

_LAST_SEED = 2**32


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
        if not first <= last < _LAST_SEED or last - first > 9999:
            raise UserError(f"--seeds must be numbers in [0, 2^32) and ranges of them, like 0-4 or 0,2,7; got {text}.")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must name each seed once; got {text}.")
    return seeds


def run_members(command: str, config: Any, rows: Sequence[str], seeds: Sequence[int]) -> None:
    """Run each row with each seed in a folder of its own in ``config.out``, then bring them together there.

    ``config.out`` gets the metrics of all of them, in the order of the seeds, and the report.

    Args:
        command: of ``svmax``.
        config: with the fields ``rows``, ``seeds``, ``workers``, ``out`` and ``resume``.
        rows: of the paper's figure.
        seeds: the same for every row.
    Raises:
        UserError: the folder cannot be used, or a run failed.
        Stopped: SIGINT or SIGTERM; the runs under way have written their checkpoints.
    """
    members = [
        dataclasses.replace(
            config, rows=row, seeds=str(seed), workers=1, out=config.out / f"{row}-seed{seed}", resume=False
        )
        for seed in seeds
        for row in rows
    ]
    with RunFolder(
        config.out, kept_values(config), as_command(command, dataclasses.replace(config, resume=False)), config.resume
    ) as folder:
        if folder.checkpoint and folder.checkpoint["finished"]:
            print(f"{config.out} is finished: all {len(members)} runs are done.")
            return
        run_all(str(config.out), command, members, config.workers, folder.resume_command)
        lines = [line for member in members for line in read_metrics(member.out)]
        for line in lines:
            folder.log(line)
        report(ReportConfig(tuple(member.out for member in members), config.out))
        folder.save(max(line["step"] for line in lines), {"finished": True})
