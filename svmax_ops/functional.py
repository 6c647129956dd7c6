"""What a user calls: check the arguments, choose a backend, call one op."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from svmax_ops import backends, distributed

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
    _check("svmax_loss", "embeddings", embeddings, group)
    b, d = embeddings.shape[-2:]
    if bounded and group is None and (b < 2 or (d < 2 and not center)):
        raise ValueError(f"svmax_loss: embeddings must be {_undefined_bounds(b, d, center)} Use bounded=False.")
    name = "svmax_loss" if bounded else "svmax_loss_unbounded"
    return _objective("svmax_loss", embeddings, name, normalize, center, group)


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
    _check("svdvals", "matrix", matrix, None)
    return backends.choose("svdvals", matrix).singular_values(matrix, normalize, center)


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
    if b < 2 or (d < 2 and not center):
        raise ValueError(f"singular_value_bounds: the batch must be {_undefined_bounds(b, d, center)}")
    if center:
        return 0.0, math.sqrt(min(b - 1, d) * b) / d
    return math.sqrt(b) / d, math.sqrt(min(b, d) * b) / d


def _undefined_bounds(b: int, d: int, center: bool) -> str:
    if center:
        return f"[..., b, d] with b >= 2 when centred, got [{b}, {d}]; one row minus its mean is zero, U equals L."
    return f"[..., b, d] with min(b, d) >= 2, got [{b}, {d}]; with one direction U equals L."


def _objective(function: str, x: Tensor, name: str, normalize: bool, center: bool, group: Any) -> Tensor:
    backend = backends.choose(function, x)
    if group is not None:
        return distributed.objective(function, x, name, normalize, center, group, backend)
    return backend.objective(x, name, normalize, center)


def _check(function: str, argument: str, x: Tensor, group: Any) -> None:
    """Refuse what no backend can serve, before any kernel starts."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{function}: {argument} must be a torch.Tensor [..., b, d], got {type(x).__name__}.")
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"{function}: {argument} must be float16, bfloat16, float32 or float64, got {x.dtype}."
            f" Convert it first, for example with {argument}.float()."
        )
    if x.layout is not torch.strided:
        raise TypeError(f"{function}: {argument} must be a dense tensor, got layout {x.layout}; use to_dense().")
    if x.dim() < 2:
        raise ValueError(f"{function}: {argument} must be [..., b, d], at least 2 dimensions, got {list(x.shape)}.")
    if x.shape[-1] == 0 or (x.shape[-2] == 0 and group is None):  # other ranks of a group may have rows
        raise ValueError(f"{function}: {argument} must be [..., b, d] with b >= 1 and d >= 1, got {list(x.shape)}.")
