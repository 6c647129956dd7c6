"""Stage `backward`: dX = grad E W (wide: grad W E), through the rows' normalisation."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch
from svmax_ops.backends.triton.products import multiply
from svmax_ops.backends.triton.rows import (
    NOT_SPECIALIZED,
    Rows,
    embedding_at,
    launch_embed,
    launch_mean,
    place_in_batch,
    rows_of_matrix,
)
from svmax_ops.formulas import without_null_direction


@triton.jit
def store_gradient(
    rows, row, grad, polar, dx, NORMALIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Some rows of dx ``[b, d]`` from those of P: grad (p - (p.e) e) / |x|, with e before centring.

    A zero row has no direction: its gradient is zero by contract.
    """
    norms, b, d = rows[1], rows[3], rows[4]
    down = row[:, None]
    factor = tl.load(grad).to(tl.float64)
    if NORMALIZE:
        norm = tl.load(norms + row, mask=row < b, other=0.0)
        factor = tl.where(norm == 0, 0.0, factor / tl.where(norm == 0, 1.0, norm))[:, None]
    along = tl.zeros((ROWS,), tl.float64)
    if NORMALIZE:
        for start in range(0, d, COLUMNS):
            column = (start + tl.arange(0, COLUMNS))[None, :]
            p = tl.load(polar + down * d + column, mask=(down < b) & (column < d), other=0.0)
            along += tl.sum(p * embedding_at(rows, down, column, True, False), 1)
    for start in range(0, d, COLUMNS):
        column = (start + tl.arange(0, COLUMNS))[None, :]
        inside = (down < b) & (column < d)
        p = tl.load(polar + down * d + column, mask=inside, other=0.0)
        if NORMALIZE:
            p -= along[:, None] * embedding_at(rows, down, column, True, False)
        tl.store(dx + down * d + column, (factor * p).to(tl.float32).to(dx.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def backward_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride, grad, weight, polar, dx,
    TALL: tl.constexpr, NORMALIZE: tl.constexpr, CENTER: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Some rows a program; ``polar`` ``[m, b, d]`` is scratch: all columns of P are there before any of dX."""
    matrix, block = place_in_batch(tl.cdiv(b, ROWS))
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    n = d if TALL else b
    weight += matrix * n * n
    polar += matrix * b * d
    row = block * ROWS + tl.arange(0, ROWS)
    down = row[:, None]
    for first in range(0, d, COLUMNS):
        column = (first + tl.arange(0, COLUMNS))[None, :]
        total = tl.zeros((ROWS, COLUMNS), tl.float64)
        for start in range(0, n, TERMS):
            k = start + tl.arange(0, TERMS)
            if TALL:
                left = embedding_at(rows, down, k[None, :], NORMALIZE, CENTER)
                inside = (k[:, None] < n) & (column < n)
                right = tl.load(weight + k[:, None] * n + column, mask=inside, other=0.0)
            else:
                left = tl.load(weight + down * n + k[None, :], mask=(down < n) & (k[None, :] < n), other=0.0)
                right = embedding_at(rows, k[:, None], column, NORMALIZE, CENTER)
            total = tl.dot(left, right, total, out_dtype=tl.float64)
        tl.store(polar + down * d + column, total, mask=(down < b) & (column < d))
    tl.debug_barrier()  # all threads see what all have stored
    store_gradient(rows, row, grad + matrix, polar, dx + matrix * b * d, NORMALIZE, ROWS, COLUMNS)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def project_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride, grad, polar, dx,
    NORMALIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The second half of :func:`backward_kernel`, where products have computed P."""
    matrix, block = place_in_batch(tl.cdiv(b, ROWS))
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    row = block * ROWS + tl.arange(0, ROWS)
    place = matrix * b * d
    store_gradient(rows, row, grad + matrix, polar + place, dx + place, NORMALIZE, ROWS, COLUMNS)


def launch_backward(grad: Tensor, rows: Rows, weight: Tensor) -> Tensor:
    """dx ``[m, b, d]`` in x's dtype, of rows whose norms are there; grad ``[m]``, weight ``[m, n, n]``."""
    m, b, d = rows.x.shape
    blocks = launch.BLOCKS
    weight = without_null_direction(weight, b, d, rows.center)
    if rows.center:
        launch_mean(rows)
    dx = rows.x.new_empty((m, b, d), dtype=rows.x.dtype if launch.HALF_IS_ROUNDED else torch.float32)
    grid = (m * triton.cdiv(b, blocks.rows),)
    options = {"NORMALIZE": rows.normalize, "ROWS": blocks.rows, "COLUMNS": blocks.columns, **launch.options()}
    if rows.fits_in_program:
        polar = weight.new_empty((m, b, d))
        backward_kernel[grid](
            *rows.arguments, grad, weight, polar, dx,
            TALL=rows.tall, CENTER=rows.center, TERMS=blocks.terms, **options,
        )  # fmt: skip
    else:
        e = launch_embed(rows)
        polar = multiply(e, weight) if rows.tall else multiply(weight, e)
        project_kernel[grid](*rows.arguments, grad, polar.contiguous(), dx, **options)
    return dx.to(rows.x.dtype)
