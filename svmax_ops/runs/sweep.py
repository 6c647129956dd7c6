"""``svmax sweep``: every combination of a study, several at a time, then its report."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from svmax_ops.runs.command_line import as_command, parse
from svmax_ops.runs.embed2d.config import Embed2dConfig
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.processes import check_workers, run_all
from svmax_ops.runs.report import ReportConfig, report
from svmax_ops.runs.retrieval.config import RetrievalConfig

RUNS = {"retrieval": RetrievalConfig, "gan": GanConfig, "embed2d": Embed2dConfig}  # the commands a study may vary
_SECTIONS = {"command", "fixed", "vary"}


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Run every combination of a study, skipping what is finished and going on with what was cut off; then the report.

    A study is a YAML file: command (retrieval, gan, embed2d), fixed (options common to all runs), vary (options, each
    with a list, or names, each with the options that it stands for).
    """

    study: Annotated[Path, tyro.conf.Positional]
    """For example studies/demo.yaml."""
    out: Path
    """One folder a run is made in it, and the report; give it again to go on with a sweep that was cut off."""
    workers: int = 1
    """Runs at a time; the cores are shared out evenly among them."""


def sweep(config: SweepConfig) -> None:
    """Run the study.

    Raises:
        UserError: the study does not fit, or a run of it failed (the others are run all the same).
        Stopped: SIGINT or SIGTERM; the runs under way have written their checkpoints.
    """
    check_workers(config.workers)
    command, runs = read_study(config.study, config.out)
    run_all(str(config.study), command, runs, config.workers, as_command("sweep", config))
    report(ReportConfig(tuple(run.out for run in runs), config.out))


def read_study(path: Path, out: Path) -> tuple[str, list[Any]]:
    """The study's command and a configuration for each combination, in a folder of its own below ``out``."""
    try:
        study = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the study {path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(study, dict) or not set(study) <= _SECTIONS or study.get("command") not in RUNS:
        raise UserError(f"the study {path} must have command ({', '.join(RUNS)}), fixed and vary, and nothing else.")
    fixed, vary = study.get("fixed") or {}, study.get("vary") or {}
    if not isinstance(fixed, dict) or not isinstance(vary, dict) or not all(map(_is_choice, vary.values())):
        raise UserError(
            f"the study {path}: fixed must map options to values, vary options to lists of values, or names to options."
        )
    choices = [_choices(option, values) for option, values in vary.items()]
    runs = []
    for combination in itertools.product(*choices):
        name = "-".join(name for name, _ in combination) or "run"
        options = {**fixed, "out": out / name}
        for _, chosen in combination:
            options |= chosen
        try:
            run = parse(RUNS[study["command"]], study["command"], _flags(options))
            run.check()
        except UserError as error:
            raise UserError(f"the study {path}, run {name}: {error}") from error
        runs.append(run)
    return study["command"], runs


def _is_choice(values: Any) -> bool:
    """A list of values, or a mapping of names to options."""
    return isinstance(values, list) or (isinstance(values, dict) and all(isinstance(v, dict) for v in values.values()))


def _choices(option: str, values: list[Any] | dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What a run may take of one entry of vary: a part of the run's name, and its options."""
    if isinstance(values, dict):
        return list(values.items())
    return [(value if isinstance(value, str) else f"{option}{value}", {option: value}) for value in values]


def _flags(options: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        flag = str(name).replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments += [f"--{flag}", str(value)]
    return arguments
