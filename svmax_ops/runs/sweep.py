"""``svmax sweep``: every combination of a study, several at a time, then its report."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from svmax_ops.runs.command_line import as_arguments, as_command, parse
from svmax_ops.runs.environment import usable_cores
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.harness import CONFIG, is_finished
from svmax_ops.runs.report import ReportConfig, report
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.signals import Signals

RUNS = {"retrieval": RetrievalConfig}  # the commands a study may vary
_SECTIONS = {"command", "fixed", "vary"}


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Run every combination of a study, skipping what is finished and going on with what was cut off; then the report.

    A study is a YAML file: command (retrieval), fixed (options common to all runs), vary (options, each with a list, or
    names, each with the options that it stands for).
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
    if config.workers < 1:
        raise UserError(f"--workers must be at least 1; got {config.workers}.")
    command, runs = read_study(config.study, config.out)
    waiting = [run for run in runs if not is_finished(run.out)]
    print(f"{config.study}: {len(runs)} runs, {len(runs) - len(waiting)} of them finished", flush=True)
    failed = []
    with Signals() as signals:
        active: list[_Process] = []
        while (waiting or active) and not signals.received:
            while waiting and len(active) < config.workers:
                active.append(_Process(command, waiting.pop(0), max(1, usable_cores() // config.workers)))
            time.sleep(0.1)
            failed += [process.name for process in active if process.poll() not in (None, 0)]
            active = [process for process in active if process.poll() is None]
        for process in active:
            process.stop(signals.received or signal.SIGTERM)
    if signals.received:
        raise Stopped(signals.received, as_command("sweep", config))
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; the reasons stand above.")
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


class _Process:
    """One run in a process of its own, its lines printed behind its name."""

    def __init__(self, command: str, config: Any, threads: int) -> None:
        self.name = config.out.name
        resumed = dataclasses.replace(config, resume=(config.out / CONFIG).exists())
        print(f"[{self.name}] svmax {command} {shlex.join(as_arguments(resumed))}", flush=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "svmax_ops.cli", command, *as_arguments(resumed)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C reaches the sweep alone, which passes it on once
        )
        self.reader = threading.Thread(target=self._print_lines, daemon=True)
        self.reader.start()

    def _print_lines(self) -> None:
        for line in self.process.stdout:
            print(f"[{self.name}] {line}", end="", flush=True)

    def poll(self) -> int | None:
        """The exit code once the run has ended and its last line is printed."""
        code = self.process.poll()
        if code is not None:
            self.reader.join()
            self.process.stdout.close()
        return code

    def stop(self, signum: int) -> None:
        """Pass the signal on and wait for the checkpoint."""
        self.process.send_signal(signum)
        self.process.wait()
        self.poll()
