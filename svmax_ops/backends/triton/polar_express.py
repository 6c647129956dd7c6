"""The optimal composed quintics of the spectral stage: the same table and rounds as csrc/quintics.h.

Polar Express (Amsel et al. 2025) in Gram space: M <- M Q^2, Z <- Z Q with Q = aI + bM + cM^2. Each round takes a
singular value s of E Z, a root of an eigenvalue of M, to s (a + b s^2 + c s^4), so that after all rounds all are one
and Z is W. The header says where the numbers come from; tests hold both against the optimum.
"""

from __future__ import annotations

import triton
import triton.language as tl

QUINTICS = (
    (7.362527758027793, -20.743395646172164, 15.160551758684578),
    (4.136986281610212, -3.6800291405199808, 0.8491818152913873),  # repeated
    (3.633358983004332, -3.0572397270150313, 0.6933212499211123),
    (2.4060381526885317, -1.7619603126449623, 0.42891563287432627),
    (1.904146136884145, -1.2820169462686124, 0.3782158312107216),
    (1.875008291442342, -1.2500092126828521, 0.3750009212694802),
)
ROUNDS = 15
"""Singular values from 1e-8 |E| on become one."""
ROUNDS_BEFORE_RESTART = 7
"""After these the product E Z gives M anew: a Gram matrix has lost what is below 1e-8 |E| to rounding."""
ROUNDS_OF_GRAM = 12
"""Where there is a Gram matrix and no E."""
MARGIN = 1.01
SHIFT_OF_GRAM = 4.0 * 2.0**-52

_TABLE = tl.constexpr(QUINTICS)
_LAST = tl.constexpr(len(QUINTICS) - 1)
_MARGIN = tl.constexpr(MARGIN)


def row_of(round: int, rounds: int) -> int:
    """Of the table, for a round of so many: the first row, the last four, the second as often as is left between."""
    return 0 if round == 0 else max(1, len(QUINTICS) - (rounds - round))


@triton.jit
def row_in_loop(round, ROUNDS: tl.constexpr):
    """The same, inside a kernel."""
    return tl.where(round == 0, 0, tl.maximum(1, round + (_LAST + 1 - ROUNDS)))


@triton.jit
def quintic(row):
    """a, b, c of a row of the table, float64."""
    return _pick(row, 0), _pick(row, 1), _pick(row, 2)


@triton.jit
def _pick(row, POWER: tl.constexpr):
    # As float64 from the start: a bare Python number would be rounded to float32.
    value = tl.full((), _TABLE[_LAST][POWER], tl.float64)
    for i in tl.static_range(_LAST):
        value = tl.where(row == i, tl.full((), _TABLE[i][POWER], tl.float64), value)
    return value


@triton.jit
def scale_of(sum_of_squares):
    """1 / sqrt(1.01 |G|), with the Frobenius norm, no less than the largest eigenvalue; zero for a zero matrix."""
    size = tl.sqrt(sum_of_squares) * tl.full((), _MARGIN, tl.float64)
    return tl.where(size == 0, size, 1 / tl.sqrt(size))
