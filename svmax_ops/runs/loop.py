"""Training from the checkpoint to the last step, in one process: logging, evaluating, saving, stopping."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from svmax_ops import use_backend
from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.harness import RunFolder
from svmax_ops.runs.measures import Measure, told
from svmax_ops.runs.processes import refuse_torchrun
from svmax_ops.runs.progress import Progress
from svmax_ops.runs.signals import Signals


class Training(Protocol):
    """What changes from step to step."""

    done: int
    """Steps taken."""

    def step(self) -> None: ...

    def train_line(self) -> dict[str, Any]:
        """Of the last step: ``loss``, ``spread``, ``lr`` and what else is logged of it."""

    def evaluate(self) -> dict[str, Any]:
        """What is logged of an evaluation; plain numbers and lists of them."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps and the final pictures depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Schedule(NamedTuple):
    steps: int
    log_every: int
    checkpoint_every: int
    evaluations: Collection[int]
    """The steps after which the run is evaluated; 0 for before the first."""
    training: Mapping[str, Measure]
    """What the progress shows of a step, by its key in the line that is logged."""
    evaluation: Mapping[str, Measure]
    """What is told of an evaluation."""


def run(
    command: str, config: Any, training: Training, schedule: Schedule, draw: Callable[[Path], Sequence[str]]
) -> None:
    """A whole run, from the checkpoint in ``config.out``, or the beginning, to the pictures there.

    Args:
        command: of ``svmax``.
        config: with the fields ``backend``, ``out`` and ``resume``.
        training: at its beginning.
        schedule: of it.
        draw: writes the run's figures into a folder; their names.
    Raises:
        UserError: the folder cannot be used, or memory ran out.
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
    """
    refuse_torchrun()
    started = as_command(command, dataclasses.replace(config, resume=False))
    with (
        Signals() as signals,
        use_backend(config.backend),
        RunFolder(config.out, kept_values(config.resolved()), started, config.resume) as folder,
    ):
        if folder.checkpoint and folder.checkpoint["finished"]:
            print(f"{config.out} is finished: all {schedule.steps} steps are done.")
            return
        train(training, folder, schedule, signals)
        figures = draw(folder.path)
        save(training, folder, finished=True)
        print(f"{config.out}: config.json, metrics.jsonl, checkpoint.pt, {', '.join(figures)}")


def train(training: Training, folder: RunFolder, schedule: Schedule, signals: Signals) -> None:
    """Go on from the folder's checkpoint, or begin; ends with a checkpoint that is not yet marked as finished.

    Raises:
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
        UserError: memory ran out.
    """
    if folder.checkpoint:
        training.load_state_dict(folder.checkpoint)
    elif 0 in schedule.evaluations:
        folder.log({"step": 0, "split": "test", **training.evaluate()})
    progress = Progress(schedule.steps, training.done)
    try:
        while training.done < schedule.steps:
            training.step()
            _after_step(training, folder, schedule, progress)
            last = training.done == schedule.steps
            if signals.received or last or training.done % schedule.checkpoint_every == 0:
                save(training, folder)
            if signals.received and not last:
                raise Stopped(signals.received, folder.resume_command)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"memory ran out; go on from the last checkpoint with: {folder.resume_command}") from error
    finally:
        progress.close()


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def save(training: Training, folder: RunFolder, finished: bool = False) -> None:
    folder.save(training.done, {**training.state_dict(), "finished": finished})


def _after_step(training: Training, folder: RunFolder, schedule: Schedule, progress: Progress) -> None:
    done = training.done
    if done % schedule.log_every == 0 or done == schedule.steps:
        line = training.train_line()
        folder.log({"step": done, "split": "train", **line})
        progress.update(done, {measure.name: measure.text(line[key]) for key, measure in schedule.training.items()})
    if done in schedule.evaluations:
        result = training.evaluate()
        folder.log({"step": done, "split": "test", **result})
        progress.say(f"step {done}  {told(schedule.evaluation, result)}")
