"""``svmax embed2d``: train, measure, leave a folder behind."""

from __future__ import annotations

import dataclasses

import torch

from svmax_ops import use_backend
from svmax_ops.runs import loop
from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.embed2d import figures
from svmax_ops.runs.embed2d.config import ROWS, Embed2dConfig
from svmax_ops.runs.embed2d.data import load
from svmax_ops.runs.embed2d.training import Embed2dTraining
from svmax_ops.runs.harness import RunFolder
from svmax_ops.runs.members import rows_of, run_members, seeds_of
from svmax_ops.runs.signals import Signals


def run(config: Embed2dConfig) -> None:
    """Every row with every seed, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: SIGINT or SIGTERM; a checkpoint was written.
    """
    config.check()
    rows, seeds = rows_of(config.rows, ROWS), seeds_of(config.seeds)
    if len(rows) * len(seeds) > 1:
        load(config)  # what does not fit leaves no trace
        run_members("embed2d", config, rows, seeds)
    else:
        _run_one(config)


def _run_one(config: Embed2dConfig) -> None:
    command = as_command("embed2d", dataclasses.replace(config, resume=False))
    torch.set_num_threads(1)
    training = Embed2dTraining(config, *load(config))
    with (
        Signals() as signals,
        use_backend(config.backend),
        RunFolder(config.out, kept_values(config), command, config.resume) as folder,
    ):
        if folder.checkpoint and folder.checkpoint["finished"]:
            print(f"{config.out} is finished: all {config.epochs} epochs are done.")
            return
        shown = ("loss", "ranking_loss", "spread")
        schedule = loop.Schedule(
            training.steps, config.log_every, config.checkpoint_every, training.evaluations, shown
        )  # fmt: skip
        loop.train(training, folder, schedule, signals)
        figures.draw_run(config, training.panels, training.test.labels, folder.path)
        loop.save(training, folder, finished=True)
        print(f"{config.out}: config.json, metrics.jsonl, checkpoint.pt, {', '.join(figures.RUN_FIGURES)}")
