"""Everything of a run that changes from step to step, and the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from svmax_ops import spectrum, svmax_loss
from svmax_ops.runs.embed2d.config import Embed2dConfig, panel_epochs
from svmax_ops.runs.embed2d.data import Images, identity_of
from svmax_ops.runs.embed2d.measures import measure
from svmax_ops.runs.embed2d.network import tiny_network
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.losses import LOSSES
from svmax_ops.runs.retrieval.samplers import ClassBatches
from svmax_ops.runs.same_data import KEPT

_CHUNK = 500  # pictures embedded at a time


class Embed2dTraining:
    """A network, its optimizer and its batches (``svmax_ops.runs.loop.Training``).

    Args:
        config: of one row and one seed.
        train, test: pictures of the same classes.
    """

    def __init__(self, config: Embed2dConfig, train: Images, test: Images) -> None:
        self.config, self.train, self.test = config, train, test
        self.identity = identity_of(train, test)
        self.names = {"row": config.row, "seed": config.seed}
        torch.manual_seed(config.seed)  # the initial weights
        self.network = tiny_network(*train.pixels.shape[1:])
        loss = LOSSES["contrastive"]
        l = loss.samples_per_class  # noqa: E741 - the paper's letter
        self.ranking_loss = loss.formula
        self.batches = ClassBatches(train.labels, config.batch_size // l, l, config.seed)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=config.lr, momentum=config.momentum)
        self.steps_an_epoch = max(1, len(train.labels) // config.batch_size)
        self.steps = config.epochs * self.steps_an_epoch
        self.panels: dict[int, Tensor] = {}
        """By epoch, the test embeddings ``[n, 2]``."""
        self.done = 0
        self._last: dict[str, Any] = {}

    @property
    def evaluations(self) -> set[int]:
        """The steps after which there is a panel."""
        return {epoch * self.steps_an_epoch for epoch in panel_epochs(self.config.epochs)}

    def step(self) -> None:
        """Train on one batch.

        Raises:
            UserError: the loss is not finite.
        """
        indices = next(self.batches)
        embeddings = F.normalize(self.network(self.train.batch(indices)))
        ranking = self.ranking_loss(embeddings, self.train.labels[indices])
        term = embeddings.new_zeros(())
        if self.config.row != "vanilla":
            term = svmax_loss(embeddings, center=self.config.row == "centred")
        loss = ranking + self.config.svmax_weight * term
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        self._last = {"loss": loss, "ranking_loss": ranking, "regularizer": term, "embeddings": embeddings}
        if not math.isfinite(loss.item()):
            raise UserError(
                f"the loss became {loss.item()} at step {self.done} (contrastive loss {ranking.item()}, SVMax"
                f" {term.item()}); try a smaller --lr in a new --out."
            )

    def train_line(self) -> dict[str, Any]:
        losses = {name: self._last[name].item() for name in ("loss", "ranking_loss", "regularizer")}
        return {
            **self.names,
            **losses,
            "spread": spectrum(self._last["embeddings"]).spread.item(),
            "lr": self.config.lr,
        }

    def evaluate(self) -> dict[str, Any]:
        """Of the whole test split.

        Raises:
            UserError: the embeddings are not finite.
        """
        epoch = self.done // self.steps_an_epoch
        embeddings = self.embed(self.test)
        if not embeddings.isfinite().all():
            raise UserError(f"the embeddings are not finite after step {self.done}; try a smaller --lr in a new --out.")
        self.panels[epoch] = embeddings
        return {**self.names, "epoch": epoch, **measure(embeddings, self.test.labels)}

    @torch.no_grad()
    def embed(self, images: Images) -> Tensor:
        """Unit-length float32 embeddings ``[n, 2]``."""
        chunks = torch.arange(len(images.labels)).split(_CHUNK)
        return F.normalize(torch.cat([self.network(images.batch(chunk)) for chunk in chunks]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "panels": self.panels,
            "test_labels": self.test.labels,
            KEPT: self.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.panels = state["panels"]
        self.done = state["step"]
