"""``svmax gan``: train, measure, leave a folder behind."""

from __future__ import annotations

import dataclasses

import torch

from svmax_ops import use_backend
from svmax_ops.runs import loop
from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.gan import figures
from svmax_ops.runs.gan.config import ROWS, GanConfig
from svmax_ops.runs.gan.training import GanTraining, evaluations
from svmax_ops.runs.harness import RunFolder
from svmax_ops.runs.members import rows_of, run_members, seeds_of
from svmax_ops.runs.signals import Signals


def run(config: GanConfig) -> None:
    """Every row with every seed, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: SIGINT or SIGTERM; a checkpoint was written.
    """
    config.check()
    rows, seeds = rows_of(config.rows, tuple(ROWS)), seeds_of(config.seeds)
    if len(rows) * len(seeds) > 1:
        run_members("gan", config, rows, seeds)
    else:
        _run_one(config)


def _run_one(config: GanConfig) -> None:
    command = as_command("gan", dataclasses.replace(config, resume=False))
    config = config.resolved()
    torch.set_num_threads(1)
    training = GanTraining(config)
    with (
        Signals() as signals,
        use_backend(config.backend),
        RunFolder(config.out, kept_values(config), command, config.resume) as folder,
    ):
        if folder.checkpoint and folder.checkpoint["finished"]:
            print(f"{config.out} is finished: all {config.steps} steps are done.")
            return
        shown = ("loss_generator", "loss_discriminator", "spread")
        schedule = loop.Schedule(
            config.steps, config.log_every, config.checkpoint_every, frozenset(evaluations(config)), shown
        )
        loop.train(training, folder, schedule, signals)
        figures.draw_run(config, training.samples, folder.path)
        loop.save(training, folder, finished=True)
        print(f"{config.out}: config.json, metrics.jsonl, checkpoint.pt, {', '.join(figures.RUN_FIGURES)}")
