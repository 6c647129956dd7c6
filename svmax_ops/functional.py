"""The functions that a user calls: check the arguments, choose a backend, call one op.

In a process that was forked from one that had computed with several threads, an op waits for them for ever, as
torch's own ops do: call ``torch.set_num_threads(1)`` first thing in the child, or start processes by "spawn".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from svmax_ops import backends, distributed, formulas, sharding
from svmax_ops.torch_internals import check_when_run, is_dtensor, is_masked, right_or_unknown

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def svmax_loss(
    embeddings: Tensor, *, bounded: bool = True, normalize: bool = True, center: bool = False, group: Any = None
) -> Tensor:
    r"""Bounded SVMax loss: 1 for embeddings spread evenly over all directions, e for embeddings collapsed onto one.

    .. math:: \ell = \exp\frac{U - s_\mu}{U - L}, \quad s_\mu = \frac{1}{d} \sum_i \sigma_i(E),
        \quad L = \frac{\sqrt{b}}{d}, \quad U = \frac{\sqrt{\min(b, d)\, b}}{d}

    with :math:`\sigma_i(E)` the singular values of ``embeddings`` after each row is divided by its L2 norm.

    Args:
        embeddings: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        bounded: ``False`` returns :math:`-s_\mu` (eq. 1), as the paper's GAN run does.
        normalize: divide each row by its norm. ``False`` trusts that they have unit norm; it is not checked.
        center: subtract the mean of the (normalised) rows first; then L = 0 and U = sqrt(b min(b - 1, d)) / d.
            Not in the paper, where two clumps of embeddings 90 degrees apart count as evenly spread.
        group: process group whose ranks hold the rest of the batch (b may differ between them and be 0): the loss is
            that of all rows together, equal on every rank. Its gradient is meant to be averaged over the ranks, as
            DistributedDataParallel and fully_shard do; without averaging, divide it by their number.
            ``None``: this process alone.
    Returns:
        ``[...]``, dimensionless; float64 for float64 input, float32 otherwise. Bounded, it is in [1, e] up to rounding
        for rows of unit norm. L and U count every row, so zero rows take it above e where the others are collapsed, at
        most to exp(U / (U - L)), the loss of a zero matrix. A zero row gets a zero gradient; NaN or inf in a matrix
        makes its loss NaN.
    Raises:
        TypeError: ``embeddings`` is not a dense tensor of one of these dtypes.
        ValueError: fewer than two dimensions, b = 0 or d = 0, or bounded where U equals L: min(b, d) = 1,
            with ``center`` b = 1. With ``group``, b is the sum over its ranks; also where the ranks disagree about
            anything else (first call with the same arguments, not under torch.compile), where this process is no
            member, or torch.distributed is not initialised.
        NotImplementedError: a second derivative, forward mode or torch.func together with ``group``.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", eqs. 1 and 4.

    >>> collapsed = torch.ones(8, 4)
    >>> round(svmax_loss(collapsed).item(), 3)
    2.718
    """
    return loss("svmax_loss", embeddings, bounded=bounded, normalize=normalize, center=center, group=group)


def mean_singular_value(
    embeddings: Tensor, *, normalize: bool = True, center: bool = False, group: Any = None
) -> Tensor:
    r"""Mean singular value :math:`s_\mu = \frac{1}{d} \sum_i \sigma_i(E)` of a batch of embeddings, also when b < d.

    Args:
        embeddings: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
        group: process group whose ranks hold the rest of the batch, as for :func:`svmax_loss`.
    Returns:
        ``[...]``, in the unit of the embeddings (dimensionless when normalised); float64 for float64 input, float32
        otherwise. For rows of unit norm it lies between the two numbers of :func:`singular_value_bounds`; zero rows
        can take it below the first.
    Raises:
        TypeError, ValueError, NotImplementedError: as :func:`nuclear_norm`.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", eq. 1.

    >>> mean_singular_value(torch.eye(4)).item()
    1.0
    """
    _check("mean_singular_value", "embeddings", embeddings, group)
    return _objective("mean_singular_value", embeddings, "mean_singular_value", normalize, center, group)


def nuclear_norm(matrix: Tensor, *, normalize: bool = False, center: bool = False, group: Any = None) -> Tensor:
    r"""Nuclear norm :math:`\sum_i \sigma_i`: a drop-in for ``torch.linalg.matrix_norm(matrix, "nuc")``.

    Its gradient is the polar factor :math:`UV^\top`, which repeated singular values do not disturb; in directions
    without a singular value (rank deficiency) it is close to zero.

    Args:
        matrix: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
        group: process group whose ranks hold the other rows, as for :func:`svmax_loss`.
    Returns:
        ``[...]``, in the unit of ``matrix``; float64 for float64 input, float32 otherwise.
    Raises:
        TypeError: ``matrix`` is not a dense tensor of one of these dtypes.
        ValueError: fewer than two dimensions, b = 0 or d = 0; with ``group`` as :func:`svmax_loss`.
        NotImplementedError: a second derivative, forward mode or torch.func together with ``group``.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", section 3 (the sum before the division by d).

    >>> nuclear_norm(torch.diag(torch.tensor([3.0, 2.0, 1.0]))).item()
    6.0
    """
    _check("nuclear_norm", "matrix", matrix, group)
    return _objective("nuclear_norm", matrix, "nuclear_norm", normalize, center, group)


def svdvals(matrix: Tensor, *, normalize: bool = False, center: bool = False) -> Tensor:
    r"""Singular values in descending order: a drop-in for ``torch.linalg.svdvals``.

    They are the square roots of the eigenvalues of the float64 Gram matrix; absolute error about 1e-8 of the largest
    one (float64 input: ``torch.linalg.svd``). The gradient :math:`U \,\mathrm{diag}(g)\, V^\top` is finite for any
    incoming gradient g, and the right one at repeated singular values for functions that are symmetric in them.

    Args:
        matrix: ``[..., b, d]``; float16, bfloat16, float32 or float64; any device, any strides.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
    Returns:
        ``[..., min(b, d)]``, in the unit of ``matrix``; float64 for float64 input, float32 otherwise.
    Raises:
        TypeError, ValueError: as :func:`nuclear_norm`.

    >>> svdvals(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).tolist()
    [3.0, 2.0, 1.0]
    """
    return singular_values("svdvals", "matrix", matrix, normalize=normalize, center=center)


def singular_value_bounds(b: int, d: int, *, center: bool = False) -> tuple[float, float]:
    r"""Lower and upper bound of the mean singular value of b embeddings of d dimensions and unit norm.

    .. math:: L = \frac{\sqrt{b}}{d}, \quad U = \frac{\sqrt{\min(b, d)\, b}}{d}; \qquad
        \text{centred: } L = 0, \quad U = \frac{\sqrt{\min(b - 1, d)\, b}}{d}

    Args:
        b: rows (embeddings) of the batch.
        d: dimensions of an embedding.
        center: the bounds after the mean row is subtracted (ours, not the paper's).
    Returns:
        ``(L, U)``, two floats, dimensionless.
    Raises:
        ValueError: b or d below 1, or U equals L: min(b, d) = 1, with ``center`` b = 1.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", section 3.

    >>> singular_value_bounds(144, 64)
    (0.1875, 1.5)
    """
    if b < 1 or d < 1:
        raise ValueError(f"singular_value_bounds: b and d must be at least 1, got b={b}, d={d}.")
    return bounds("singular_value_bounds", "the batch", (b, d), center=center)


# ---- the same by the name of whoever was called: for the modules and functions that are made of these


def loss(
    function: str, embeddings: Tensor, *, bounded: bool, normalize: bool, center: bool, group: Any = None
) -> Tensor:
    """:func:`svmax_loss`, whose errors name ``function``."""
    _check(function, "embeddings", embeddings, group)
    if bounded and group is None:
        _check_bounds(function, "embeddings", embeddings.shape, center, " Use bounded=False.")
    name = "svmax_loss" if bounded else "svmax_loss_unbounded"
    return _objective(function, embeddings, name, normalize, center, group)


def singular_values(function: str, argument: str, matrix: Tensor, *, normalize: bool, center: bool) -> Tensor:
    """:func:`svdvals`, whose errors name ``function`` and its ``argument``."""
    _check(function, argument, matrix, None)
    return backends.choose(function, matrix).singular_values(matrix, normalize, center)


def bounds(function: str, argument: str, shape: Sequence[int], *, center: bool) -> tuple[float, float]:
    """:func:`singular_value_bounds` of embeddings of this shape ``[..., b, d]``."""
    _check_bounds(function, argument, shape, center)
    b, d = shape[-2:]
    return formulas.bounds(b, d, center)


def _objective(function: str, x: Tensor, name: str, normalize: bool, center: bool, group: Any) -> Tensor:
    backend = backends.choose(function, x)
    if group is not None:
        return distributed.objective(function, x, name, normalize, center, group, backend)
    return backend.objective(x, name, normalize, center)


# ---- what is refused: what no backend can serve, before any kernel starts


def _check(function: str, argument: str, x: Tensor, group: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{function}: {argument} must be a torch.Tensor [..., b, d], got {type(x).__name__}.")
    if type(x) is not Tensor:
        _check_subclass(function, argument, x, group)
    if x.is_nested:
        raise TypeError(
            f"{function}: {argument} must be a dense tensor [..., b, d], got a nested tensor;"
            f" call it for each of {argument}.unbind()."
        )
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"{function}: {argument} must be float16, bfloat16, float32 or float64, got {x.dtype}."
            f" Convert it first, for example with {argument}.float()."
        )
    if x.layout is not torch.strided:
        raise TypeError(f"{function}: {argument} must be a dense tensor, got layout {x.layout}; use to_dense().")
    if x.dim() < 2:
        raise ValueError(f"{function}: {argument} must be [..., b, d], at least 2 dimensions, got {list(x.shape)}.")
    for size, least in zip(x.shape[-2:], (1 if group is None else 0, 1), strict=True):  # other ranks may have rows
        _demand(size >= least, f"{function}: {argument} must be [..., b, d] with b >= 1 and d >= 1", x.shape)


def _check_subclass(function: str, argument: str, x: Tensor, group: Any) -> None:
    if is_masked(x):
        raise TypeError(
            f"{function}: {argument} must be a dense tensor [..., b, d], got a MaskedTensor; choose the rows to be"
            f" counted, for example with {argument}.get_data()[rows]."
        )
    if is_dtensor(x):
        if group is not None:
            raise TypeError(
                f"{function}: {argument} must be a plain tensor with this process's rows where group is given, got a"
                f" DTensor; pass {argument}.to_local(), or leave group out: a DTensor is the whole batch."
            )
        sharding.register()


def _check_bounds(function: str, argument: str, shape: Sequence[int], center: bool, remedy: str = "") -> None:
    """Refuse where U equals L."""
    b, d = shape[-2:]
    conditions, wanted = formulas.bounds_differ(b, d, center)
    why = "one row minus its mean is zero, U equals L." if center else "with one direction U equals L."
    for condition in conditions:
        _demand(condition, f"{function}: {argument} must be [..., b, d] with {wanted}", shape, f"; {why}{remedy}")


def _demand(right: bool, wanted: str, shape: Sequence[int], why: str = ".") -> None:
    """Refuse ``shape`` unless ``right``. Where a compiler does not know that yet, its graph checks when it runs."""
    if torch.compiler.is_compiling() or isinstance(right, torch.SymBool):
        if not right_or_unknown(right):
            raise ValueError(f"{wanted}, got {list(shape)}{why}")
        check_when_run(right, wanted + why)
    elif not right:
        raise ValueError(f"{wanted}, got {list(shape)}{why}")
