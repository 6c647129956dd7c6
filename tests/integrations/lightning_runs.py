"""Short trainings in Lightning with a SpectrumMonitor, and what it reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from svmax_ops import spectrum
from svmax_ops.integrations.lightning import SpectrumMonitor

NAMES = {"spectrum/spread", "spectrum/effective_rank", "spectrum/condition", "spectrum/mean"}


class Embedder(pl.LightningModule):
    """A linear layer whose outputs are kept, to be compared with what was logged."""

    def __init__(self, calls: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)
        self.calls = calls
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        embeddings = torch.cat([self(part) for part in batch[0].chunk(self.calls)]) if self.calls else batch[0]
        self.seen.append(embeddings.detach().clone())
        return embeddings.square().mean() + self.head.weight.square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Memory(Logger):
    """A logger that remembers."""

    name, version = "memory", "0"

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if NAMES & metrics.keys():
            self.steps[step] = metrics

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to remember."""


def fit(module: Embedder, monitor: SpectrumMonitor, rows: int = 48, batch: int = 12, **trainer: Any) -> Memory:
    torch.manual_seed(0)
    memory = Memory()
    loader = DataLoader(TensorDataset(torch.randn(rows, 6)), batch_size=batch)
    options = {"logger": memory, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"enable_checkpointing": False, "max_epochs": 1, "callbacks": [monitor]} | trainer
    pl.Trainer(**options).fit(module, loader)
    return memory


def reports(module: Any, monitor: SpectrumMonitor, **trainer: Any) -> dict[int, float]:
    """The spread of each step that was reported."""
    return {step: metrics["spectrum/spread"] for step, metrics in fit(module, monitor, **trainer).steps.items()}


def spreads(module: Embedder) -> list[float]:
    """The spread of what each training_step returned."""
    return [spectrum(rows).spread.item() for rows in module.seen]


@contextmanager
def told(message: str) -> Iterator[None]:
    """The monitor warns once, with this message; Lightning's own advice does not count."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    (told,) = [str(warning.message) for warning in seen if str(warning.message).startswith("SpectrumMonitor")]
    assert re.search(message, told)
