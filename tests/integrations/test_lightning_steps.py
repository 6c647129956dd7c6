"""What SpectrumMonitor counts as a step, and that each embedding of it counts once."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from svmax_ops import spectrum
from svmax_ops.integrations.lightning import SpectrumMonitor, _WatchedStep
from svmax_ops.layer_rows import LayerRows
from tests.integrations.lightning_runs import Embedder, Memory, reports, spreads

pytestmark = pytest.mark.filterwarnings("ignore:::lightning.*")


def test_accumulated_batches_are_one_step_with_one_report_of_all_their_rows():
    module = Embedder()
    found = reports(module, SpectrumMonitor("head", every_n_steps=2), rows=84, accumulate_grad_batches=3)
    steps = [module.seen[:3], module.seen[3:6], module.seen[6:]]  # the last has one batch
    assert found == {step: spectrum(torch.cat(steps[step])).spread.item() for step in (0, 2)}


def test_a_step_in_which_several_optimizers_step_is_one_step():
    class Module(Embedder):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [super(Module, self).configure_optimizers() for _ in range(3)]

    module = Module()
    found = reports(module, SpectrumMonitor("head", every_n_steps=3))
    assert found == {step: spectrum(torch.cat(module.seen[3 * step :][:3])).spread.item() for step in (0, 3)}


def test_an_optimizer_that_evaluates_training_step_several_times_has_its_first_counted():
    class Module(Embedder):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=4)

    module = Module()
    found = reports(module, SpectrumMonitor("head"))
    assert len(module.seen) > 4
    assert found == {0: spreads(module)[0]}


def test_validation_between_the_steps_is_not_seen():
    class Module(Embedder):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(1000 * batch[0])

        def val_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(24, 6)), batch_size=12)

    module = Module()
    found = reports(module, SpectrumMonitor(), accumulate_grad_batches=2, val_check_interval=1, num_sanity_val_steps=2)
    assert found == {0: spectrum(torch.cat(module.seen[:2])).spread.item()}


def test_a_strategy_that_wraps_the_module_shows_its_forward_alone():
    class Around(nn.Module):  # as DistributedDataParallel: its forward calls the module, which runs training_step
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *arguments: Any) -> Any:
            return self.module(*arguments)

    class Wraps(SingleDeviceStrategy):
        def setup(self, trainer: pl.Trainer) -> None:
            super().setup(trainer)
            self.model = Around(self.model)

    module = Embedder()
    assert reports(module, SpectrumMonitor(), strategy=Wraps(device=torch.device("cpu"))) == {0: spreads(module)[0]}


def test_a_training_that_is_resumed_counts_on(tmp_path):
    monitor, loader = SpectrumMonitor("head", every_n_steps=3), DataLoader(TensorDataset(torch.randn(48, 6)), 12)
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    first, second = Memory(), Memory()
    trainer = pl.Trainer(max_epochs=1, logger=first, callbacks=[monitor], default_root_dir=tmp_path, **options)
    trainer.fit(Embedder(), loader)
    path = trainer.checkpoint_callback.best_model_path
    trainer = pl.Trainer(max_epochs=2, logger=second, callbacks=[monitor], default_root_dir=tmp_path, **options)
    trainer.fit(Embedder(), loader, ckpt_path=path)
    assert (sorted(first.steps), sorted(second.steps)) == ([0, 3], [6])


class Deep(pl.LightningModule):
    """A body and a head, with a part of them checkpointed or compiled in the ways that there are."""

    def __init__(self, how: str = "plain", manual: bool = False) -> None:
        super().__init__()
        self.how, self.automatic_optimization = how, not manual
        self.body, self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 4)
        self.runs = 0  # of a graph that was compiled
        if how == "layer.compile":
            self.head.compile(backend=self.backend)
        if how in ("torch.compile(layer)", "torch.compile(body)"):
            name = "head" if "layer" in how else "body"
            setattr(self, name, torch.compile(getattr(self, name), backend=self.backend))
        if how in ("function", "body and function"):
            self.embed = torch.compile(self.embed, backend=self.backend, fullgraph=True)
        if how == "body and function":
            self.body.compile(backend=self.backend)
        if how == "module.compile":
            self.compile(backend=self.backend)

    def backend(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        def run(*arguments: Any) -> Any:
            self.runs += 1
            return graph.forward(*arguments)

        return run

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    forward = embed

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.how.endswith("reentrant"):
            reentrant = self.how == "reentrant"
            z = checkpoint(self.embed, batch[0].requires_grad_() if reentrant else batch[0], use_reentrant=reentrant)
        else:
            z = self(batch[0]) if self.how == "module.compile" else self.embed(batch[0])
        loss = z.square().mean()
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def deep() -> Any:
    """``deep(...)`` is a Deep module, always with the same weights; the compiler knows nothing of an earlier test."""

    def deep(*arguments: Any) -> Deep:
        torch.manual_seed(1)
        return Deep(*arguments)

    torch._dynamo.reset()
    return deep


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("how", ["reentrant", "non-reentrant"])
def test_checkpointing_leaves_the_numbers_as_they_are(deep, how, manual):
    expected = reports(deep("plain", manual), SpectrumMonitor("head", every_n_steps=2))
    assert sorted(expected) == [0, 2]
    assert reports(deep(how, manual), SpectrumMonitor("head", every_n_steps=2)) == expected


@pytest.mark.parametrize(
    ("how", "compiled"),  # steps that run compiled
    [
        ("layer.compile", 2),
        ("torch.compile(layer)", 4),  # its own hooks are called
        ("torch.compile(body)", 4),
        ("function", 2),
        ("module.compile", 2),
        ("whole", 2),
        ("non-reentrant", 2),  # whole as well
    ],
)
def test_compilation_leaves_the_numbers_as_they_are_and_the_other_steps_compiled(deep, how, compiled):
    expected = reports(deep(), SpectrumMonitor("head", every_n_steps=2))
    module = deep(how)
    whole = how in ("whole", "non-reentrant")
    network = torch.compile(module, backend=module.backend, fullgraph=True) if whole else module
    assert reports(network, SpectrumMonitor("head", every_n_steps=2)) == pytest.approx(expected)
    assert module.runs == compiled


def test_a_compiled_function_beside_a_compiled_module_costs_one_step(deep):
    assert sorted(reports(deep("body and function"), SpectrumMonitor("head", every_n_steps=3))) == [1, 3]


def test_a_compiled_optimizer_calls_training_step_as_an_uncompiled_one_does():
    module, rows, x = Embedder(), LayerRows(), torch.randn(12, 6)

    def watch(module: pl.LightningModule, training_step: Any, *arguments: Any) -> Any:
        with rows.of(module.head, eager=True):
            return training_step(*arguments)

    @torch.compile(backend="eager")
    def step(closure: Any) -> torch.Tensor:
        return closure() + 1

    for _ in range(2):
        watched = _WatchedStep(module, watch)
        step(lambda: module.training_step([x], 0))
        assert watched.over
        assert torch.equal(rows.take(), module.head(x))
    assert "training_step" not in vars(module)
