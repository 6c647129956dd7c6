"""``svmax embed2d``: train, measure, leave a folder behind."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from svmax_ops.runs import loop
from svmax_ops.runs.embed2d import figures
from svmax_ops.runs.embed2d.config import Embed2dConfig
from svmax_ops.runs.embed2d.data import identity_of, load
from svmax_ops.runs.embed2d.measures import EVALUATION, TRAINING
from svmax_ops.runs.embed2d.training import Embed2dTraining
from svmax_ops.runs.harness import CHECKPOINT
from svmax_ops.runs.members import run_members
from svmax_ops.runs.same_data import require_same_data


def run(config: Embed2dConfig) -> None:
    """Every row with every seed, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
    """
    config.check()
    if config.several:
        _require_same_data(config, identity_of(*load(config)))  # what does not fit leaves no trace
        run_members("embed2d", config)
    else:
        _run_one(config)


def _run_one(config: Embed2dConfig) -> None:
    torch.set_num_threads(1)
    training = Embed2dTraining(config, *load(config))
    _require_same_data(config, training.identity)
    schedule = loop.Schedule(
        training.steps, config.log_every, config.checkpoint_every, training.evaluations, TRAINING, EVALUATION
    )
    loop.run(
        "embed2d", config, training, schedule,
        lambda folder: figures.draw_run(config, training.panels, training.test.labels, folder),
    )  # fmt: skip


def _require_same_data(config: Embed2dConfig, identity: Mapping[str, str]) -> None:
    """Of the run, and of every run in its folder: those still to begin would have other data than those that ended."""
    if config.resume:
        for folder in (config.out, *(path.parent for path in sorted(config.out.glob(f"*/{CHECKPOINT}")))):
            require_same_data(folder, config, identity)
