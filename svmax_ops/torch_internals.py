"""Private names of torch that this package uses, each with its reason and with what would take its place."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import Function, _SingleLevelFunction
from torch.utils import checkpoint

_F = TypeVar("_F", bound=Callable[..., Any])


class SingleLevelFunction(_SingleLevelFunction):
    """An autograd function of one level of torch.func, for a kernel of the dispatcher's autograd key.

    ``torch.autograd.Function`` starts all levels over, which such a kernel must not. Public would be a forward mode in
    ``torch.library.register_autograd``.
    """

    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[Any, ...]:
        """Compiled autograd asks every node for it, and ``Function`` alone has it."""
        return Function._compiled_autograd_key(ctx)


# ---- what lasts as long as the process
#
# A second import of the package (autoreload, a notebook that drops modules, importlib.reload) finds torch's dispatcher
# as the first has left it. What belongs to it is kept at the namespace torch.ops.<name>, which torch makes once.


def keep(namespace: Any, name: str, value: Any) -> None:
    """Keep ``value`` at a namespace of torch.ops, for as long as the process lasts."""
    setattr(namespace, _attribute(name), value)


def kept(namespace: Any, name: str) -> Any:
    """What is kept there, or None."""
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

CONTEXT_VARIABLES_ARE_TRACED = torch.__version__ >= (2, 14)
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
    if torch.__version__ >= (2, 14):  # which loses a function that makes the message
        torch._check(condition, message)
    else:  # which takes nothing but a function, and up to 2.11 none that knows this message
        torch._check(condition)


def is_unknown(condition: bool | torch.SymBool) -> bool:
    """Whether the condition hangs on a size that is unknown while compiling."""
    if not (torch.compiler.is_compiling() or isinstance(condition, torch.SymBool)):
        return False
    from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

    return guard_or_true(condition) and not guard_or_false(condition)


# Of sizes that may be symbolic: torch.sym_min and its like keep them so, but up to torch 2.11 the compiler refuses them
# for plain numbers. While it traces, symbolic sizes are plain to isinstance, and min, max and sqrt keep them symbolic.


def smaller(a: int, b: int) -> int:
    return torch.sym_min(a, b) if _symbolic(a, b) else min(a, b)


def larger(a: int, b: int) -> int:
    return torch.sym_max(a, b) if _symbolic(a, b) else max(a, b)


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


# ---- torch.utils.checkpoint: which checkpointed functions a call is made from


def is_in_backward() -> bool:
    """Whether autograd's engine runs in this thread: a recomputation of torch.utils.checkpoint does so then."""
    return torch._C._current_graph_task_id() != -1


def checkpoints_around() -> tuple[list[Any], Any]:
    """The checkpoints whose function is called for the first time now, and the one that is recomputed, or None.

    Each is the object that torch keeps for it from the forward to the backward; innermost first. torch recomputes
    under the autocast and random state of the forward, and has no place where another library could add its own; with
    one, this would not be needed. A torch that keeps them elsewhere has no checkpoints here.
    """
    begun: list[Any] = []
    frame = sys._getframe(1)
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
