"""``svmax retrieval``: train, evaluate, leave a folder behind."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svmax_ops import spectrum, use_backend
from svmax_ops.runs.command_line import as_command, plain_values
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.harness import Progress, RunFolder, Signals
from svmax_ops.runs.retrieval import cost, figures
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from svmax_ops.runs.retrieval.embedding import embed
from svmax_ops.runs.retrieval.evaluation import chance_recalls, evaluate, raw_pixels
from svmax_ops.runs.retrieval.losses import LOSSES
from svmax_ops.runs.retrieval.models import SmallNetwork
from svmax_ops.runs.retrieval.regularizers import regularizer
from svmax_ops.runs.retrieval.samplers import ClassBatches

_LAST_LR = 1e-7  # paper, section 4
_NOT_KEPT = ("out", "resume", "workers")  # what may differ when a run goes on


def run(config: RetrievalConfig) -> None:
    """One run, from the configuration to the pictures in ``config.out``.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: SIGINT or SIGTERM; a checkpoint was written.
    """
    config.check()
    command = as_command("retrieval", dataclasses.replace(config, resume=False))
    config = config.resolved()
    kept = {name: value for name, value in plain_values(config).items() if name not in _NOT_KEPT}
    with Signals() as signals, use_backend(config.backend):
        data = DATASETS[config.dataset](config)
        training = Training(config, data)  # before the folder: a configuration that does not fit leaves no trace
        with RunFolder(config.out, kept, command, config.resume) as folder:
            if folder.checkpoint:
                training.load_state_dict(folder.checkpoint)
                if folder.checkpoint["finished"]:
                    print(f"{config.out} is finished: all {config.iterations} iterations are done.")
                    return
            _train(training, folder, signals)


class Training:
    """Everything that changes from step to step, and the step."""

    def __init__(self, config: RetrievalConfig, data: RetrievalData) -> None:
        config = config.resolved()
        self.config, self.data = config, data
        torch.manual_seed(config.seed)  # the initial weights
        self.network: nn.Module = SmallNetwork(data.train.shape, config.dim)
        ranking = LOSSES[config.loss]
        self.loss = ranking.build()
        l = ranking.samples_per_class  # noqa: E741 - the paper's letter
        self.batches = ClassBatches(data.train.labels, config.batch_size // l, l, config.seed)
        self.negatives = torch.Generator().manual_seed(config.seed)  # spread-out's
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=config.lr, momentum=config.momentum)
        self.cost = cost.Cost(config.bounded, config.center)
        self.done = 0

    def step(self) -> tuple[dict[str, float], Tensor]:
        """Train on one batch: its losses and learning rate, and its activations ``[b, d]``."""
        begin = time.perf_counter()
        lr = learning_rate(self.done, self.config.iterations, self.config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        indices = next(self.batches)
        labels = self.data.train.labels[indices]
        activations = self.network(self.data.train.batch(indices))
        ranking = self.loss(F.normalize(activations), labels)
        term = regularizer(activations, labels, self.config, self.negatives)
        loss = ranking + self.config.weight * term
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        values = {"loss": loss.item(), "ranking_loss": ranking.item(), "regularizer": term.item(), "lr": lr}
        self.cost.step(time.perf_counter() - begin)
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"the loss became {values['loss']} at step {self.done} (ranking loss {values['ranking_loss']},"
                f" regularizer {values['regularizer']}); try a smaller --lr. The last checkpoint in {self.config.out}"
                " is from before."
            )
        return values, activations.detach()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "negatives": self.negatives.get_state(),
            "seconds": self.cost.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.negatives.set_state(state["negatives"])
        self.cost.seconds = state["seconds"]
        self.done = state["step"]


def learning_rate(done: int, iterations: int, initial: float) -> float:
    """Of the step after ``done`` ones: constant for K/2 iterations, then linear to 1e-7 at K (paper, section 4)."""
    half = iterations / 2
    if done < half:
        return initial
    return initial + (_LAST_LR - initial) * (done - half) / (iterations - half)


def _train(training: Training, folder: RunFolder, signals: Signals) -> None:
    config, data = training.config, training.data
    for note in data.notes:
        print(note)
    if folder.checkpoint is None:
        _log_baselines(folder, data, config)
        _log_evaluation(folder, training)  # the untrained network
        folder.save(0, {**training.state_dict(), "finished": False})
    progress = Progress(config.iterations, training.done)
    try:
        while training.done < config.iterations:
            values, activations = training.step()
            done, last = training.done, training.done == config.iterations
            if done % config.log_every == 0 or last:
                if config.regularizer == "svmax":
                    training.cost.measure(activations)
                values["spread"] = spectrum(activations).spread.item()
                folder.log({"step": done, "split": "train", **values})
                progress.update(done, {name: values[name] for name in ("loss", "ranking_loss", "spread")})
            if done % config.evaluate_every == 0 and not last:
                result = _log_evaluation(folder, training)
                progress.say(_evaluation_line(done, result))
            if signals.received or done % config.checkpoint_every == 0 or last:
                folder.save(done, {**training.state_dict(), "finished": False})
            if signals.received and not last:
                raise Stopped(signals.received, folder.resume_command)
    finally:
        progress.close()
    _finish(training, folder)


def _finish(training: Training, folder: RunFolder) -> None:
    result = _log_evaluation(folder, training)
    print(_evaluation_line(training.done, result))
    figures.draw_run(folder.path, embed(training.network, training.data.test), training.data.test)
    if training.config.regularizer == "svmax":
        measured = training.cost.result()
        folder.log({"step": training.done, "split": "cost", **measured})
        print(cost.sentence(measured))
    folder.save(training.done, {**training.state_dict(), "finished": True})
    print(f"{folder.path}: config.json, metrics.jsonl, checkpoint.pt, {', '.join(figures.RUN_FIGURES)}")


def _log_evaluation(folder: RunFolder, training: Training) -> dict[str, Any]:
    test = training.data.test
    result = evaluate(embed(training.network, test), test.labels, training.config.batch_size)
    folder.log({"step": training.done, "split": "test", "of": "network", **result})
    return result


def _log_baselines(folder: RunFolder, data: RetrievalData, config: RetrievalConfig) -> None:
    labels = data.test.labels
    folder.log({"step": 0, "split": "test", "of": "chance", **chance_recalls(labels)})
    pixels = evaluate(raw_pixels(data.test), labels, config.batch_size)
    folder.log({"step": 0, "split": "test", "of": "pixels", **pixels})


def _evaluation_line(done: int, result: dict[str, Any]) -> str:
    return (
        f"step {done}  R@1 {result['recall_at_1']:.1%}  R@8 {result['recall_at_8']:.1%}  NMI {result['nmi']:.2f}"
        f"  spread {result['spread']:.3f}  effective rank {result['effective_rank']:.1f}"
    )
