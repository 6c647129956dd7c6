"""csrc/quintics.h, and the same table for Triton: the optimal quintics, and what becomes of singular values in them."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from svmax_ops.backends import triton_library

SMALLEST, CUSHION = mpmath.mpf("1e-8"), mpmath.mpf("0.03")
LEFT = 1.4e-8
"""How far from one the rounds leave a singular value."""

Quintic = tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]


def optimal_quintic(low: mpmath.mpf, high: mpmath.mpf) -> Quintic:
    """The odd quintic of least max |1 - p| on [low, high]: the error takes its largest size at four points, with
    alternating sign (Chebyshev), at the ends and at the two extrema between them (Remez' exchange)."""
    points = [low, (3 * low + high) / 4, (low + 3 * high) / 4, high]
    while True:
        equations = mpmath.matrix([[x, x**3, x**5, (-1) ** i] for i, x in enumerate(points)])
        a, b, c, error = mpmath.lu_solve(equations, mpmath.matrix([1] * 4))
        root = mpmath.sqrt(9 * b * b - 20 * a * c)
        extrema = [mpmath.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1)]
        moved = max(abs(x - y) for x, y in zip(extrema, points[1:3], strict=True))
        points[1:3] = extrema
        if moved < mpmath.mpf(10) ** -30:
            assert all(abs(1 - (a * x + b * x**3 + c * x**5)) <= error * (1 + mpmath.mpf(10) ** -20) for x in points)
            return a, b, c


def test_the_table_is_the_optimal_quintics(steps):
    with mpmath.workdps(50):
        low, high = SMALLEST, mpmath.mpf(1)
        for row in steps.quintics(steps.ROUNDS):
            begin = max(low, CUSHION * high)
            a, b, c = optimal_quintic(begin, high)
            np.testing.assert_allclose(row, [float(a), float(b), float(c)], rtol=1e-15)
            low, high = (a * x + b * x**3 + c * x**5 for x in (low, high))


@pytest.mark.parametrize("rounds", [6, 7, 12, 15, 20])
def test_of_more_rounds_the_second_is_repeated(steps, rounds):
    first, second, *last = steps.QUINTICS
    assert steps.quintics(rounds) == [first, *[second] * (rounds - 1 - len(last)), *last]


def run(steps, s: np.ndarray, rounds: int) -> list[np.ndarray]:
    """The singular values after each round."""
    seen = [s]
    for a, b, c in steps.quintics(rounds):
        s = s * (a + b * s**2 + c * s**4)
        seen.append(s)
    return seen


@pytest.mark.parametrize(("rounds", "smallest"), [("ROUNDS", 1e-8), ("ROUNDS_OF_GRAM", 7.1e-7)])
def test_the_rounds_make_one_of_every_singular_value(steps, rounds, smallest):
    s = np.geomspace(smallest, 1 / math.sqrt(steps.MARGIN), 100001)
    assert np.abs(run(steps, s, getattr(steps, rounds))[-1] - 1).max() <= LEFT
    below = np.geomspace(1e-20, smallest, 1001)
    assert run(steps, below, getattr(steps, rounds))[-1].max() <= 1 + LEFT


def test_no_round_makes_large_singular_values_small(steps):
    """Rounding errors of the largest are added to the smallest: what counts must stay away from those."""
    s = np.linspace(0.03, 1, 10001)
    for after in run(steps, s, steps.ROUNDS)[1:]:
        assert after.min() >= 0.1 * after.max()


def test_the_restart_comes_before_rounding_runs_away(steps):
    """An eigenvalue -eps of a Gram matrix grows by the square of each round's first coefficient, and runs away where it
    is no longer small against one."""
    (first, *_), (repeated, *_) = steps.QUINTICS[:2]
    growth = first * repeated ** (steps.ROUNDS_BEFORE_RESTART - 1)
    assert np.finfo(float).eps * growth**2 < 0.01


@pytest.mark.skipif(triton_library.missing() is not None, reason=str(triton_library.missing()))
def test_the_triton_kernels_have_the_same_rounds(steps):
    from svmax_ops.backends.triton import polar_express as ours

    assert list(ours.QUINTICS) == steps.QUINTICS
    for rounds, expected in ((ours.ROUNDS, steps.ROUNDS), (ours.ROUNDS_OF_GRAM, steps.ROUNDS_OF_GRAM)):
        assert rounds == expected
        assert [ours.QUINTICS[ours.row_of(round, rounds)] for round in range(rounds)] == steps.quintics(rounds)
    assert ours.ROUNDS_BEFORE_RESTART == steps.ROUNDS_BEFORE_RESTART
    assert steps.SHIFT_OF_GRAM * np.finfo(float).eps == ours.SHIFT_OF_GRAM
    assert ours.MARGIN == steps.MARGIN
