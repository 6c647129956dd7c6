"""SpectrumMonitor in a Lightning training run."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from svmax_ops import spectrum
from svmax_ops.integrations.lightning import SpectrumMonitor

# Lightning's advice about workers and logging intervals, and its own use of what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:::lightning.*")

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


def test_logs_the_spectrum_of_the_layer_every_n_steps():
    module = Embedder()
    memory = fit(module, SpectrumMonitor("head", every_n_steps=2))
    assert sorted(memory.steps) == [0, 2]
    for step, metrics in memory.steps.items():
        expected = spectrum(module.seen[step])
        assert metrics.keys() == NAMES
        for name, value in metrics.items():
            assert value == getattr(expected, name.removeprefix("spectrum/")).item()


def test_takes_the_rows_of_all_calls_of_a_step_together():
    module = Embedder(calls=3)
    memory = fit(module, SpectrumMonitor())  # "": the module's own forward
    assert memory.steps[0]["spectrum/spread"] == spectrum(module.seen[0]).spread.item()


def test_passes_its_options_on():
    module = Embedder()
    memory = fit(module, SpectrumMonitor("head", normalize=False, center=True))
    assert memory.steps[0]["spectrum/mean"] == spectrum(module.seen[0], normalize=False, center=True).mean.item()


def test_other_callbacks_can_watch_it():
    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
            self.seen = set(trainer.callback_metrics)

    watch, monitor = Watch(), SpectrumMonitor("head")
    fit(Embedder(), monitor, callbacks=[monitor, watch])
    assert watch.seen >= NAMES


def test_does_not_change_the_training():
    with_monitor, without = (Embedder() for _ in range(2))
    without.load_state_dict(with_monitor.state_dict())
    fit(with_monitor, SpectrumMonitor("head", every_n_steps=1))
    fit(without, SpectrumMonitor("head", every_n_steps=1), callbacks=[])
    assert torch.equal(with_monitor.head.weight, without.head.weight)
    assert not with_monitor.head._forward_hooks


def test_passes_over_a_last_batch_of_one_row():
    memory = fit(Embedder(), SpectrumMonitor("head", every_n_steps=1), rows=25)
    assert sorted(memory.steps) == [0, 1]


def test_writes_to_a_logger_of_lightning(tmp_path):
    fit(Embedder(), SpectrumMonitor("head", every_n_steps=3), logger=CSVLogger(tmp_path, name="", version=""))
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert set(header.split(",")) >= NAMES
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("layer", "calls", "message"),
    [
        ("neck", 1, "SpectrumMonitor: no layer 'neck'; the module has: head."),
        ("head", 0, "SpectrumMonitor: training_step did not call the layer 'head'."),
    ],
)
def test_says_which_layer_is_wrong(layer, calls, message):
    with pytest.raises(ValueError, match=message):
        fit(Embedder(calls), SpectrumMonitor(layer))


def test_says_what_a_layer_returned_that_is_no_batch_of_embeddings():
    module = Embedder()
    module.head = nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2)))
    module.head.weight = module.head[0].weight
    with pytest.raises(ValueError, match=r"'head' must return embeddings \[b, d\], got \[12, 2, 2\]"):
        fit(module, SpectrumMonitor("head"))
    assert not module.head._forward_hooks  # removed though the step failed


def test_refuses_a_distance_below_one():
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        SpectrumMonitor(every_n_steps=0)


def test_names_the_extra_when_the_library_is_missing(import_without):
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'svmax-ops\[lightning\]'"):
        import_without("lightning", "svmax_ops.integrations.lightning")
