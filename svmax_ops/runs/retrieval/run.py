"""``svmax retrieval``: train, evaluate, leave a folder behind."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor

from svmax_ops import spectrum, use_backend
from svmax_ops.runs.command_line import as_command, kept_values
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.harness import CHECKPOINT, RunFolder
from svmax_ops.runs.loop import is_out_of_memory
from svmax_ops.runs.measures import told
from svmax_ops.runs.progress import Progress
from svmax_ops.runs.retrieval import cost, figures
from svmax_ops.runs.retrieval.collapse import CollapseWatch
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.data.loading import is_of_a_dead_worker
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from svmax_ops.runs.retrieval.embedding import embed
from svmax_ops.runs.retrieval.evaluation import chance_recalls, evaluate, raw_pixels
from svmax_ops.runs.retrieval.measures import MEASURES, TRAINING, recall
from svmax_ops.runs.retrieval.parallel import Ranks
from svmax_ops.runs.retrieval.training import Training
from svmax_ops.runs.same_data import KEPT, require_same_data
from svmax_ops.runs.signals import Interrupted, Signals

BEST = "best.pt"
# Raw pixels are not clustered where k-means, of about a thousand numbers a picture, would take many minutes.
_MOST_CLUSTERED = 20_000


def run(config: RetrievalConfig) -> None:
    """One run, from the configuration to the pictures in ``config.out``; in each process of torchrun.

    Raises:
        UserError: something the user can put right; what was in the folder before is whole.
        Stopped: a signal, or nobody reads the output any more; a checkpoint was written.
    """
    config.check()
    command = as_command("retrieval", dataclasses.replace(config, resume=False))
    config = config.resolved()
    with use_backend(config.backend), Ranks(config.device) as ranks:
        _run(config, command, ranks)  # by itself: what it holds of the process group, it lets go of


def _run(config: RetrievalConfig, command: str, ranks: Ranks) -> None:
    data, training = _prepared(config, ranks)  # before the folder: what does not fit leaves no trace
    ranks.outlast_sigterm()
    with Signals() as signals, _folder(config, ranks.launcher + command, ranks) as folder:
        signals.break_off = ranks.group is None  # the others would wait for this one
        _Run(training, data, folder, signals).to_the_end()


class _Run:
    """A training with its data and its folder, which the first process alone has."""

    def __init__(self, training: Training, data: RetrievalData, folder: RunFolder | None, signals: Signals) -> None:
        self.training, self.data, self.folder, self.signals = training, data, folder, signals
        self.config, self.ranks = training.config, training.ranks
        self.collapse = CollapseWatch(self.config)
        self.progress: Progress
        self.embeddings: Tensor
        self.result: dict[str, Any]
        """The last evaluation and what it was of."""
        checkpoint = self.ranks.of_first(folder and folder.checkpoint)
        self.resume_command = self.ranks.of_first(folder and folder.resume_command)
        self.finished = bool(checkpoint and checkpoint["finished"])
        self.is_new = checkpoint is None
        self.evaluation_due = bool(checkpoint and checkpoint["evaluation_due"])
        """Whether the step done last is evaluated before the next; a signal may have come in between."""
        if checkpoint:
            training.load_state_dict(checkpoint)
            self.collapse.state = checkpoint["collapse"]

    def to_the_end(self) -> None:
        training, config = self.training, self.config
        if self.finished:
            self._print(f"{config.out} is finished: all {config.iterations} iterations are done.")
            return
        for note in self.data.notes:
            self._print(note)
        with self._explained():
            if self.is_new:
                self._begin()
            self.progress = Progress(config.iterations, training.done, config.batch_size, shown=self.folder is not None)
            try:
                self._evaluate_if_due()
                while training.done < config.iterations:
                    self._after_step(*self._step())
            finally:
                self.progress.close()
            self._finish()

    def _begin(self) -> None:
        if self.folder:
            _log_baselines(self.folder, self.data, self.config)
        self._evaluate()  # the untrained network
        self.is_new = False
        self._save()

    def _step(self) -> tuple[dict[str, float], Tensor]:
        try:
            return self.training.step()
        except (UserError, RuntimeError):
            if self.ranks.group is None and self.training.is_between_steps:  # no pictures came
                self._save()
            raise

    def _after_step(self, values: dict[str, float], activations: Tensor) -> None:
        config, done, last = self.config, self.training.done, self.training.done == self.config.iterations
        if done % config.log_every == 0 or last:
            self._log_step(values, activations)
        self.evaluation_due = done % config.evaluate_every == 0 and not last
        self._evaluate_if_due()
        signal = self.ranks.largest(self.signals.received or 0)
        if signal or done % config.checkpoint_every == 0 or last:
            self._save()
        if signal and not last:
            raise Stopped(signal, self.resume_command) if self.folder else self.ranks.leave()

    def _evaluate_if_due(self) -> None:
        if not self.evaluation_due:
            return
        self._evaluate()
        self.evaluation_due = False
        if self.folder:
            self.progress.say(self._evaluation_line())

    def _log_step(self, values: dict[str, float], activations: Tensor) -> None:
        if self.folder is None:
            return
        if self.config.regularizer == "svmax":
            self.training.cost.measure(activations)
        report = spectrum(activations)
        values |= {"spread": report.spread.item(), "s_mu": report.mean.item()}
        values |= {"lower": report.lower, "upper": report.upper}  # of s_mu, eq. 4
        done = self.training.done
        self.folder.log(
            {"step": done, "split": "train", **values}, {"singular_values": report.singular_values.tolist()}
        )
        warning = self.collapse.see(done, values["spread"], values["lr"])
        if warning:
            self.progress.say(warning)
        shown = {measure.name: measure.text(values[name]) for name, measure in TRAINING.items()}
        shown["best R@1 %"] = recall(1).text(self.training.best["recall_at_1"])
        shown["ranking loss"] = shown.pop("ranking loss")  # the first to go where the line is too short
        self.progress.update(done, shown)

    def _evaluate(self) -> None:
        """Evaluate on the test classes; the network with the best R@1 so far is kept."""
        training, config = self.training, self.config
        self.embeddings = embed(training.network, self.data.test, config, self.ranks)
        if self.folder is None:
            return
        labels = self.data.test.labels
        self.result = result = evaluate(self.embeddings, labels, config.batch_size, self.data.recall_at)
        self.folder.log({"step": training.done, "split": "test", "of": "network", **result})
        if result["recall_at_1"] > training.best.get("recall_at_1", -1):
            training.best = {"step": training.done, "recall_at_1": result["recall_at_1"]}
            self.folder.keep(
                BEST, {**training.best, "config": self.folder.config, "network": training.network.state_dict()}
            )

    def _evaluation_line(self) -> str:
        measures = {**{f"recall_at_{k}": recall(k) for k in self.data.recall_at}, **MEASURES}
        return f"step {self.training.done}  {told(measures, self.result)}"

    def _finish(self) -> None:
        self._evaluate()
        if self.folder:
            print(self._evaluation_line())
            figures.draw_run(self.folder.path, self.embeddings, self.data.test)
            if self.config.regularizer == "svmax":
                measured = self.training.cost.result()
                self.folder.log({"step": self.training.done, "split": "cost", **measured})
                print(cost.sentence(measured, self.ranks.device))
        self._save(finished=True)
        self._print(
            f"{self.config.out}: config.json, metrics.jsonl, checkpoint.pt, {BEST}, {', '.join(figures.RUN_FIGURES)}"
        )

    def _save(self, finished: bool = False) -> None:
        state = self.training.state_dict()  # of all processes
        if self.folder:
            own = {"collapse": self.collapse.state, "evaluation_due": self.evaluation_due, "finished": finished}
            self.folder.save(self.training.done, {**state, KEPT: self.data.identity, **own})

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What ends the training inside is told in a sentence, with the command that goes on."""
        try:
            yield
        except Interrupted as interruption:  # it waited for pictures, of the next step or of an evaluation
            if not self.is_new:
                self._save()
            raise Stopped(interruption.signum, self.resume_command) from None
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; go on with: {self.resume_command}") from error
        except (MemoryError, RuntimeError) as error:
            step = self.training.done + 1
            if is_out_of_memory(error):
                what = (
                    f"memory ran out at step {step}; take a smaller --batch-size or --autocast bfloat16 in a new --out"
                )
            elif is_of_a_dead_worker(error):
                remedy = "if memory ran out, take fewer --workers"
                what = f"a process that reads pictures died at step {step} ({_gist(error)}); {remedy}"
            elif self.ranks.group is not None and _is_of_the_group(error):
                what = f"another process of torchrun ended or was not heard of at step {step} ({_gist(error)})"
            else:
                raise
            raise UserError(f"{what}; go on from the last checkpoint with: {self.resume_command}") from error

    def _print(self, text: str) -> None:
        if self.folder:
            print(text)


