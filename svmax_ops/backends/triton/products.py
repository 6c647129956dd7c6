"""Products of float64 matrices, one launch each: for what is too large for one program."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch
from svmax_ops.backends.triton.polar_express import quintic
from svmax_ops.backends.triton.rows import place_in_batch

_TERMS_OF_PART = 1024
_MOST_PROGRAMS = 256


@triton.jit
def product_kernel(
    left, right, out, rows, inner, columns, parts,
    left_matrix, left_row, left_column, right_matrix, right_row, right_column,
    row_of_table, QUINTIC: tl.constexpr, SIDE: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """A tile of out = left right, or of its ``parts`` of the sum; with QUINTIC of aI + b left + c left right, by the
    coefficients of that row of the table."""
    across = tl.cdiv(columns, SIDE)
    tiles = tl.cdiv(rows, SIDE) * across
    place, tile = place_in_batch(tiles)
    matrix, part = place // parts, place % parts
    i = tile // across * SIDE + tl.arange(0, SIDE)[:, None]
    j = tile % across * SIDE + tl.arange(0, SIDE)[None, :]
    left += matrix * left_matrix
    right += matrix * right_matrix
    length = tl.cdiv(inner, parts)
    last = tl.minimum(inner, (part + 1) * length)
    total = tl.zeros((SIDE, SIDE), tl.float64)
    for start in range(part * length, last, TERMS):
        k = start + tl.arange(0, TERMS)
        a = tl.load(left + i * left_row + k[None, :] * left_column, mask=(i < rows) & (k[None, :] < last), other=0.0)
        b = tl.load(
            right + k[:, None] * right_row + j * right_column, mask=(k[:, None] < last) & (j < columns), other=0.0
        )
        total = tl.dot(a, b, total, out_dtype=tl.float64)
    inside = (i < rows) & (j < columns)
    if QUINTIC:
        a0, a1, a2 = quintic(row_of_table)
        linear = tl.load(left + i * left_row + j * left_column, mask=inside, other=0.0)
        total = a0 * (i == j).to(tl.float64) + a1 * linear + a2 * total
    tl.store(out + (place * rows + i) * columns + j, total, mask=inside)


def multiply(left: Tensor, right: Tensor, quintic_row: int | None = None) -> Tensor:
    """left ``[m, i, k]`` by right ``[m, k, j]``; with a row of the table aI + b left + c left right instead.

    Sums of many terms into few tiles are computed in parts, by the shapes of the matrices and not by their number.
    """
    m, i, k = left.shape
    j = right.shape[-1]
    side = launch.BLOCKS.side
    tiles = triton.cdiv(i, side) * triton.cdiv(j, side)
    parts = 1 if quintic_row is not None else max(1, min(k // _TERMS_OF_PART, _MOST_PROGRAMS // tiles))
    out = left.new_empty((m, parts, i, j))
    product_kernel[(m * parts * tiles,)](
        left, right, out, i, k, j, parts, *left.stride(), *right.stride(), quintic_row or 0,
        QUINTIC=quintic_row is not None, SIDE=side, TERMS=min(side, 2 * launch.BLOCKS.terms), **launch.options(),
    )  # fmt: skip
    return out[:, 0] if parts == 1 else out.sum(1)
