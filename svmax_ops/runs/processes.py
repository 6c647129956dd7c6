"""Several runs at a time, each in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from svmax_ops.runs.command_line import as_arguments
from svmax_ops.runs.environment import usable_cores
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.harness import CONFIG, is_finished
from svmax_ops.runs.signals import Signals

_OF_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # each run is a process alone


def run_all(what: str, command: str, runs: Sequence[Any], workers: int, again: str) -> None:
    """Run those that are not finished, going on with what was cut off; their lines are printed behind their names.

    Args:
        what: they are, for the line that says how many.
        command: of ``svmax``.
        runs: a configuration each, with fields ``out`` (its name is the run's) and ``resume``.
        workers: runs at a time; the cores are shared out evenly among them.
        again: the command that goes on after a signal.
    Raises:
        UserError: a run failed (the others are run all the same).
        Stopped: a signal, or nobody reads the output any more; the runs under way have written their checkpoints.
    """
    refuse_torchrun()
    waiting = [run for run in runs if not is_finished(run.out)]
    print(f"{what}: {len(runs)} runs, {len(runs) - len(waiting)} of them finished", flush=True)
    failed = []
    with Signals() as signals:
        active: list[_Process] = []
        try:
            while (waiting or active) and not signals.received:
                while waiting and len(active) < workers:
                    active.append(_Process(command, waiting.pop(0), max(1, usable_cores() // workers)))
                time.sleep(0.1)
                ended = {process: process.poll() for process in active}
                failed += [_ending(process.name, code) for process, code in ended.items() if code not in (None, 0)]
                active = [process for process, code in ended.items() if code is None]
        finally:
            # SIGTERM whatever was received: a SIGINT before a run listens for it is a traceback.
            for process in active:
                process.process.terminate()
            for process in active:
                process.wait()
    if signals.received:
        raise Stopped(signals.received, again)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; what they said stands above, go on with:"
            f" {again}"
        )


def _ending(name: str, code: int) -> str:
    return name if code > 0 else f"{name} (killed by {signal.Signals(-code).name})"


def torchrun_processes() -> int:
    """How many torchrun started, this one among them; 0: it did not start this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0
    return int(os.environ.get("WORLD_SIZE", 1))


def refuse_torchrun() -> None:
    """Refuse to be one of several processes that would do the same, in the same folder."""
    if torchrun_processes() > 1:
        raise UserError(
            f"torchrun started {torchrun_processes()} processes of this command; only svmax retrieval shares its work"
            " out among them."
        )


class _Process:
    """One run in a process of its own, its lines printed behind its name.

    Raises:
        UserError: the machine starts no further process.
    """

    def __init__(self, command: str, config: Any, threads: int) -> None:
        self.name = config.out.name
        resumed = dataclasses.replace(config, resume=(config.out / CONFIG).exists())
        print(f"[{self.name}] svmax {command} {shlex.join(as_arguments(resumed))}", flush=True)
        launched = {name for name in os.environ if name.startswith("TORCHELASTIC_")} | set(_OF_A_LAUNCHER)
        environment = {name: value for name, value in os.environ.items() if name not in launched}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "svmax_ops.runs.child", str(os.getpid()), command, *as_arguments(resumed)],
                env={**environment, "OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a terminal's Ctrl-C reaches the sweep alone, which passes it on once
            )
        except OSError as error:
            raise UserError(f"the run {self.name} cannot be started: {error.strerror}.") from error
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

    def wait(self) -> None:
        """For the checkpoint, after a signal."""
        self.process.wait()
        self.poll()
