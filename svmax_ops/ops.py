"""The rules of the ops: shapes, derivatives and batching, written once and applied to a whole namespace.

A library of kernels (csrc/schemas.cpp, or one in Python by :func:`define`) brings kernels; everything else that torch
asks of an op is a function of the namespace here, so that no backend has rules of its own. Second derivatives come from
:mod:`svmax_ops.derivatives`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from svmax_ops import derivatives, linalg
from svmax_ops.formulas import result_dtype
from svmax_ops.torch_internals import (
    SingleLevelFunction,
    apply_one_level,
    below_autograd,
    forget,
    has_tangent,
    keep,
    kept,
    smaller,
    transforms_are_active,
)

SCHEMAS = (
    "gram(Tensor x, *, bool normalize, bool center) -> (Tensor gram, Tensor row_norms)",
    "spectral(Tensor gram, *, bool need_inverse_sqrt) -> (Tensor nuclear_norm, Tensor inverse_sqrt, Tensor in_float32)",
    "backward(Tensor grad, Tensor x, Tensor weight, Tensor in_float32, Tensor row_norms, *, str objective,"
    " bool normalize, bool center) -> Tensor",
    "objective(Tensor x, *, str objective, bool normalize, bool center, bool need_gradient=False)"
    " -> (Tensor value, Tensor weight, Tensor in_float32, Tensor row_norms)",
    "singular_values(Tensor x, *, bool normalize, bool center, bool need_gradient=False)"
    " -> (Tensor values, Tensor gram, Tensor row_norms)",
    "singular_values_backward(Tensor grad, Tensor x, Tensor gram, Tensor row_norms, *, bool normalize, bool center)"
    " -> Tensor",
)
"""Word for word those of csrc/schemas.cpp, which says what they take and return."""


def define(namespace: str, kernels: Mapping[str, Callable[..., Any]]) -> None:
    """Define the ops with kernels in Python, but for `singular_values_backward`, which is the same for all.

    Where an earlier import of this package in this process has, those serve.

    Raises:
        ImportError: one has, and they differ from these.
    """
    ops = getattr(torch.ops, namespace)
    before = kept(ops, "definitions")
    if before is None:
        library = torch.library.Library(namespace, "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        for name, kernel in kernels.items():
            library.impl(name, kernel, "CompositeExplicitAutograd")
        keep(ops, "definitions", (SCHEMAS, library))
    elif before[0] != SCHEMAS:
        raise ImportError("svmax_ops: this process has imported another version of it; restart Python to use this one.")


def register_rules(namespace: str) -> None:
    """Give the ops of ``namespace`` their fake, autograd and vmap rules, and the kernel that all have from Python.

    Rules that another import of this package gave them in this process make way for these.
    """
    ops = getattr(torch.ops, namespace)
    forget(ops, "rules")
    library = torch.library.Library(namespace, "FRAGMENT")
    keep(ops, "rules", library)
    by_eigenvectors = functools.partial(linalg.singular_values_backward, ops.backward.default)
    library.impl("singular_values_backward", by_eigenvectors, "CompositeExplicitAutograd")
    for name, fake in _FAKES.items():
        torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
        torch.library.register_vmap(f"{namespace}::{name}", _vmap_rule(getattr(ops, name).default), lib=library)
    for name in ("gram", "spectral"):
        library.impl(name, _undifferentiated_rule(ops, name), "Autograd", with_keyset=True)
    for name in _GRADIENT_OF:
        library.impl(name, _forward_rule(ops, name), "Autograd", with_keyset=True)
        library.impl(_GRADIENT_OF[name], _gradient_rule(ops, name), "Autograd", with_keyset=True)


class Functions:
    """The ops of one namespace, whose rules are registered, as functions."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._ops = getattr(torch.ops, namespace)
        self._objective = _direct_call(self._ops, "objective")
        self._singular_values = _direct_call(self._ops, "singular_values")

    def objective(self, x: Tensor, name: str, normalize: bool, center: bool) -> Tensor:
        """``[..., b, d]`` -> ``[...]``: the nuclear norm of x, or the function of it that ``name`` says."""
        return self._objective(x, objective=name, normalize=normalize, center=center)

    def singular_values(self, x: Tensor, normalize: bool, center: bool) -> Tensor:
        """``[..., b, d]`` -> ``[..., min(b, d)]``, descending."""
        return self._singular_values(x, normalize=normalize, center=center)

    # The three stages, without derivatives.

    def gram(self, x: Tensor, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
        """``[..., b, d]`` -> the smaller Gram matrix ``[..., n, n]`` float64, row norms ``[..., b]`` (``[..., 0]``)."""
        gram, row_norms = self._ops.gram(x, normalize=normalize, center=center)
        return gram, row_norms

    def spectral(self, gram: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor, Tensor]:
        """``[..., n, n]`` float64 -> N ``[...]``, W = G^(-1/2) ``[..., n, n]``, and its precision ``[..., 1]``.

        The latter says whether the numbers of W are float32 numbers, which products with them may be made in. Both are
        empty, ``[..., 0, 0]`` and ``[..., 0]``, when not needed.
        """
        nuclear_norm, inverse_sqrt, in_float32 = self._ops.spectral(gram, need_inverse_sqrt=need_inverse_sqrt)
        return nuclear_norm, inverse_sqrt, in_float32

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        in_float32: Tensor,
        row_norms: Tensor,
        normalize: bool,
        center: bool,
    ) -> Tensor:
        """grad ``[...]``, weight = slope * W ``[..., n, n]`` -> dx ``[..., b, d]`` in x's dtype."""
        # The objective's name is for the second derivative, which the stages alone do not have.
        options = {"objective": "nuclear_norm", "normalize": normalize, "center": center}
        dx: Tensor = self._ops.backward(grad, x, weight, in_float32, row_norms, **options)
        return dx


