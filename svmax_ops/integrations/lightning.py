"""The spectrum of the embeddings as telemetry in Lightning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from svmax_ops.spectrum import spectrum

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "svmax_ops.integrations.lightning needs lightning: pip install 'svmax-ops[lightning]'", name=error.name
    ) from error


class SpectrumMonitor(Callback):
    """Logs :func:`svmax_ops.spectrum` of a layer's output while training, to see a collapse when it begins.

    Every ``every_n_steps`` steps it reads what the layer returns in ``training_step`` (the rows of all its calls
    together) and hands ``spectrum/spread``, ``spectrum/effective_rank``, ``spectrum/condition`` and ``spectrum/mean``
    to the trainer's loggers and to ``trainer.callback_metrics``. Steps in between cost nothing. It never changes the
    training. In data-parallel training it sees the rows of its own process.

    Args:
        layer: name of the submodule that returns the embeddings ``[b, d]``, as ``LightningModule.get_submodule``
            takes it; "" is the LightningModule itself (then ``training_step`` must call ``self(...)``).
        every_n_steps: distance of the steps that are looked at; the first is step 0.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
    Raises:
        ValueError: ``every_n_steps`` below 1; a layer that the module does not have, or that does not return
            embeddings, when training reaches it.

    >>> SpectrumMonitor("head", every_n_steps=100).layer
    'head'
    """

    def __init__(
        self, layer: str = "", *, every_n_steps: int = 50, normalize: bool = True, center: bool = False
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"SpectrumMonitor: every_n_steps must be at least 1, got {every_n_steps}.")
        self.layer = layer
        self.every_n_steps = every_n_steps
        self.normalize = normalize
        self.center = center
        self._step = 0
        self._hook: RemovableHandle | None = None
        self._outputs: list[Any] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        try:
            layer = pl_module.get_submodule(self.layer)
        except AttributeError as error:
            names = ", ".join(name for name, _ in pl_module.named_modules() if name)
            raise ValueError(f"SpectrumMonitor: no layer {self.layer!r}; the module has: {names}.") from error
        self._step = trainer.global_step  # at the end of the batch it is one further
        self._hook = layer.register_forward_hook(self._keep)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._hook is None:
            return
        rows = self._release()
        if not rows:
            raise ValueError(f"SpectrumMonitor: training_step did not call the layer {self.layer!r}.")
        embeddings = torch.cat(rows)
        if len(embeddings) < 2:
            return  # the last, partial batch: the spread of one embedding is not defined
        report = spectrum(embeddings, normalize=self.normalize, center=self.center)
        metrics = {
            f"spectrum/{name}": getattr(report, name) for name in ("spread", "effective_rank", "condition", "mean")
        }
        trainer.callback_metrics.update(metrics)
        # To the loggers directly: pl_module.log would drop every step that is not one of trainer.log_every_n_steps.
        for logger in trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in metrics.items()}, step=self._step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def _keep(self, layer: nn.Module, arguments: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.dim() != 2:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"SpectrumMonitor: the layer {self.layer!r} must return embeddings [b, d], got {got}.")
        self._outputs.append(output.detach())

    def _release(self) -> list[Any]:
        """What the layer returned since the hook was set; nothing is kept."""
        if self._hook is not None:
            self._hook.remove()
        rows, self._hook, self._outputs = self._outputs, None, []
        return rows
