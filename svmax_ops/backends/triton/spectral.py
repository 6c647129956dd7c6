"""Stage `spectral`: N = tr(G^1/2) and W = G^(-1/2) by matrix products alone."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from svmax_ops.backends.triton import launch, polar_express
from svmax_ops.backends.triton.polar_express import scale_of
from svmax_ops.backends.triton.products import multiply
from svmax_ops.backends.triton.rounds import (
    rounds_by_products,
    run_rounds,
    scale_by_torch,
    scale_matrix,
    scratch_of,
    sizes_in_program,
    store_product,
    tile_at,
)

_ROUNDS_OF_GRAM = tl.constexpr(polar_express.ROUNDS_OF_GRAM)
_SHIFT = tl.constexpr(polar_express.SHIFT_OF_GRAM)


@triton.jit(do_not_specialize=["n"])
def spectral_kernel(
    gram, nuclear_norm, inverse_sqrt, scratch, n, NEED_INVERSE_SQRT: tl.constexpr, N: tl.constexpr, SIDE: tl.constexpr
):
    """One matrix ``[n, n]`` a program, n <= N; ``scratch`` ``[m, 6, N, N]``."""
    matrix = tl.program_id(0).to(tl.int64)
    g = scratch + matrix * 6 * N * N
    m = g + N * N
    room = m + N * N
    squares = tl.zeros((), tl.float64)
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        value = tl.load(gram + (matrix * n + i) * n + j, mask=(i < n) & (j < n), other=0.0)
        squares += tl.sum(tl.sum(value * value, 1), 0)
        tl.store(g + i * N + j, value)
        tl.store(m + i * N + j, value)
    tl.debug_barrier()
    scale = scale_of(squares)
    # Shifted as the native kernels shift T, so that |P| <= 1 + 2e-8 against the rounding in G.
    scale_matrix(m, scale * scale, tl.full((), _SHIFT, tl.float64), N, SIDE)
    z = run_rounds(m, room + 2 * N * N, room, 0, _ROUNDS_OF_GRAM, _ROUNDS_OF_GRAM, N, SIDE)
    w = m
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        value = (tl.load(z + i * N + j) + tl.load(z + j * N + i)) * (scale * 0.5)
        tl.store(w + i * N + j, value)
        if NEED_INVERSE_SQRT:
            tl.store(inverse_sqrt + (matrix * n + i) * n + j, value, mask=(i < n) & (j < n))
    tl.debug_barrier()
    # N = tr(W G (3I - W G W)) / 2: of second order in what the rounds leave, and without the shift.
    wg = room
    wgw = room + N * N
    store_product(wg, w, g, N, SIDE)
    store_product(wgw, wg, w, N, SIDE)
    trace = tl.zeros((), tl.float64)
    for tile in range((N // SIDE) * (N // SIDE)):
        i, j = tile_at(tile, N, SIDE)
        value = tl.load(wg + i * N + j)
        value = 1.5 * value * (i == j).to(tl.float64) - 0.5 * value * tl.load(wgw + j * N + i)
        trace += tl.sum(tl.sum(value, 1), 0)
    tl.store(nuclear_norm + matrix, trace)


def launch_spectral(gram: Tensor, need_inverse_sqrt: bool) -> tuple[Tensor, Tensor]:
    """``[m, n, n]`` -> N ``[m]``, W ``[m, n, n]`` (``[m, 0, 0]`` when not needed).

    The Gram matrix has lost the singular values below 1e-8 of the largest, and these rounds leave those below 7e-7 too
    small; :func:`svmax_ops.backends.triton.objective.launch_objective`, which has E, has no such limit.
    """
    m, n = gram.shape[:2]
    kept = n if need_inverse_sqrt else 0
    norm, w = gram.new_empty(m), gram.new_empty((m, kept, kept))
    if n > launch.MOST_IN_PROGRAM:
        norm, inverse_sqrt = _by_products(gram)
        return norm, inverse_sqrt if need_inverse_sqrt else w
    spectral_kernel[(m,)](
        gram.contiguous(), norm, w, scratch_of(m, n, 6, gram), n,
        NEED_INVERSE_SQRT=need_inverse_sqrt, **sizes_in_program(n), **launch.options(),
    )  # fmt: skip
    return norm, w


def _by_products(gram: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`spectral_kernel` does, by 47 launches of a product."""
    scale = scale_by_torch(gram)
    identity = torch.eye(gram.shape[-1], dtype=torch.float64, device=gram.device)
    rounds = polar_express.ROUNDS_OF_GRAM
    z = rounds_by_products(gram * scale.square() + polar_express.SHIFT_OF_GRAM * identity, 0, rounds, rounds)
    w = (z + z.mT) * (scale * 0.5)
    wg = multiply(w, gram)
    wgw = multiply(wg, w)
    return 1.5 * wg.diagonal(dim1=-2, dim2=-1).sum(-1) - 0.5 * (wg * wgw.mT).sum((-2, -1)), w
