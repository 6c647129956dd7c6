"""The spectrum of the embeddings as telemetry in Lightning."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch

from svmax_ops.layer_rows import LayerRows, compiled_parts, hides
from svmax_ops.spectrum import spectrum

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities import rank_zero_warn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "svmax_ops.integrations.lightning needs lightning: pip install 'svmax-ops[lightning]'", name=error.name
    ) from error

TRIES = 10  # steps in a row; networks that take turns, as in a GAN, are called every second to sixth step


class SpectrumMonitor(Callback):
    """Logs :func:`svmax_ops.spectrum` of a layer's output while training, to see a collapse when it begins.

    Every ``every_n_steps`` steps it reads what the layer returns in ``training_step`` and hands ``spectrum/spread``,
    ``spectrum/effective_rank``, ``spectrum/condition`` and ``spectrum/mean`` to the trainer's loggers and to
    ``trainer.callback_metrics``. Steps in between cost nothing.

    A step is what Lightning's loggers count: one batch, however many optimizers step in it, or with
    ``accumulate_grad_batches`` all batches that make one update. It has one report, of the rows of all its batches and
    of all calls of the layer together. Left out are calls without gradients where others record them, the
    recomputation of activation checkpointing, the further calls of ``training_step`` by an optimizer that evaluates
    it several times (LBFGS), and validation. In data-parallel training each process sees its own rows, and the loggers
    get those of the first.

    Compiled code calls no hook. Where the layer runs inside of it (``torch.compile`` of the LightningModule, of a
    module around the layer, of a function), the ``training_step`` that is looked at runs uncompiled, so that the
    numbers are those of the eager network: it takes longer and as much memory as without ``torch.compile``, and
    rounds and draws dropout as without. Apart from that the monitor never changes the training.

    It never ends the training either: where there is nothing to report (the layer is not called, returns no matrix or
    a single row; a logger fails), it warns once and goes on. After a step without a report it looks at the next ones,
    up to ten.

    Args:
        layer: name of the submodule that returns the embeddings ``[b, d]``, as ``LightningModule.get_submodule``
            takes it; "" is the LightningModule itself (then ``training_step`` must call ``self(...)``).
        every_n_steps: distance of the steps that are looked at; the first is step 0.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
    Raises:
        ValueError: ``every_n_steps`` below 1; at the start of the training, a layer that the module does not have.

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
        self._begin()

    def _begin(self) -> None:
        """Forget everything about a training."""
        self._rows = LayerRows()
        self._watched: _WatchedStep | None = None
        self._step: int | None = None  # the step that is looked at; several batches with accumulate_grad_batches
        self._updates = 0  # trainer.global_step when it began
        self._uncompiled = False  # it runs without the compiled code that the training has
        self._unheard = False  # a step had no call of the layer: compiled code may have hidden it
        self._reports = self._misses = 0  # in all; steps without one since the last
        self._warned: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            pl_module.get_submodule(self.layer)
        except AttributeError as error:
            names = [name for name, _ in pl_module.named_modules() if name]
            alike = difflib.get_close_matches(self.layer, names, n=10, cutoff=0)
            more = ", ..." if len(alike) < len(names) else ""
            raise ValueError(
                f"SpectrumMonitor: no layer {self.layer!r}; the module has: {', '.join(alike)}{more}."
            ) from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unwatch()  # a search for the batch size trains several times, with exceptions that it catches
        self._begin()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._unwatch()  # where the last on_train_batch_start ended the epoch, before training_step was called
        # Lightning's own callbacks log under this number, too. global_step counts the steps of all optimizers.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self._step not in (None, step):
            self._report(trainer)  # the last batch of that step was None, which runs no training_step
        if self._step is None:
            if step % self.every_n_steps and not 0 < self._misses < TRIES:
                return
            self._step, self._updates = step, trainer.global_step
        self._watched = _WatchedStep(pl_module, self._watch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._unwatch()
        accumulates = pl_module.automatic_optimization and trainer.global_step == self._updates
        if self._step is not None and not accumulates:
            self._report(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unwatch()
        if self._misses and not self._reports:
            self._warn_of_misses()
        self._begin()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unwatch()
        if self._step is not None and self._uncompiled and isinstance(exception, torch.OutOfMemoryError):
            self._warn(
                "memory",
                "the step that ran out of memory was one it looks at, which runs without torch.compile; leave the "
                "monitor out and log svmax_ops.spectrum(embeddings) in training_step where the memory is too small",
            )
        self._begin()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._watched.end()
            self._watched = None

    def _watch(self, module: LightningModule, training_step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            layer = module.get_submodule(self.layer)
        except AttributeError:  # it was there when the training began
            return training_step(*args, **kwargs)
        parts = compiled_parts(module)
        self._uncompiled = module._compiler_ctx is not None or any(hides(part, layer) for part in parts)
        # No module is compiled: a function may be. Others are: they stay so, unless the layer was not heard then.
        eager = self._uncompiled or not parts or self._unheard
        with self._rows.of(layer, eager=eager):
            return training_step(*args, **kwargs)

    def _report(self, trainer: Trainer) -> None:
        """Log the spectrum of the rows of the step that has ended."""
        step, self._step = self._step, None
        try:
            embeddings = self._rows.take()
            self._unheard = self._unheard or embeddings is None
            if embeddings is None or len(embeddings) < 2:  # the spread of one embedding is not defined
                self._misses += 1
                if self._misses == TRIES:
                    self._warn_of_misses()
                return
            report = spectrum(embeddings, normalize=self.normalize, center=self.center)
        except Exception as error:
            self._warn("output", f"no report of the layer {self.layer!r} at step {step}: {error}")
            return
        self._reports, self._misses = self._reports + 1, 0
        metrics = {
            f"spectrum/{name}": getattr(report, name) for name in ("spread", "effective_rank", "condition", "mean")
        }
        trainer.callback_metrics.update(metrics)
        values = {name: value.item() for name, value in metrics.items()}
        # To the loggers directly: pl_module.log would drop every step that is not one of trainer.log_every_n_steps.
        for logger in trainer.loggers:
            try:
                logger.log_metrics(values, step=step)
            except Exception as error:
                name = type(logger).__name__
                self._warn(name, f"{name} did not take the numbers of step {step}: {type(error).__name__}: {error}")

    def _warn_of_misses(self) -> None:
        """Say that the steps that were looked at had nothing to report; after the last of them."""
        self._warn(
            "misses",
            f"nothing to report, since training_step did not call the layer {self.layer!r}, or got less than two rows "
            f"from it, in the {self._misses} steps that were looked at; name a layer that it calls with a batch",
        )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(f"SpectrumMonitor: {message.rstrip('.')}.", category=UserWarning)


class _WatchedStep:
    """Takes the place of a module's ``training_step`` for one call, which it has ``watch`` make."""

    def __init__(self, module: LightningModule, watch: Callable[..., Any]) -> None:
        self.module = module
        self.watch = watch
        self.before = vars(module).get("training_step")  # a compiled one, or that of another monitor
        self.training_step = module.training_step
        # Lightning looks at the signature, behind one decorator.
        self.__wrapped__ = getattr(self.training_step, "__wrapped__", self.training_step)
        self.over = False
        vars(module)["training_step"] = self

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # where the optimizer that calls it is compiled
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.over:
            return self.training_step(*args, **kwargs)
        self.end()
        return self.watch(self.module, self.training_step, *args, **kwargs)

    def end(self) -> None:
        """Put the module's own ``training_step`` back, as soon as no other monitor waits for it."""
        self.over = True
        while isinstance(top := vars(self.module).get("training_step"), _WatchedStep) and top.over:
            if top.before is None:
                del vars(self.module)["training_step"]
            else:
                vars(self.module)["training_step"] = top.before
