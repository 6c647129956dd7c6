"""E, read from x on the way: rows divided by their norms, the mean row taken off, all in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch
from svmax_ops.formulas import is_tall, result_dtype

# The batch size often differs in an epoch's last step; the other sizes and the strides are worth a kernel of their own.
NOT_SPECIALIZED = ["b"]


@triton.jit
def as_float64(x):
    """A block ``[rows, columns]``, exactly.

    bfloat16 is the upper half of float32, taken by its bits: the interpreter's own conversion of subnormals is wrong.
    And for GPUs with float64 tensor cores, Triton 3.6 to 3.8 cannot compile a product of float64 numbers where it sees
    that they were loaded as 16-bit ones. It does not see through a sum, here of one number, which takes no arithmetic.
    """
    HALF: tl.constexpr = x.dtype.primitive_bitwidth == 16
    if x.dtype == tl.bfloat16:
        x = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    x = x.to(tl.float64)
    if HALF:
        x = tl.sum(tl.expand_dims(x, 2), 2)
    return x


@triton.jit
def embedding_at(rows, row, column, NORMALIZE: tl.constexpr, CENTER: tl.constexpr):
    """E at ``row`` and ``column``, broadcast against each other; zero outside and in a zero row.

    ``rows``: pointers to x, row norms and mean row of one matrix, b, d, and the strides of rows and columns.
    """
    x, norms, mean, b, d, row_stride, column_stride = rows
    inside = (row < b) & (column < d)
    at = row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
    e = as_float64(tl.load(x + at, mask=inside, other=0.0))
    if NORMALIZE:
        norm = tl.load(norms + row, mask=row < b, other=0.0)
        e = tl.where(norm == 0, 0.0, e / tl.where(norm == 0, 1.0, norm))
    if CENTER:
        e = tl.where(inside, e - tl.load(mean + column, mask=column < d, other=0.0), 0.0)
    return e


@triton.jit
def store_norms(rows, first, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The L2 norms of some rows. Squares of float32 numbers neither overflow in float64 nor vanish."""
    norms, b, d = rows[1], rows[3], rows[4]
    row = first + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float64)
    for start in range(0, d, COLUMNS):
        e = embedding_at(rows, row[:, None], (start + tl.arange(0, COLUMNS))[None, :], False, False)
        total += tl.sum(e * e, 1)
    tl.store(norms + row, tl.sqrt(total), mask=row < b)


@triton.jit
def store_mean(rows, first, NORMALIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some columns of the mean row."""
    mean, b, d = rows[2], rows[3], rows[4]
    column = first + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float64)
    for start in range(0, b, ROWS):
        e = embedding_at(rows, (start + tl.arange(0, ROWS))[:, None], column[None, :], NORMALIZE, False)
        total += tl.sum(e, 0)
    tl.store(mean + column, total / b, mask=column < d)


@triton.jit
def rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix):
    return x + matrix * matrix_stride, norms + matrix * b, mean + matrix * d, b, d, row_stride, column_stride


@triton.jit
def place_in_batch(each):
    """Matrix, and number in it, of a program, where each matrix has so many: a grid's first side alone is long enough.

    In int64, as is everything that is computed from it.
    """
    program = tl.program_id(0).to(tl.int64)
    return program // each, program % each


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def norms_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    matrix, block = place_in_batch(tl.cdiv(b, ROWS))
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    store_norms(rows, block * ROWS, ROWS, COLUMNS)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def mean_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride,
    NORMALIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    matrix, block = place_in_batch(tl.cdiv(d, COLUMNS))
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    store_mean(rows, block * COLUMNS, NORMALIZE, ROWS, COLUMNS)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def embed_kernel(
    x, norms, mean, b, d, matrix_stride, row_stride, column_stride, e,
    NORMALIZE: tl.constexpr, CENTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """E itself, written out."""
    across = tl.cdiv(d, COLUMNS)
    matrix, block = place_in_batch(tl.cdiv(b, ROWS) * across)
    rows = rows_of_matrix(x, norms, mean, b, d, matrix_stride, row_stride, column_stride, matrix)
    row = (block // across * ROWS + tl.arange(0, ROWS))[:, None]
    column = (block % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    at = (matrix * b + row) * d + column
    tl.store(e + at, embedding_at(rows, row, column, NORMALIZE, CENTER), mask=(row < b) & (column < d))


class Rows(NamedTuple):
    """A batch of matrices as the kernels read it."""

    x: Tensor  # [m, b, d], any strides
    norms: Tensor  # [m, b] float64, or [m, 0]
    mean: Tensor  # [m, d] float64, or [m, 0]
    normalize: bool
    center: bool

    @property
    def sizes(self) -> tuple[int, int]:
        return self.x.shape[1], self.x.shape[2]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The first ones of every kernel that reads x."""
        return self.x, self.norms, self.mean, *self.sizes, *self.x.stride()

    @property
    def tall(self) -> bool:
        return is_tall(*self.sizes, self.center)

    @property
    def result_dtype(self) -> torch.dtype:
        return result_dtype(self.x)

    @property
    def n(self) -> int:
        return min(self.sizes)

    @property
    def fits_in_program(self) -> bool:
        """Whether one program takes each matrix from x to the result, in one launch.

        It goes through all rounds alone, and reads the rows several times: of larger ones many programs make less.
        """
        return self.n <= launch.MOST_IN_PROGRAM and max(self.sizes) <= launch.LONGEST_IN_PROGRAM


def rows_of(x: Tensor, normalize: bool, center: bool, norms: Tensor | None = None) -> Rows:
    """``x`` ``[..., b, d]`` with room for norms (those given, if any) and mean, which are not yet computed."""
    x = x.reshape(-1, *x.shape[-2:])
    m, b, d = x.shape
    norms = _room(x, b if normalize else 0) if norms is None else norms.reshape(m, -1).contiguous()
    return Rows(x, norms, _room(x, d if center else 0), normalize, center)


def _room(x: Tensor, count: int) -> Tensor:
    return x.new_empty((x.shape[0], count), dtype=torch.float64)


def launch_norms(rows: Rows) -> None:
    """Fill the norms of ``rows``."""
    blocks = launch.BLOCKS
    grid = (len(rows.x) * triton.cdiv(rows.x.shape[1], blocks.rows),)
    norms_kernel[grid](*rows.arguments, ROWS=blocks.rows, COLUMNS=blocks.columns, **launch.options())


def launch_mean(rows: Rows) -> None:
    """Fill the mean of ``rows``, whose norms are there."""
    blocks = launch.BLOCKS
    grid = (len(rows.x) * triton.cdiv(rows.x.shape[2], blocks.columns),)
    mean_kernel[grid](
        *rows.arguments, NORMALIZE=rows.normalize, ROWS=blocks.rows, COLUMNS=blocks.columns, **launch.options()
    )


def launch_embed(rows: Rows) -> Tensor:
    """E ``[m, b, d]`` float64, of rows whose norms and mean are there."""
    m, b, d = rows.x.shape
    blocks = launch.BLOCKS
    e = rows.x.new_empty((m, b, d), dtype=torch.float64)
    embed_kernel[(m * triton.cdiv(b, blocks.rows) * triton.cdiv(d, blocks.columns),)](
        *rows.arguments, e,
        NORMALIZE=rows.normalize, CENTER=rows.center, ROWS=blocks.rows, COLUMNS=blocks.columns, **launch.options(),
    )  # fmt: skip
    return e
