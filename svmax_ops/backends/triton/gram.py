"""Stage `gram`: the smaller Gram matrix and the row norms, in float64."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton.products import multiply
from svmax_ops.backends.triton.rounds import tile_ranges
from svmax_ops.backends.triton.rows import Rows, embedding_at, launch_embed, launch_mean, launch_norms


@triton.jit
def side_at(rows, along, across, TALL: tl.constexpr, NORMALIZE: tl.constexpr, CENTER: tl.constexpr):
    """A at ``along`` and ``across``, where A ``[larger side, n]`` is E, or its transpose where it is wide."""
    if TALL:
        e = embedding_at(rows, along[:, None], across[None, :], NORMALIZE, CENTER)
    else:
        e = embedding_at(rows, across[None, :], along[:, None], NORMALIZE, CENTER)
    return e


@triton.jit
def side_product(
    rows, start, right, column, TALL: tl.constexpr, NORMALIZE: tl.constexpr, CENTER: tl.constexpr,
    N: tl.constexpr, SIDE: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Rows start to start + TERMS of A right at ``column`` ``[SIDE]``, with right ``[N, N]`` in scratch memory."""
    along = start + tl.arange(0, TERMS)
    total = tl.zeros((TERMS, SIDE), tl.float64)
    for first in range(0, N, SIDE):
        k = first + tl.arange(0, SIDE)
        a = side_at(rows, along, k, TALL, NORMALIZE, CENTER)
        total = tl.dot(a, tl.load(right + k[:, None] * N + column[None, :]), total, out_dtype=tl.float64)
    return total


@triton.jit
def store_gram(
    out, rows, right, side, OF_PRODUCT: tl.constexpr, TALL: tl.constexpr, NORMALIZE: tl.constexpr,
    CENTER: tl.constexpr, N: tl.constexpr, SIDE: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """The Gram matrix of A, or of A right, into scratch memory; returns its sum of squares. ``side``: of A, the longer
    one."""
    squares = tl.zeros((), tl.float64)
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_ranges(tile, N, SIDE)
        total = tl.zeros((SIDE, SIDE), tl.float64)
        for start in range(0, side, TERMS):
            if OF_PRODUCT:
                a = side_product(rows, start, right, i, TALL, NORMALIZE, CENTER, N, SIDE, TERMS)
                b = side_product(rows, start, right, j, TALL, NORMALIZE, CENTER, N, SIDE, TERMS)
            else:
                along = start + tl.arange(0, TERMS)
                a = side_at(rows, along, i, TALL, NORMALIZE, CENTER)
                b = side_at(rows, along, j, TALL, NORMALIZE, CENTER)
            total = tl.dot(tl.trans(a), b, total, out_dtype=tl.float64)
        squares += tl.sum(tl.sum(total * total, 1), 0)
        tl.store(out + i[:, None] * N + j[None, :], total)
    tl.debug_barrier()
    return squares


def launch_gram(rows: Rows) -> Tensor:
    """``[m, n, n]``; fills the norms and the mean of ``rows``."""
    e = embed(rows)
    return multiply(e.mT, e) if rows.tall else multiply(e, e.mT)


def embed(rows: Rows) -> Tensor:
    """E ``[m, b, d]`` float64; fills the norms and the mean of ``rows``."""
    if rows.normalize:
        launch_norms(rows)
    if rows.center:
        launch_mean(rows)
    return launch_embed(rows)
