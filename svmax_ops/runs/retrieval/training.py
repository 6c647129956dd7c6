"""Everything of a run that changes from step to step, and the step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.cost import Clock, Cost
from svmax_ops.runs.retrieval.data.loading import Request, draws, load
from svmax_ops.runs.retrieval.data.pictures import Pictures
from svmax_ops.runs.retrieval.losses import LOSSES, ranking_loss
from svmax_ops.runs.retrieval.models import build_network
from svmax_ops.runs.retrieval.parallel import Ranks
from svmax_ops.runs.retrieval.regularizers import regularizer
from svmax_ops.runs.retrieval.samplers import ClassBatches

_LAST_LR = 1e-7  # paper, section 4
HALF_TYPES = {"none": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Training:
    """A network, its optimizer and its batches.

    Args:
        config: what to run.
        pictures: of the training classes.
        ranks: the processes that share a batch; None: this one alone, on ``config.device``.
    """

    def __init__(self, config: RetrievalConfig, pictures: Pictures, ranks: Ranks | None = None) -> None:
        self.config = config = config.resolved()
        self.pictures = pictures
        self.ranks = ranks = ranks or Ranks(config.device)
        ranks.check(config.batch_size)
        torch.manual_seed(config.seed)  # the initial weights
        network = build_network(config, pictures.shape)
        self.network: nn.Module = network.to(ranks.device, memory_format=memory_format(config))
        self.shared = ranks.share_network(self.network)
        if ranks.count > 1:
            torch.manual_seed(config.seed + ranks.rank)  # of dropout: every process drops other rows
        self.ranking_loss = ranking_loss(config)
        l = LOSSES[config.loss].samples_per_class  # noqa: E741 - the paper's letter
        self.batches = ClassBatches(pictures.labels, config.batch_size // l, l, config.seed)
        self.negatives = torch.Generator().manual_seed(config.seed)  # spread-out's
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=config.lr, momentum=config.momentum)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.autocast == "float16")
        self.cost = Cost(config.bounded, config.center)
        self.best: dict[str, float] = {}
        self.done = 0
        self.is_between_steps = True  # False after a step that was broken off
        self._feed: Iterator[Tensor] | None = None

    def step(self) -> tuple[dict[str, float], Tensor]:
        """Train on one batch: its losses and learning rate, and its activations ``[b, d]``.

        Raises:
            UserError: a picture cannot be read (nothing has changed then), or the loss is not finite.
        """
        clock = Clock(self.ranks.device)
        pictures = self._next_pictures()
        self.is_between_steps = False
        labels = self.pictures.labels[next(self.batches)].to(self.ranks.device)
        lr = learning_rate(self.done, self.config.iterations, self.config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        own = activations(self.shared, pictures, self.config)
        whole = self.ranks.whole(own)
        ranking = self.ranking_loss(whole, labels)
        term = regularizer(own, whole, labels, self.config, self.negatives, self.ranks.group)
        loss = ranking + self.config.weight * term
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        values = {"loss": loss.item(), "ranking_loss": ranking.item(), "regularizer": term.item(), "lr": lr}
        self.cost.step(clock.seconds())
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"the loss became {values['loss']} at step {self.done} (ranking loss {values['ranking_loss']},"
                f" regularizer {values['regularizer']}); try a smaller --lr in a new --out. The last checkpoint in"
                f" {self.config.out} is from before."
            )
        self.is_between_steps = True
        return values, whole.detach()

    def _next_pictures(self) -> Tensor:
        """This process's share of the next batch, which workers have been reading in the meantime."""
        if self._feed is None:
            requests = _requests(copy.deepcopy(self.batches), self.config.seed, self.done, self.ranks)
            self._feed = load(self.pictures, requests, self.config.workers, self.ranks.device)
        return next(self._feed)

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on; the same on every process. Every process must call it."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "batches": self.batches.state_dict(),
            "negatives": self.negatives.get_state(),
            "random": self.ranks.all(_random_state(self.ranks.device)),
            "seconds": self.cost.seconds,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        random = state["random"][self.ranks.rank]
        then, now = "cuda" if len(random) > 1 else "cpu", self.ranks.device.type
        if then != now:
            raise UserError(f"--resume: the run was started on {then}, now it is on {now}; choose another --out.")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.batches.load_state_dict(state["batches"])
        self.negatives.set_state(state["negatives"])
        torch.set_rng_state(random[0])
        if self.ranks.device.type == "cuda":
            torch.cuda.set_rng_state(random[1], self.ranks.device)
        self.cost.seconds = state["seconds"]
        self.best = state["best"]
        self.done = state["step"]
        self._feed = None


def learning_rate(done: int, iterations: int, initial: float) -> float:
    """Of the step after ``done`` ones: constant for K/2 iterations, then linear to 1e-7 at K (paper, section 4).

    The paper's decay is "polynomial", of a degree that it does not say; this is the first.
    """
    half = iterations / 2
    if done < half:
        return initial
    return initial + (_LAST_LR - initial) * (done - half) / (iterations - half)


def memory_format(config: RetrievalConfig) -> torch.memory_format:
    """Of the network's weights and of its pictures."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def activations(network: nn.Module, pictures: Tensor, config: RetrievalConfig) -> Tensor:
    """``[n, d]`` float32, by the network in the precision and memory format of ``config``."""
    pictures = pictures.contiguous(memory_format=memory_format(config))
    with torch.autocast(pictures.device.type, HALF_TYPES[config.autocast], enabled=config.autocast != "none"):
        return network(pictures).float()


def _requests(batches: ClassBatches, seed: int, step: int, ranks: Ranks) -> Iterator[Request]:
    """This process's share of every batch from ``step`` on."""
    while True:
        indices = next(batches)
        yield Request(ranks.own(indices), ranks.own(draws(seed, step, len(indices))))
        step += 1


def _random_state(device: torch.device) -> list[Tensor]:
    """Of torch's own generators, which dropout draws from."""
    state = [torch.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state
