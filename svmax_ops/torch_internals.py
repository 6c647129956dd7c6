"""Private names of torch that this package uses, each with its reason and with what would take its place."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.utils import checkpoint

_F = TypeVar("_F", bound=Callable[..., Any])
_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))

lacking: list[str] = []
"""Names that the rules of the ops need and this torch does not have, a sentence for each: then no backend serves."""


def _private(name: str, use: str, *, by_the_ops: bool = True) -> Any:
    """The object that torch keeps under a private name, or a function that says, when called, that there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        sentence = (
            f"torch {torch.__version__} has no {name}, by which svmax_ops {use}; torch 2.10 to 2.14 have it, and a"
            " newer svmax_ops may do without"
        )

    def missing(*args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(f"svmax_ops: {sentence}.")

    if by_the_ops:
        lacking.append(sentence)
    return missing


# ---- kernels of the dispatcher's autograd key
#
# All of these would go with a torch.library.register_autograd that takes a forward mode; it calls an op's kernel from
# its derivative by itself.

_SingleLevelFunction = _private("torch.autograd.function._SingleLevelFunction", "differentiates its ops")
_enable_single_level = _private(
    "torch._functorch.autograd_function.enable_single_level_autograd_function",
    "differentiates its ops under torch.func",
)
# Public would be a question to torch.func, whether one of its transforms is running.
transforms_are_active = _private("torch._C._are_functorch_transforms_active", "knows that torch.func calls it")
_BelowAutograd = _private("torch._C._AutoDispatchBelowAutograd", "calls an op's kernel from its derivative")
_after_autograd_keyset = _private("torch._C._after_autograd_keyset", "calls an op's kernel from its derivative")
# Public would be forward_ad.enable_grad, and a question whether a level of it is open.
_set_forward_mode = _private("torch.autograd.forward_ad._set_fwd_grad_enabled", "leaves a level of torch.func")
_private("torch.autograd.forward_ad._current_level", "knows whether forward-mode differentiation is on")


class SingleLevelFunction(Function if lacking else _SingleLevelFunction):  # type: ignore[misc]
    """An autograd function of one level of torch.func, for a kernel of the dispatcher's autograd key.

    ``torch.autograd.Function`` starts all levels over, which such a kernel must not. Its context has, as ``call``, what
    tells its nodes from others of the same function: their ``call.number`` differ.
    """

    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[Any, ...]:
        """Compiled autograd asks every node for it, and keeps a graph for each; ``Function`` alone has it."""
        return *Function._compiled_autograd_key(ctx), ctx.call.number


def apply_one_level(function: type[SingleLevelFunction], *args: Any) -> Any:
    """``function.apply``, in a kernel of the autograd key."""
    if transforms_are_active():
        with _enable_single_level():
            return function.apply(*args)
    return function.apply(*args)


def below_autograd(op: Any, keyset: Any, *args: Tensor, **options: Any) -> Any:
    """The op without its autograd kernel; ``keyset`` is what that kernel was called with, None outside of it."""
    with _BelowAutograd():
        if keyset is None:
            return op(*args, **options)
        keyset = keyset & _after_autograd_keyset
        if not transforms_are_active():
            return op.redispatch(keyset, *args, **options)
        # An autograd function's forward runs with both modes off; the outer transforms of torch.func are still to come.
        with torch.enable_grad(), _set_forward_mode(True):
            return op.redispatch(keyset, *args, **options)


def has_tangent(*tensors: Tensor) -> bool:
    """Whether one of them is dual. No public name says that a forward-mode level is open; without one none can be."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


# ---- what lasts as long as the process
#
# A second import of the package (autoreload, a notebook that drops modules, importlib.reload) finds torch's dispatcher
# as the first has left it. What belongs to it is kept at the namespace torch.ops.<name>, which torch makes once.


def keep(namespace: Any, name: str, value: Any) -> None:
    """Keep ``value`` at a namespace of torch.ops, for as long as the process lasts."""
    setattr(namespace, _attribute(name), value)


def kept(namespace: Any, name: str) -> Any:
    """The value that is kept there, or None."""
    return vars(namespace).get(_attribute(name))


def forget(namespace: Any, name: str) -> None:
    """Let go of it. torch drops the registrations of a ``torch.library.Library`` with the last reference to it."""
    vars(namespace).pop(_attribute(name), None)


def _attribute(name: str) -> str:
    return f"_svmax_ops_{name}"


# ---- kinds of tensors, without an import of what they belong to: a tensor is none of them where that is not imported


def is_dtensor(x: Tensor) -> bool:
    """A ``torch.distributed.tensor.DTensor``."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def is_masked(x: Tensor) -> bool:
    """A ``torch.masked.MaskedTensor``."""
    module = sys.modules.get("torch.masked")
    return module is not None and isinstance(x, module.MaskedTensor)


# ---- while compiling

CONTEXT_VARIABLES_ARE_TRACED = _TORCH >= (2, 14)
"""torch.compile reads a ContextVar, and compiles anew where its value is another."""


def right_or_unknown(condition: bool | torch.SymBool) -> bool:
    """False where the condition is wrong; a size that is unknown while compiling (u0) gets the benefit of the doubt.

    ``if`` alone would have the compiler refuse such a size. Public would be ``guard_or_true`` under torch.compiler.
    """
    from torch.fx.experimental.symbolic_shapes import guard_or_true  # imports sympy, which a compiler has done

    return guard_or_true(condition)


def check_when_run(condition: bool | torch.SymBool, message: str) -> None:
    """``torch._check``: the compiled graph raises RuntimeError where the condition turns out wrong.

    Inductor, and any compiler before torch 2.14, puts an expression of its own in place of the message.
    """
    if _TORCH >= (2, 14):  # which loses a function that makes the message
        torch._check(condition, message)
    else:  # which takes nothing but a function, and up to 2.11 none that knows this message
        torch._check(condition)


def is_unknown(condition: bool | torch.SymBool) -> bool:
    """Whether the condition hangs on a size that is unknown while compiling."""
    if not (torch.compiler.is_compiling() or isinstance(condition, torch.SymBool)):
        return False
    from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

    return guard_or_true(condition) and not guard_or_false(condition)


# Sizes may be symbolic: torch.sym_min and its like keep them so, but up to torch 2.11 the compiler refuses these
# for plain numbers. While it traces, symbolic sizes are plain to isinstance, and min, max and sqrt keep them symbolic.


def smaller(a: int, b: int) -> Any:
    return torch.sym_min(a, b) if _symbolic(a, b) else min(a, b)


def root(a: float) -> float:
    return torch.sym_sqrt(a) if _symbolic(a) else math.sqrt(a)


def _symbolic(*numbers: float) -> bool:
    return any(isinstance(number, (torch.SymInt, torch.SymFloat)) for number in numbers)


def constant_while_compiling(function: _F) -> _F:
    """torch.compile calls the function while it compiles, and does not look into it.

    ``torch.compiler.assume_constant_result`` says the same, but imports the compiler (a second).
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# ---- what runs around a call: autograd's engine, modes, torch.vmap, compiled code

_graph_task = _private(
    "torch._C._current_graph_task_id", "tells a recomputation in the backward from a first call", by_the_ops=False
)
# Public would be a question to torch.func about a tensor.
_is_batched = _private(
    "torch._C._functorch.is_batchedtensor", "looks into embeddings under torch.vmap", by_the_ops=False
)
# Public would be a context under torch.utils.
without_modes = _private(
    "torch.utils._python_dispatch._disable_current_modes", "copies embeddings unseen by checkpoints", by_the_ops=False
)
"""A context in which no mode sees what is computed: selective checkpointing counts the operations of a forward."""


def is_in_backward() -> bool:
    """Whether autograd's engine runs in this thread: a recomputation of torch.utils.checkpoint does so then.

    Public would be a way for a hook to learn of it.
    """
    return bool(_graph_task() != -1)


def is_batched(x: Tensor) -> bool:
    """Whether it is a part of a tensor that torch.vmap maps over."""
    return bool(_is_batched(x))


def is_compiled(module: torch.nn.Module) -> bool:
    """By ``module.compile()`` or as ``torch.compile(module)``. Public would be a property of the module."""
    return getattr(module, "_compiled_call_impl", None) is not None or is_compiled_wrapper(module)


def is_compiled_wrapper(module: torch.nn.Module) -> bool:
    """Whether ``torch.compile(module)`` made it; a second of imports, which nothing before needs."""
    optimized = _private("torch._dynamo.OptimizedModule", "finds compiled modules", by_the_ops=False)
    return isinstance(module, optimized) if isinstance(optimized, type) else optimized()


# ---- torch.utils.checkpoint: which checkpointed functions a call is made from


def checkpoints_around() -> tuple[list[Any], Any]:
    """The checkpoints whose function is called for the first time now, and the one that is recomputed, or None.

    Each is the object that torch keeps for it from the forward to the backward; innermost first. torch recomputes
    under the autocast and random state of the forward, and has no place where another library could add its own; with
    one, this would not be needed. A torch that keeps them elsewhere has no checkpoints here.
    """
    begun: list[Any] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == checkpoint.__file__:
            name, local = frame.f_code.co_name, frame.f_locals
            if name == "unpack_hook" and "frame" in local:  # without reentrant autograd, recomputed
                return begun, local["frame"]
            if name == "backward" and "ctx" in local:  # with it, recomputed
                return begun, local["ctx"]
            if name == "forward" and "ctx" in local:
                begun.append(local["ctx"])
            elif "gen" in local and local["gen"].gi_frame is not None:
                begun.append(local["gen"].gi_frame.f_locals.get("new_frame"))
        frame = frame.f_back
    return [each for each in begun if each is not None], None
