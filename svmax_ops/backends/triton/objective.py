"""The fused operator: gram, spectral and the objective; where it fits one launch from x to the loss and its W."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch, polar_express
from svmax_ops.backends.triton.gram import embed, side_at, side_product, store_gram
from svmax_ops.backends.triton.polar_express import scale_of
from svmax_ops.backends.triton.products import multiply
from svmax_ops.backends.triton.rounds import (
    polar_factor_by_products,
    run_rounds,
    scale_matrix,
    scratch_of,
    sizes_in_program,
    store_product,
    tile_at,
)
from svmax_ops.backends.triton.rows import NOT_SPECIALIZED, Rows, rows_of_matrix, store_mean, store_norms
from svmax_ops.formulas import OBJECTIVES

_ROUNDS = tl.constexpr(polar_express.ROUNDS)
_BEFORE_RESTART = tl.constexpr(polar_express.ROUNDS_BEFORE_RESTART)
_MATRICES_OF_PROGRAM = 256


@triton.jit
def value_and_slope(nuclear_norm, b, d, KIND: tl.constexpr, CENTER: tl.constexpr):
    """The objective (a place in OBJECTIVES) of N and its derivative, as :mod:`svmax_ops.formulas` has them.

    From b and d, in float64: a launch makes float32 of any other number that it is given.
    """
    zero = tl.zeros_like(nuclear_norm)
    sides, count = zero + d, zero + b
    value = nuclear_norm
    slope = zero + 1
    if KIND == 1:
        value = nuclear_norm / sides
        slope = 1 / sides
    elif KIND == 2:
        value = -nuclear_norm / sides
        slope = -1 / sides
    elif KIND == 3:
        if CENTER:
            upper = tl.sqrt(tl.minimum(count - 1, sides) * count) / sides
            width = upper
        else:
            upper = tl.sqrt(tl.minimum(count, sides) * count) / sides
            width = upper - tl.sqrt(count) / sides
        value = tl.exp((upper - nuclear_norm / sides) / width)
        slope = -value / (width * sides)
    return value, slope


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def objective_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride, value, weight, scratch,
    KIND: tl.constexpr, TALL: tl.constexpr, NORMALIZE: tl.constexpr, CENTER: tl.constexpr, NEED_GRADIENT: tl.constexpr,
    N: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """One matrix a program; ``scratch`` ``[m, 7, N, N]``."""
    matrix = tl.program_id(0).to(tl.int64)
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    side = b if TALL else d
    m = scratch + matrix * 7 * N * N
    room = m + N * N
    before = room + 2 * N * N
    after = before + 2 * N * N
    if NORMALIZE:
        for start in range(0, b, ROWS):
            store_norms(rows, start, ROWS, COLUMNS)
        tl.debug_barrier()  # all threads see what all have stored
    if CENTER:
        for start in range(0, d, COLUMNS):
            store_mean(rows, start, NORMALIZE, ROWS, COLUMNS)
        tl.debug_barrier()
    scale = scale_of(store_gram(m, rows, m, side, False, TALL, NORMALIZE, CENTER, N, SIDE, TERMS))
    scale_matrix(m, scale * scale, tl.zeros((), tl.float64), N, SIDE)
    left = run_rounds(m, before, room, 0, _BEFORE_RESTART, _ROUNDS, N, SIDE)
    scale_matrix(left, scale, tl.zeros((), tl.float64), N, SIDE)
    # The Gram matrix has lost what is below 1e-8 of its norm; the product A left has not, and gives it anew.
    store_gram(m, rows, left, side, True, TALL, NORMALIZE, CENTER, N, SIDE, TERMS)
    right = run_rounds(m, after, room, _BEFORE_RESTART, _ROUNDS, _ROUNDS, N, SIDE)
    store_product(m, left, right, N, SIDE)
    nuclear_norm = tl.zeros((SIDE,), tl.float64)  # the inner product of A and A W, some columns at a time
    for first in range(0, N, SIDE):
        column = first + tl.arange(0, SIDE)
        for start in range(0, side, TERMS):
            a = side_at(rows, start + tl.arange(0, TERMS), column, TALL, NORMALIZE, CENTER)
            p = side_product(rows, start, m, column, TALL, NORMALIZE, CENTER, N, SIDE, TERMS)
            nuclear_norm += tl.sum(a * p, 0)
    result, slope = value_and_slope(tl.sum(nuclear_norm, 0), b, d, KIND, CENTER)
    tl.store(value + matrix, result.to(tl.float32))
    if NEED_GRADIENT:
        n = d if TALL else b
        for tile in range((N // SIDE) * (N // SIDE)):
            i, j = tile_at(tile, N, SIDE)
            inside = (i < n) & (j < n)
            at = m + i * N + j if TALL else m + j * N + i  # wide: right' left'
            tl.store(weight + (matrix * n + i) * n + j, slope * tl.load(at), mask=inside)


@triton.jit(do_not_specialize=["m", *NOT_SPECIALIZED])
def value_kernel(nuclear_norm, value, slope, m, b, d, KIND: tl.constexpr, CENTER: tl.constexpr, MATRICES: tl.constexpr):
    """The objective and its slope of some N of all ``m``."""
    matrix = tl.program_id(0) * MATRICES + tl.arange(0, MATRICES)
    inside = matrix < m
    norm = tl.load(nuclear_norm + matrix, mask=inside, other=0.0)
    result, its_slope = value_and_slope(norm, b, d, KIND, CENTER)
    tl.store(value + matrix, result.to(tl.float32), mask=inside)
    tl.store(slope + matrix, its_slope, mask=inside)


def launch_objective(rows: Rows, objective: str, need_gradient: bool) -> tuple[Tensor, Tensor]:
    """Value ``[m]`` float32 and slope times W ``[m, n, n]`` (``[m, 0, 0]`` without); fills the norms of ``rows``."""
    m, n, blocks = len(rows.x), rows.n, launch.BLOCKS
    kept = n if need_gradient else 0
    value, weight = rows.norms.new_empty(m, dtype=rows.result_dtype), rows.norms.new_empty((m, kept, kept))
    kind = OBJECTIVES.index(objective)
    if not rows.fits_in_program:
        return _by_products(rows, kind, value, weight)
    objective_kernel[(m,)](
        *rows.arguments, value, weight, scratch_of(m, n, 7, value),
        KIND=kind, TALL=rows.tall, NORMALIZE=rows.normalize, CENTER=rows.center, NEED_GRADIENT=need_gradient,
        **sizes_in_program(n), ROWS=blocks.rows, COLUMNS=blocks.columns, TERMS=blocks.terms, **launch.options(),
    )  # fmt: skip
    return value, weight


def _by_products(rows: Rows, kind: int, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`objective_kernel` does, by 58 launches of a product."""
    e = embed(rows)
    side = e if rows.tall else e.mT.contiguous()
    p, left, right = polar_factor_by_products(side)
    nuclear_norm = (side * p).sum((-2, -1))
    slope, m = nuclear_norm.new_empty(len(e)), len(e)
    value_kernel[(triton.cdiv(m, _MATRICES_OF_PROGRAM),)](
        nuclear_norm, value, slope, m, *rows.sizes,
        KIND=kind, CENTER=rows.center, MATRICES=_MATRICES_OF_PROGRAM, **launch.options(),
    )  # fmt: skip
    if weight.numel():
        w = multiply(left, right) if rows.tall else multiply(right.mT, left.mT)
        weight = w * slope[:, None, None]
    return value, weight
