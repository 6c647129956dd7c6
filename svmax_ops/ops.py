"""The rules of the ops: shapes, derivatives and batching, written once and applied to a whole namespace.

A kernel library (csrc/schemas.cpp) brings kernels; everything else that torch asks of an op is a function of the
namespace here, so that no backend has rules of its own. Second derivatives come from :mod:`svmax_ops.derivatives`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad

from svmax_ops import derivatives
from svmax_ops.backends.reference import result_dtype
from svmax_ops.torch_internals import SingleLevelFunction, forget, keep, smaller


def register_rules(namespace: str) -> None:
    """Give the ops of ``namespace`` (the schemas of csrc/schemas.cpp) their fake, autograd and vmap rules.

    Rules that another import of this package gave them in this process make way for these.
    """
    ops = getattr(torch.ops, namespace)
    forget(ops, "rules")
    library = torch.library.Library(namespace, "FRAGMENT")
    keep(ops, "rules", library)
    for name, fake in _FAKES.items():
        torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
        torch.library.register_vmap(f"{namespace}::{name}", _vmap_rule(getattr(ops, name).default), lib=library)
    for name, rule in _AUTOGRAD.items():
        library.impl(name, rule(ops), "Autograd", with_keyset=True)


def direct_call(namespace: str, name: str) -> Callable[..., Tensor]:
    """The op as a function of x that returns its first result, by the shortest way.

    An autograd kernel in Python costs 6 us a call, as much as the work on a small matrix. So it is passed by where
    nothing is differentiated, and its autograd function is called without the dispatcher where that is all it would do.
    """
    ops = getattr(torch.ops, namespace)
    op, function_for = getattr(ops, name).default, _forward_functions(ops, *_FORWARD[name])

    def call(x: Tensor, **options: Any) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return op(x, **options)[0]
        if _is_differentiated(x):
            return function_for(**options).apply(x, None)[0]
        return _below_autograd(op, None, x, **options)[0]

    return call


class Functions(NamedTuple):
    """What a backend offers (:class:`svmax_ops.backends.Backend`), by the ops of one namespace."""

    objective: Callable[[Tensor, str, bool, bool], Tensor]
    singular_values: Callable[[Tensor, bool, bool], Tensor]
    gram: Callable[[Tensor, bool, bool], tuple[Tensor, Tensor]]
    spectral: Callable[[Tensor, bool], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, bool, bool], Tensor]
    namespace: str


def functions_of(namespace: str) -> Functions:
    """Of ops whose rules are registered."""
    ops = getattr(torch.ops, namespace)
    of_objective, of_singular_values = (direct_call(namespace, name) for name in ("objective", "singular_values"))

    def objective(x: Tensor, name: str, normalize: bool, center: bool) -> Tensor:
        """``[..., b, d]`` -> ``[...]``: the nuclear norm of x, or the function of it that ``name`` says."""
        return of_objective(x, objective=name, normalize=normalize, center=center)

    def singular_values(x: Tensor, normalize: bool, center: bool) -> Tensor:
        """``[..., b, d]`` -> ``[..., min(b, d)]``, descending."""
        return of_singular_values(x, normalize=normalize, center=center)

    def gram(x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
        """``[..., b, d]`` -> the smaller Gram matrix ``[..., n, n]`` float64, row norms ``[..., b]`` (``[..., 0]``)."""
        return ops.gram(x, normalize=normalize, center=center)

    def spectral(gram: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
        """``[..., n, n]`` float64 -> N ``[...]``, G^(-1/2) ``[..., n, n]`` (``[..., 0, 0]`` when not needed)."""
        return ops.spectral(gram, need_inverse_sqrt=need_inverse_sqrt)

    def backward(grad: Tensor, x: Tensor, weight: Tensor, row_norms: Tensor, normalize: bool, center: bool) -> Tensor:
        """grad ``[...]``, weight = slope * G^(-1/2) ``[..., n, n]`` -> dx ``[..., b, d]`` in x's dtype."""
        # The objective's name is for the second derivative, which the stages alone do not have.
        options = {"objective": "nuclear_norm", "normalize": normalize, "center": center}
        return ops.backward(grad, x, weight, row_norms, **options)

    return Functions(objective, singular_values, gram, spectral, backward, namespace)


