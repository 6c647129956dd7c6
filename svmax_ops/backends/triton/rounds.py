"""The rounds of polar_express.py: for up to 64 x 64 inside a program, beyond that a launch for each product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch, polar_express
from svmax_ops.backends.triton.polar_express import quintic, row_in_loop, row_of
from svmax_ops.backends.triton.products import multiply

# ---- inside a program: its matrices lie in scratch memory, which stays in the cache, and are gone through in tiles, so
# that registers hold a part of one at a time. Whole ones of 64 x 64 are spilled by some compilers, of 128 x 128 by all.


def padded(n: int) -> int:
    """What the kernels hold n rows and columns in: tl.dot takes no less than 16."""
    return max(16, int(triton.next_power_of_2(n)))


def sizes_in_program(n: int) -> dict[str, int]:
    """N, and SIDE, that of a tile."""
    return {"N": padded(n), "SIDE": min(padded(n), launch.BLOCKS.side)}


def scratch_of(m: int, n: int, matrices: int, like: Tensor) -> Tensor:
    """Room for so many padded matrices of each of m programs."""
    return like.new_empty(m * matrices * padded(n) ** 2, dtype=torch.float64)


@triton.jit
def tile_ranges(tile, N: tl.constexpr, SIDE: tl.constexpr):
    """Rows ``[SIDE]`` and columns ``[SIDE]`` of a tile of an N x N matrix."""
    side = tl.arange(0, SIDE)
    return tile // (N // SIDE) * SIDE + side, tile % (N // SIDE) * SIDE + side


@triton.jit
def tile_at(tile, N: tl.constexpr, SIDE: tl.constexpr):
    """The same to be broadcast: ``[SIDE, 1]`` and ``[1, SIDE]``."""
    i, j = tile_ranges(tile, N, SIDE)
    return i[:, None], j[None, :]


@triton.jit
def product_tile(left, right, i, j, N: tl.constexpr):
    """left right at i and j, of matrices in scratch memory."""
    k = tl.arange(0, N)
    return tl.dot(tl.load(left + i * N + k[None, :]), tl.load(right + k[:, None] * N + j), out_dtype=tl.float64)


@triton.jit
def store_product(out, left, right, N: tl.constexpr, SIDE: tl.constexpr):
    """out = left right, another matrix than both. All threads see all of it: a barrier ends every such function."""
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        tl.store(out + i * N + j, product_tile(left, right, i, j, N))
    tl.debug_barrier()


@triton.jit
def store_quintic(out, m, row, N: tl.constexpr, SIDE: tl.constexpr):
    """out = aI + bM + cM^2, by the coefficients of a row of the table."""
    a, b, c = quintic(row)
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        value = a * (i == j).to(tl.float64) + b * tl.load(m + i * N + j) + c * product_tile(m, m, i, j, N)
        tl.store(out + i * N + j, value)
    tl.debug_barrier()


@triton.jit
def scale_matrix(matrix, factor, shift, N: tl.constexpr, SIDE: tl.constexpr):
    """matrix = factor matrix + shift I, in place."""
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        place = matrix + i * N + j
        tl.store(place, factor * tl.load(place) + shift * (i == j).to(tl.float64))
    tl.debug_barrier()


@triton.jit
def run_rounds(m, z, room, first, last, ROUNDS: tl.constexpr, N: tl.constexpr, SIDE: tl.constexpr):
    """Where Z of the rounds [first, last) of all ROUNDS from M lies afterwards: in one of the two matrices at ``z``.

    All in scratch memory; M, and two matrices at ``room``, are overwritten.
    """
    q = room
    half = room + N * N
    for round in range(first, last):
        row = row_in_loop(round, ROUNDS)
        now = z + (round - first) % 2 * N * N
        store_quintic(q, m, row, N, SIDE)
        if round == first:
            store_quintic(now, m, row, N, SIDE)
        else:
            store_product(now, z + (round - first + 1) % 2 * N * N, q, N, SIDE)
        if round + 1 < last:
            store_product(half, m, q, N, SIDE)
            store_product(m, half, q, N, SIDE)
    return z + (last - 1 - first) % 2 * N * N


# ---- by launches


def rounds_by_products(m: Tensor, first: int, last: int, rounds: int) -> Tensor:
    """Z of the rounds [first, last) of all ``rounds``, from M ``[m, n, n]``."""
    z = None
    for round in range(first, last):
        q = multiply(m, m, row_of(round, rounds))
        z = q if z is None else multiply(z, q)
        if round + 1 < last:
            m = multiply(m, multiply(q, q))
    assert z is not None
    return z


def polar_factor_by_products(e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P ``[m, larger side, n]`` of e, and left, right ``[m, n, n]`` with P = (e left) right and W = left right.

    They commute but for rounding errors times |W|, and those are large at collapse: (e left) right keeps |P| <= 1 +
    2e-7; e (right left) does not.
    """
    before, rounds = polar_express.ROUNDS_BEFORE_RESTART, polar_express.ROUNDS
    gram = multiply(e.mT, e)
    scale = scale_by_torch(gram)
    left = rounds_by_products(gram * scale.square(), 0, before, rounds) * scale
    x = multiply(e, left)
    right = rounds_by_products(multiply(x.mT, x), before, rounds, rounds)
    return multiply(x, right), left, right


def scale_by_torch(gram: Tensor) -> Tensor:
    """What ``scale_of`` is inside a program: ``[m, n, n]`` -> ``[m, 1, 1]``."""
    size = gram.square().sum((-2, -1), keepdim=True).sqrt() * polar_express.MARGIN
    return torch.where(size == 0, size, size.rsqrt())
