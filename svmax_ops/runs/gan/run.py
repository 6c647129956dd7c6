"""``svmax gan``: train, measure, leave a folder behind."""

from __future__ import annotations

import torch

from svmax_ops.runs import loop
from svmax_ops.runs.gan import figures
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.gan.measures import MEASURES, TRAINING
from svmax_ops.runs.gan.training import GanTraining, evaluations
from svmax_ops.runs.members import run_members


def run(config: GanConfig) -> None:
    """Every row with every seed, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
    """
    config.check()
    if config.several:
        run_members("gan", config)
    else:
        _run_one(config)


def _run_one(config: GanConfig) -> None:
    torch.set_num_threads(1)
    whole = config.resolved()
    training = GanTraining(whole)
    pictures = frozenset(evaluations(whole))
    schedule = loop.Schedule(whole.steps, whole.log_every, whole.checkpoint_every, pictures, TRAINING, MEASURES)
    loop.run("gan", config, training, schedule, lambda folder: figures.draw_run(whole, training.samples, folder))
