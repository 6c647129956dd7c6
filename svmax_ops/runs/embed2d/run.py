"""``svmax embed2d``: train, measure, leave a folder behind."""

from __future__ import annotations

import torch

from svmax_ops.runs import loop
from svmax_ops.runs.embed2d import figures
from svmax_ops.runs.embed2d.config import Embed2dConfig
from svmax_ops.runs.embed2d.data import load
from svmax_ops.runs.embed2d.training import Embed2dTraining
from svmax_ops.runs.members import run_members


def run(config: Embed2dConfig) -> None:
    """Every row with every seed, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
    """
    config.check()
    if config.several:
        load(config)  # what does not fit leaves no trace
        run_members("embed2d", config)
    else:
        _run_one(config)


def _run_one(config: Embed2dConfig) -> None:
    torch.set_num_threads(1)
    training = Embed2dTraining(config, *load(config))
    shown = ("loss", "ranking_loss", "spread")
    schedule = loop.Schedule(training.steps, config.log_every, config.checkpoint_every, training.evaluations, shown)
    loop.run(
        "embed2d", config, training, schedule,
        lambda folder: figures.draw_run(config, training.panels, training.test.labels, folder),
    )  # fmt: skip
