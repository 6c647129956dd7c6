"""The embeddings that a layer returns while a network trains, gathered from the outside by a forward hook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from svmax_ops.torch_internals import is_batched, is_compiled, is_compiled_wrapper, is_in_backward, without_modes


class LayerRows:
    """Gathers what a layer returns in the calls of a ``with`` block, until :meth:`take` hands it over.

    Only forward calls count: what activation checkpointing computes again in the backward pass was there before.
    It holds copies, so that what works in place on the layer's output does not change them, and never raises inside
    the network: what is wrong with an output, ``take`` says.
    """

    def __init__(self) -> None:
        self._trained: list[Tensor] = []
        self._untrained: list[Tensor] = []
        self._error: Exception | None = None

    @contextmanager
    def of(self, layer: nn.Module, *, eager: bool) -> Iterator[None]:
        """Gather from ``layer``; ``eager`` runs the block uncompiled, since compiled code calls no hook.

        The hook is not there when code is compiled, so neither that code nor its guards know of it.
        """
        handle = layer.register_forward_hook(self._keep)
        try:
            with torch.compiler.set_stance("force_eager") if eager else nullcontext():
                yield
        finally:
            handle.remove()

    def take(self) -> Tensor | None:
        """The rows ``[rows, d]`` of all calls in their order, which are then forgotten; None without a call.

        Where gradients were recorded for a part of the calls, that part alone: a pass without them (to mine
        negatives, say) shows the network the same pictures once more.

        Raises:
            ValueError: the layer returned something else than a matrix.
        """
        rows, error = self._trained or self._untrained, self._error
        self._trained, self._untrained, self._error = [], [], None
        if error is not None:
            raise error
        return torch.cat(rows) if rows else None

    def _keep(self, layer: nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or is_in_backward():
            return
        try:
            if not isinstance(output, Tensor) or output.dim() != 2:
                got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"it must return embeddings [b, d], got {got}")
            if is_batched(output):
                raise ValueError("it must return embeddings [b, d], got a part of them, under torch.vmap")
            rows = self._trained if torch.is_grad_enabled() or _in_function() else self._untrained
            with without_modes():  # selective checkpointing counts the operations of the forward pass
                rows.append(output.detach().clone())
        except Exception as error:
            self._error = error


def _in_function() -> bool:
    """Whether a torch.autograd.Function calls: gradients are off in its forward, though its caller records them.

    Reentrant checkpointing is such a function.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and isinstance(frame.f_locals.get(code.co_varnames[0]), FunctionCtx):
            return True
        frame = frame.f_back
    return False


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """The modules of ``network`` that were compiled by ``module.compile()`` or are ``torch.compile(module)``."""
    return [part for part in network.modules() if is_compiled(part)]


def hides(part: nn.Module, layer: nn.Module) -> bool:
    """Whether the compiled module ``part`` calls ``layer`` without its hooks; a wrapper's own are called outside."""
    return layer in part.modules() and not (layer is part and is_compiled_wrapper(part))
