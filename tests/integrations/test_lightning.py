"""SpectrumMonitor in a Lightning training run."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from svmax_ops import spectrum
from svmax_ops.integrations.lightning import SpectrumMonitor
from tests.integrations.lightning_runs import NAMES, Embedder, Memory, fit, reports, spreads, told

# Lightning's advice about workers and logging intervals, and its own use of what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:::lightning.*")


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


def test_refuses_a_layer_that_is_not_there_before_the_training_begins():
    module = Embedder()
    with pytest.raises(ValueError, match=r"^SpectrumMonitor: no layer 'neck'; the module has: head\.$"):
        fit(module, SpectrumMonitor("neck"))
    module.many = nn.Sequential(*(nn.Identity() for _ in range(500)))
    with pytest.raises(ValueError, match=r"the module has: head, .{,200}, \.\.\.\.$"):  # those that are alike
        fit(module, SpectrumMonitor("haed"))
    assert not module.seen


def test_warns_once_of_a_layer_that_is_not_called_and_looks_again_at_ten_steps_only():
    class Looks(SpectrumMonitor):
        looks = 0

        def _watch(self, *arguments: Any) -> Any:
            self.looks += 1
            return super()._watch(*arguments)

    monitor = Looks("head", every_n_steps=15)
    with told("did not call the layer 'head'.*in the 10 steps that were looked at"):
        assert reports(Embedder(calls=0), monitor, batch=2) == {}
    assert monitor.looks == 11  # steps 0 to 9, and 15 of 24


@pytest.mark.parametrize(("batch", "calls"), [(1, 1), (12, 0)], ids=["one row", "no call"])
def test_warns_at_the_end_of_a_short_training_without_a_report(batch, calls):
    with told("or got less than two rows from it, in the 2 steps"):
        assert reports(Embedder(calls), SpectrumMonitor("head"), rows=2 * batch, batch=batch) == {}


@pytest.mark.parametrize("output", [lambda z: (z, z), lambda z: {"z": z}, lambda z: z.unflatten(1, (2, 2))])
def test_warns_once_of_an_output_that_is_no_batch_of_embeddings(output):
    class Returns(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return output(super().forward(x))

    class Module(Embedder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.head(x)
            return x @ self.head.weight.T

    module = Module()
    module.head = Returns(6, 4)
    with told(r"layer 'head' at step 0: it must return embeddings \[b, d\], got"):
        assert reports(module, SpectrumMonitor("head", every_n_steps=1)) == {}
    assert len(module.seen) == 4


def test_reports_embeddings_that_are_not_numbers_as_they_are():
    class Module(Embedder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * float("nan"))

    (spread,) = reports(Module(), SpectrumMonitor("head")).values()
    assert math.isnan(spread)


def test_a_logger_that_fails_is_told_of_once_and_the_others_get_the_numbers():
    class Broken(Memory):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if NAMES & metrics.keys():
                raise OSError("no space left on device")

    memory = Memory()
    with told("Broken did not take the numbers of step 0: OSError: no space left"):
        fit(Embedder(), SpectrumMonitor("head", every_n_steps=1), logger=[Broken(), memory])
    assert sorted(memory.steps) == [0, 1, 2, 3]


def test_leaves_nothing_behind_where_the_training_ends_in_an_exception():
    class Module(Embedder):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            super().training_step(batch, batch_idx)
            raise KeyError("a bug of the user's")

    class Early(pl.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            raise KeyError("a bug of the user's")

    for callbacks in ([], [Early()]):
        module, first, second = Module(), SpectrumMonitor("head"), SpectrumMonitor("")
        with pytest.raises(KeyError, match="a bug of the user's"):
            fit(module, first, callbacks=[first, second, *callbacks])
        assert not module.head._forward_hooks
        assert "training_step" not in vars(module)


def test_says_that_it_ran_uncompiled_where_the_memory_was_too_small_for_that():
    class Module(Embedder):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        told(r"runs without torch\.compile; leave the monitor out and log"),
        pytest.raises(torch.OutOfMemoryError),
    ):
        fit(torch.compile(Module(), backend="eager"), SpectrumMonitor("head"))


def test_a_step_that_is_skipped_makes_way_for_the_next():
    class Module(Embedder):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
            return super().training_step(batch, batch_idx) if batch_idx else None

    module = Module()
    assert reports(module, SpectrumMonitor("head")) == {1: spreads(module)[0]}


def test_a_layer_that_is_called_every_other_step_is_reported():
    class Module(Embedder):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx) if batch_idx % 2 else self.head.weight.square().sum()
            return loss

    module = Module()
    assert reports(module, SpectrumMonitor("head", every_n_steps=2)) == dict(zip((1, 3), spreads(module), strict=True))


def test_an_epoch_that_ends_before_its_first_step_leaves_the_next_report_whole():
    class Module(Embedder):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if self.current_epoch == 0 else None

    module = Module()
    assert reports(module, SpectrumMonitor("head"), max_epochs=2) == {0: spreads(module)[0]}


def test_two_monitors_each_see_their_layer():
    module, whole, head = Embedder(), SpectrumMonitor(center=True), SpectrumMonitor("head", every_n_steps=2)
    memories = Memory()
    seen: list[tuple[int, float]] = []
    memories.log_metrics = lambda metrics, step=None: seen.append((step, metrics.get("spectrum/spread")))
    fit(module, whole, callbacks=[whole, head], logger=memories)
    expected = [spectrum(module.seen[0], center=True).spread.item(), spreads(module)[0], spreads(module)[2]]
    assert [entry for entry in seen if entry[1] is not None] == list(zip((0, 0, 2), expected, strict=True))


def test_refuses_a_distance_below_one():
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        SpectrumMonitor(every_n_steps=0)


def test_names_the_extra_when_the_library_is_missing(import_without):
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'svmax-ops\[lightning\]'"):
        import_without("lightning", "svmax_ops.integrations.lightning")