def _prepared(config: RetrievalConfig, ranks: Ranks) -> tuple[RetrievalData, Training]:
    """The data and a network; where a process has none of them, all end, and the first one says why."""
    data = training = failure = None
    try:
        if config.resume and (config.out / CHECKPOINT).exists():
            config = dataclasses.replace(config, weights="none")  # the checkpoint has them, the file may be gone
        data = DATASETS[config.dataset](config)
        if config.resume and ranks.is_first:
            require_same_data(config.out, config, data.identity)
        training = Training(config, data.train, ranks)
    except UserError as error:
        failure = str(error)
    failures = [text for text in ranks.all(failure) if text]
    if failures:
        raise UserError(failures[0]) if ranks.is_first else ranks.leave()
    return data, training


@contextlib.contextmanager
def _folder(config: RetrievalConfig, command: str, ranks: Ranks) -> Iterator[RunFolder | None]:
    """The run's folder in the first process; where it cannot be used, all processes end."""
    folder = failure = None
    if ranks.is_first:
        try:
            folder = RunFolder(config.out, {**kept_values(config), "processes": ranks.count}, command, config.resume)
        except UserError as error:
            failure = error
    if ranks.of_first(failure is not None):
        raise failure or ranks.leave()
    with folder or contextlib.nullcontext():
        yield folder


def _is_of_the_group(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _gist(error: Exception) -> str:
    """The first sentence, without the place in torch's sources that stands before it."""
    return re.sub(r"^\[\S+\] ", "", str(error).strip()).splitlines()[0].split(". ")[0].rstrip(".")


def _log_baselines(folder: RunFolder, data: RetrievalData, config: RetrievalConfig) -> None:
    labels = data.test.labels
    folder.log({"step": 0, "split": "test", "of": "chance", **chance_recalls(labels, data.recall_at)})
    few = len(labels) <= _MOST_CLUSTERED
    pixels = evaluate(raw_pixels(data.test, config.workers), labels, config.batch_size, data.recall_at, with_nmi=few)
    folder.log({"step": 0, "split": "test", "of": "pixels", **pixels})