def _direct_call(ops: Any, name: str) -> Callable[..., Tensor]:
    """The op as a function of x that returns its first result, by the shortest way.

    An autograd kernel in Python costs 6 us a call, as much as the work on a small matrix. So it is passed by where
    nothing is differentiated, and its autograd function is called without the dispatcher where that is all it would do.
    """
    op = getattr(ops, name).default

    def call(x: Tensor, **options: Any) -> Tensor:
        result: tuple[Tensor, ...]
        if torch.compiler.is_compiling() or transforms_are_active():
            result = op(x, **options)
        elif _is_differentiated(x):
            result = _Forward.apply(x, _call_of(ops, name, **options), None)
        else:
            result = below_autograd(op, None, x, **options)
        return result[0]

    return call


# ---- fake: shapes and dtypes, n = min(b, d)


def _square(x: Tensor, needed: bool) -> Tensor:
    n = smaller(*x.shape[-2:]) if needed else 0
    return x.new_empty((*x.shape[:-2], n, n), dtype=torch.float64)


def _row_norms(x: Tensor, normalize: bool) -> Tensor:
    return x.new_empty((*x.shape[:-2], x.shape[-2] if normalize else 0), dtype=torch.float64)


def _fake_gram(x: Tensor, *, normalize: bool, center: bool) -> tuple[Tensor, Tensor]:
    return _square(x, True), _row_norms(x, normalize)


def _fake_spectral(gram: Tensor, *, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor, Tensor]:
    needed = need_inverse_sqrt
    return gram.new_empty(gram.shape[:-2]), _square(gram, needed), linalg.in_float64(gram, needed)


def _fake_objective(
    x: Tensor, *, objective: str, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    value = x.new_empty(x.shape[:-2], dtype=result_dtype(x))
    return value, _square(x, need_gradient), linalg.in_float64(x, need_gradient), _row_norms(x, normalize)


def _fake_singular_values(
    x: Tensor, *, normalize: bool, center: bool, need_gradient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    n = smaller(*x.shape[-2:])
    values = x.new_empty((*x.shape[:-2], n), dtype=result_dtype(x))
    return values, _square(x, need_gradient), _row_norms(x, normalize)


def _fake_gradient(grad: Tensor, x: Tensor, *kept: Tensor, **options: Any) -> Tensor:
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

_GRADIENT_OF = {"objective": "backward", "singular_values": "singular_values_backward"}
"""op x -> (result, what its backward needs...) -> the op that takes the result's gradient to x."""
_TANGENT_OF: dict[str, Callable[..., Tensor]] = {
    "objective": derivatives.objective_tangent,
    "singular_values": derivatives.singular_values_tangent,
}
_SECOND_OF: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "objective": derivatives.of_objective_gradient,
    "singular_values": derivatives.of_singular_values_gradient,
}


class _Call:
    """An op of a namespace with options, and its derivatives: made once, so that it can be told from others."""

    _numbers = itertools.count()

    def __init__(self, ops: Any, name: str, options: dict[str, Any]) -> None:
        self.op, self.gradient = getattr(ops, name).default, getattr(ops, _GRADIENT_OF[name]).default
        self.tangent, self.second = _TANGENT_OF[name], _SECOND_OF[name]
        self.options = options
        self.number = next(self._numbers)


@functools.cache
def _call_of(ops: Any, name: str, **options: Any) -> _Call:
    return _Call(ops, name, options)


def _is_differentiated(*tensors: Tensor) -> bool:
    return (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)) or has_tangent(*tensors)