# ---- fake: shapes and dtypes, n = min(b, d)


def _kept(x: Tensor, needed: bool) -> Tensor:
    n = smaller(*x.shape[-2:]) if needed else 0
    return x.new_empty((*x.shape[:-2], n, n), dtype=torch.float64)


def _row_norms(x: Tensor, normalize: bool) -> Tensor:
    return x.new_empty((*x.shape[:-2], x.shape[-2] if normalize else 0), dtype=torch.float64)


def _fake_gram(x: Tensor, *, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    return _kept(x, True), _row_norms(x, normalize)


def _fake_spectral(gram: Tensor, *, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    return gram.new_empty(gram.shape[:-2]), _kept(gram, need_inverse_sqrt)


def _fake_objective(
    x: Tensor, *, objective: str, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    value = x.new_empty(x.shape[:-2], dtype=result_dtype(x))
    return value, _kept(x, need_gradient), _row_norms(x, normalize)


def _fake_singular_values(
    x: Tensor, *, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    n = smaller(*x.shape[-2:])
    values = x.new_empty((*x.shape[:-2], n), dtype=result_dtype(x))
    return values, _kept(x, need_gradient), _row_norms(x, normalize)


def _fake_gradient(grad: Tensor, x: Tensor, kept: Tensor, row_norms: Tensor, **options: Any) -> Tensor:
    return x.new_empty(x.shape)


_FAKES: dict[str, Callable[..., Any]] = {
    "gram": _fake_gram,
    "spectral": _fake_spectral,
    "backward": _fake_gradient,
    "objective": _fake_objective,
    "singular_values": _fake_singular_values,
    "singular_values_backward": _fake_gradient,
}


# ---- vmap: every op takes any leading dimensions, so the mapped one becomes the first of them


def _vmap_rule(op: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Tensor, **options: Any) -> Any:
        mapped = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(args, in_dims, strict=True)
        ]
        result = op(*mapped, **options)
        return result, (0 if isinstance(result, Tensor) else (0,) * len(result))

    return rule


# ---- autograd: the gradient, its gradient, and forward mode
#
# The rules are kernels of the dispatcher's autograd key, one level of torch.func at a time: hence torch's single-level
# base class, where torch.autograd.Function would start all levels over. register_autograd has no forward mode.


def _is_differentiated(*tensors: Tensor) -> bool:
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return True
    # No public name says whether a forward-mode level is open; without one there is no tangent to look for.
    return forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def _apply(function: type[SingleLevelFunction], *args: Any) -> Any:
    if torch._C._are_functorch_transforms_active():
        with enable_single_level_autograd_function():
            return function.apply(*args)
    return function.apply(*args)


def _below_autograd(op: Any, keyset: Any, *args: Tensor, **options: Any) -> Any:
    """The op without its autograd kernel; ``keyset`` is what that kernel was called with, None outside of it."""
    with torch._C._AutoDispatchBelowAutograd():
        if keyset is None:
            return op(*args, **options)
        keyset = keyset & torch._C._after_autograd_keyset
        if not torch._C._are_functorch_transforms_active():
            return op.redispatch(keyset, *args, **options)
        # An autograd function's forward runs with both modes off; the outer transforms of torch.func are still to come.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return op.redispatch(keyset, *args, **options)


def _not_differentiable(name: str) -> Callable[[Any], Callable[..., Any]]:
    """The stages alone carry no gradient: a gradient goes through `objective` and `singular_values`."""

    def rule(ops: Any) -> Callable[..., Any]:
        op = getattr(ops, name).default
        return lambda keyset, *args, **options: _below_autograd(op, keyset, *args, **options)

    return rule


# An autograd function is made once for each combination of options, which so are constants of it: compiled autograd
# keeps its graphs by the function and the sizes.


@functools.cache
def _forward_functions(ops: Any, name: str, gradient: str, tangent: Callable[..., Tensor]) -> Callable[..., Any]:
    """options -> autograd of an op x -> (result, kept, row_norms); op ``gradient`` takes the result's gradient to x."""
    op, gradient_op = getattr(ops, name).default, getattr(ops, gradient).default

    @functools.cache
    def function_for(**options: Any) -> type[SingleLevelFunction]:
        class Forward(SingleLevelFunction):
            @staticmethod
            def forward(ctx: Any, x: Tensor, keyset: Any) -> tuple[Tensor, Tensor, Tensor]:
                result, kept, row_norms = _below_autograd(op, keyset, x, need_gradient=True, **options)
                ctx.save_for_backward(x, kept, row_norms)
                ctx.save_for_forward(x)
                ctx.mark_non_differentiable(kept, row_norms)
                ctx.set_materialize_grads(False)
                return result, kept, row_norms

            @staticmethod
            def backward(ctx: Any, grad: Tensor | None, *unused: Any) -> Any:
                if grad is None:
                    return None, None
                x, kept, row_norms = ctx.saved_tensors
                # Compiled autograd has torch.compile trace this: to it the op is all there is.
                traced = torch.compiler.is_compiling()
                if traced or torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
                    return gradient_op(grad, x, kept, row_norms, **options), None
                return _below_autograd(gradient_op, None, grad, x, kept, row_norms, **options), None

            @staticmethod
            def jvp(ctx: Any, x_tangent: Tensor, *unused: Any) -> Any:
                (x,) = ctx.saved_tensors
                return tangent(x, x_tangent, **options).to(result_dtype(x)), None, None

        return Forward

    return function_for


def _forward_rule(name: str) -> Callable[[Any], Callable[..., Any]]:
    def rule(ops: Any) -> Callable[..., Any]:
        op, function_for = getattr(ops, name).default, _forward_functions(ops, *_FORWARD[name])

        def kernel(keyset: Any, x: Tensor, need_gradient: bool = False, **options: Any) -> Any:
            if _is_differentiated(x):
                return _apply(function_for(**options), x, keyset)
            return _below_autograd(op, keyset, x, need_gradient=need_gradient, **options)

        return kernel

    return rule


def _gradient_rule(name: str, second: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Any], Callable[..., Any]]:
    """Autograd of an op (grad, x, kept, row_norms) -> dx; what was kept is a function of x, not a variable."""

    def rule(ops: Any) -> Callable[..., Any]:
        op = getattr(ops, name).default

        @functools.cache
        def function_for(**options: Any) -> type[SingleLevelFunction]:
            class Gradient(SingleLevelFunction):
                @staticmethod
                def forward(ctx: Any, grad: Tensor, x: Tensor, kept: Tensor, row_norms: Tensor, keyset: Any) -> Tensor:
                    ctx.save_for_backward(grad, x)
                    ctx.save_for_forward(grad, x)
                    return _below_autograd(op, keyset, grad, x, kept, row_norms, **options)

                @staticmethod
                def backward(ctx: Any, grad_dx: Tensor) -> Any:
                    grad, x = ctx.saved_tensors
                    for_grad, for_x = second(x, grad_dx, grad, None, **options)
                    return for_grad.to(grad.dtype), for_x.to(x.dtype), None, None, None

                @staticmethod
                def jvp(ctx: Any, grad_tangent: Tensor, x_tangent: Tensor, *unused: Any) -> Tensor:
                    grad, x = ctx.saved_tensors
                    x_tangent = torch.zeros_like(x) if x_tangent is None else x_tangent
                    return second(x, x_tangent, grad, grad_tangent, **options)[1].to(x.dtype)

            return Gradient

        def kernel(keyset: Any, grad: Tensor, x: Tensor, kept: Tensor, row_norms: Tensor, **options: Any) -> Tensor:
            if _is_differentiated(grad, x):
                return _apply(function_for(**options), grad, x, kept, row_norms, keyset)
            return _below_autograd(op, keyset, grad, x, kept, row_norms, **options)

        return kernel

    return rule


# name -> (itself, the op of its gradient, its forward-mode derivative)
_FORWARD: dict[str, tuple[str, str, Callable[..., Tensor]]] = {
    "objective": ("objective", "backward", derivatives.objective_tangent),
    "singular_values": ("singular_values", "singular_values_backward", derivatives.singular_values_tangent),
}

_AUTOGRAD: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "gram": _not_differentiable("gram"),
    "spectral": _not_differentiable("spectral"),
    "backward": _gradient_rule("backward", derivatives.of_objective_gradient),
    "objective": _forward_rule("objective"),
    "singular_values": _forward_rule("singular_values"),
    "singular_values_backward": _gradient_rule("singular_values_backward", derivatives.of_singular_values_gradient),
}
