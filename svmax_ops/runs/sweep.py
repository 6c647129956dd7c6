"""``svmax sweep``: every combination of a study, several at a time, then its report."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from svmax_ops.runs.command_line import as_command, check_workers, configured
from svmax_ops.runs.embed2d.config import Embed2dConfig
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.retrieval.config import RetrievalConfig

RUNS = {"retrieval": RetrievalConfig, "gan": GanConfig, "embed2d": Embed2dConfig}  # the commands a study may vary
_SECTIONS = {"command", "fixed", "vary"}
_OF_THE_SWEEP = ("out", "resume")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Run every combination of a study, skipping what is finished and going on with what was cut off; then the report.

    A study is a YAML file: command (retrieval, gan, embed2d), fixed (options common to all runs), vary (options, each
    with a list, or names, each with the options that it stands for).
    """

    study: Path = dataclasses.field(metadata={"positional": "STUDY"})
    """The study, for example studies/demo.yaml."""
    out: Path
    """The folder that gets a folder for each run, and the report; give it again to go on with a sweep that was cut
    off."""
    workers: int = 1
    """Runs at a time; the cores are shared out evenly among them."""

    def check(self) -> None:
        """Refuse what is no number of processes, before anything is read or written.

        Raises:
            UserError: with the flag, what was given and what is accepted.
        """
        check_workers(self.workers)


class Choice(NamedTuple):
    """One of the values that a study varies."""

    name: str
    """Its part of the run's name."""
    options: Mapping[str, Any]


def sweep(config: SweepConfig) -> None:
    """Run the study.

    Raises:
        UserError: the study does not fit, or a run of it failed (the others are run all the same).
        Stopped: SIGINT or SIGTERM; the runs under way have written their checkpoints.
    """
    command, runs = read_study(config.study, config.out)

    from svmax_ops.runs.processes import run_all  # here: a refusal does not wait for torch
    from svmax_ops.runs.report import ReportConfig, report

    run_all(str(config.study), command, runs, config.workers, as_command("sweep", config))
    report(ReportConfig(tuple(run.out for run in runs), config.out))


def read_study(path: Path, out: Path) -> tuple[str, list[Any]]:
    """The study's command and a configuration for each combination, in a folder of its own below ``out``.

    Raises:
        UserError: the study cannot be read, one of its runs cannot be run, or two are the same.
    """
    try:
        study = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"the study {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date that there is not
        raise UserError(f"the study {path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(study, dict) or not set(study) <= _SECTIONS or study.get("command") not in tuple(RUNS):
        raise UserError(f"the study {path} must have command ({', '.join(RUNS)}), fixed and vary, and nothing else.")
    try:
        return study["command"], _runs(study, out)
    except UserError as error:
        raise UserError(f"the study {path}{error}") from error


def _runs(study: dict[str, Any], out: Path) -> list[Any]:
    """A configuration for each combination; an error's text goes on after the study's name."""
    fixed, vary = ({} if study.get(section) is None else study[section] for section in ("fixed", "vary"))
    if not isinstance(fixed, dict) or not isinstance(vary, dict) or not all(map(_is_choice, vary.values())):
        raise UserError(": fixed must map options to values, vary options to lists of values, or names to options.")
    empty = [option for option, values in vary.items() if not values]
    if empty:
        raise UserError(f": vary must have at least one value for {empty[0]}; got {vary[empty[0]]}.")
    runs: dict[str, Any] = {}
    named: dict[str, str] = {}
    """The runs' names by what they are."""
    for combination in itertools.product(*(_choices(str(option), values) for option, values in vary.items())):
        name = "-".join(choice.name for choice in combination) or "run"
        options = dict(fixed)
        for choice in combination:
            options |= choice.options
        for option in _OF_THE_SWEEP:
            if option in options:
                raise UserError(
                    f": {option} is not an option of a study; --out of the sweep has a folder for each run."
                )
        try:
            run = configured(RUNS[study["command"]], {**options, "out": out / name})
            run.check()
        except UserError as error:
            raise UserError(f", run {name}: {error}") from error
        same = named.setdefault(repr(dataclasses.replace(run.resolved(), out=Path())), name)
        if len(named) == len(runs):
            raise UserError(f" has the same run twice, as {same} and as {name}; give each value once.")
        if name in runs:
            example = "vary: {root: {first: {root: /a/x}, second: {root: /b/x}}}"
            raise UserError(f" has two runs whose folder would be {name}; give their values names, as in {example}.")
        runs[name] = run
    return list(runs.values())


def _is_choice(values: Any) -> bool:
    """A list of values, or a mapping of names to options."""
    return isinstance(values, list) or (isinstance(values, dict) and all(isinstance(v, dict) for v in values.values()))


def _choices(option: str, values: list[Any] | dict[Any, dict[Any, Any]]) -> list[Choice]:
    """What a run may take of one entry of vary."""
    if isinstance(values, dict):
        return [Choice(_as_name(str(name), option), options) for name, options in values.items()]
    return [
        Choice(_as_name(value if isinstance(value, str) else f"{option}{value}", option), {option: value})
        for value in values
    ]


def _as_name(text: str, option: str) -> str:
    """``text`` as a part of a folder's name: one that needs no quotes in a shell, and leads nowhere else."""
    return re.sub(r"[^\w.,+=@-]+", "_", text).strip("_.-") or option