class _Forward(SingleLevelFunction):
    """x -> the results of the op; the first of them is differentiated, the others are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: _Call, keyset: Any) -> tuple[Tensor, ...]:
        result, *kept = below_autograd(call.op, keyset, x, need_gradient=True, **call.options)
        ctx.call, ctx.kept = call, len(kept)
        ctx.save_for_backward(x, *kept)
        ctx.save_for_forward(x)
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        return result, *kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *unused: Any) -> Any:
        if grad is None:
            return None, None, None
        x, *kept = ctx.saved_tensors
        call = ctx.call
        # Compiled autograd has torch.compile trace this: to it the op is all there is.
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or transforms_are_active():
            return call.gradient(grad, x, *kept, **call.options), None, None
        return below_autograd(call.gradient, None, grad, x, *kept, **call.options), None, None

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor, *unused: Any) -> Any:
        (x,) = ctx.saved_tensors
        tangent = ctx.call.tangent(x, x_tangent, **ctx.call.options).to(result_dtype(x))
        return tangent, *[None] * ctx.kept


class _Gradient(SingleLevelFunction):
    """grad, x -> dx; what the forward kept is a function of x, not a variable."""

    @staticmethod
    def forward(ctx: Any, call: _Call, keyset: Any, grad: Tensor, x: Tensor, *kept: Tensor) -> Tensor:
        ctx.call, ctx.kept = call, len(kept)
        ctx.save_for_backward(grad, x)
        ctx.save_for_forward(grad, x)
        dx: Tensor = below_autograd(call.gradient, keyset, grad, x, *kept, **call.options)
        return dx

    @staticmethod
    def backward(ctx: Any, grad_dx: Tensor) -> Any:
        grad, x = ctx.saved_tensors
        for_grad, for_x = ctx.call.second(x, grad_dx, grad, None, **ctx.call.options)
        return None, None, for_grad.to(grad.dtype), for_x.to(x.dtype), *[None] * ctx.kept

    @staticmethod
    def jvp(ctx: Any, call: None, keyset: None, grad_tangent: Tensor, x_tangent: Tensor, *unused: Any) -> Tensor:
        grad, x = ctx.saved_tensors
        x_tangent = torch.zeros_like(x) if x_tangent is None else x_tangent
        tangent: Tensor = ctx.call.second(x, x_tangent, grad, grad_tangent, **ctx.call.options)[1]
        return tangent.to(x.dtype)


def _undifferentiated_rule(ops: Any, name: str) -> Callable[..., Any]:
    """The stages alone carry no gradient: a gradient goes through `objective` and `singular_values`."""
    op = getattr(ops, name).default
    return lambda keyset, *args, **options: below_autograd(op, keyset, *args, **options)


def _forward_rule(ops: Any, name: str) -> Callable[..., Any]:
    op = getattr(ops, name).default

    def kernel(keyset: Any, x: Tensor, need_gradient: bool = False, **options: Any) -> Any:
        if _is_differentiated(x):
            return apply_one_level(_Forward, x, _call_of(ops, name, **options), keyset)
        return below_autograd(op, keyset, x, need_gradient=need_gradient, **options)

    return kernel


def _gradient_rule(ops: Any, name: str) -> Callable[..., Any]:
    op = getattr(ops, _GRADIENT_OF[name]).default

    def kernel(keyset: Any, grad: Tensor, x: Tensor, *kept: Tensor, **options: Any) -> Tensor:
        result: Tensor
        if _is_differentiated(grad, x):
            result = apply_one_level(_Gradient, _call_of(ops, name, **options), keyset, grad, x, *kept)
        else:
            result = below_autograd(op, keyset, grad, x, *kept, **options)
        return result

    return kernel
