"""csrc/quadrature.h: z^(-1/2) as a sum over poles, against mpmath's elliptic functions."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import mpmath
import numpy as np
import pytest

from tests.steps.inputs import EPS

OCTAVES = 54


class Rule(NamedTuple):
    """With 40 digits, rounded to float64 at the end."""

    pole: np.ndarray
    weight: np.ndarray
    quarter_period: float
    error: float
    """The relative error of the sum, anywhere in [m, 1]."""


@functools.cache
def exact(m: float, count: int) -> Rule:
    """Hale, Higham, Trefethen (2008), method 3, by mpmath's elliptic functions of parameter 1 - m.

    The sum is a midpoint rule for a function of period 2K that is analytic up to K' from the real axis. So its error
    falls by exp(-2 pi K' / K) with each pole; the factor of 4 is there at every m (measured: 4 to six digits).
    """
    with mpmath.workdps(40):
        parameter = 1 - mpmath.mpf(m)
        period, other_period = mpmath.ellipk(parameter), mpmath.ellipk(mpmath.mpf(m))
        poles, weights = [], []
        for j in range(count):
            u = (j + mpmath.mpf(1) / 2) * period / count
            sn, cn, dn = (mpmath.ellipfun(name, u, m=parameter) for name in ("sn", "cn", "dn"))
            poles.append(float(m * (sn / cn) ** 2))
            weights.append(float(2 * period * mpmath.sqrt(m) / (mpmath.pi * count) * dn / cn**2))
        error = 4 * mpmath.exp(-2 * mpmath.pi * count * other_period / period)
        return Rule(np.array(poles), np.array(weights), float(period), float(error))


def error_of(pole: np.ndarray, weight: np.ndarray, m: float) -> float:
    """The largest relative error on [m, 1]: 40 points an octave, of an error that has about one extremum a pole."""
    z = np.geomspace(m, 1, 40 * math.ceil(-math.log2(m)) + 41)
    return float(np.abs((weight / (z[:, None] + pole)).sum(1) * np.sqrt(z) - 1).max())


def rounding(m: float) -> float:
    """The error that float64 adds to that.

    The angles end beside pi / 2, where their rounding counts up to 1 / sqrt(m) times as much, in asin and in cn; the
    sum keeps a tenth of it (measured at m = 2^-53).
    """
    return (20 + 0.2 / math.sqrt(m)) * EPS


def rule_of(steps, count: int, m: float) -> tuple[np.ndarray, np.ndarray]:
    pole, weight = np.array([steps.quadrature_pole(j, count, m) for j in range(count)]).T
    return pole, weight


def test_there_is_a_rule_for_every_ratio_that_the_shift_leaves(steps):
    """lambda_max / shift is 2^50; Gershgorin's bound and the sections cost a factor of less than 16."""
    assert steps.OCTAVES == OCTAVES
    counts = [len(steps.rule(octave)[0]) for octave in range(OCTAVES + 1)]
    assert counts == sorted(counts)
    assert counts[-1] == steps.MOST_POLES


@pytest.mark.parametrize(("ratio", "count"), [(7e2, 11), (2e6, 19), (7e10, 30), (2e15, 41)])
def test_the_number_of_poles_is_the_published_one(steps, ratio, count):
    """ceil((ln(M/m) + 3) ln(1e9) / 2 pi^2), and the table's next octave has one more at the most."""
    assert steps.pole_count(math.log(ratio)) == count
    octave = math.ceil(math.log2(ratio))
    assert len(steps.rule(octave)[0]) in (count, count + 1)


def test_every_octave_is_as_good_as_its_number_of_poles_allows(steps):
    for octave in range(1, OCTAVES + 1):
        m = 2.0**-octave
        pole, weight = steps.rule(octave)
        assert (pole > 0).all(), octave
        assert (weight > 0).all(), octave
        expected = exact(m, len(pole)).error
        # The count makes exp(-2 pi^2 count / (ln(1/m) + 3)) 1e-9; K' is pi / 2 or more, K at most (ln(1/m) + 3) / 2.
        assert expected <= 4e-9, octave
        assert error_of(pole, weight, m) <= expected * (1 + 1e-5) + rounding(m), octave
    assert all(np.array_equal(zeroth, first) for zeroth, first in zip(steps.rule(0), steps.rule(1), strict=True))


@pytest.mark.parametrize("m", [0.9, 0.3, 3e-3, 7e-8, 5e-13, 6e-16])
def test_between_the_octaves_a_rule_is_as_good(steps, m):
    """A GPU computes its poles for the ratio that there is."""
    count = steps.pole_count(-math.log(m))
    expected = exact(m, count)
    assert expected.error <= 4e-9
    assert error_of(*rule_of(steps, count, m), m) <= expected.error * (1 + 1e-5) + rounding(m)


def test_the_quarter_period_is_that_of_the_complementary_parameter(steps):
    for octave in range(1, OCTAVES + 1):
        m = 2.0**-octave
        # The mean is the end of nine steps, each of which rounds twice.
        assert steps.quarter_period(m) == pytest.approx(exact(m, 1).quarter_period, rel=8 * EPS, abs=0), octave


def test_the_poles_are_those_of_the_elliptic_functions(steps):
    for octave in range(1, OCTAVES + 1):
        m = 2.0**-octave
        pole, weight = steps.rule(octave)
        expected = exact(m, len(pole))
        # A few roundings in each of nine steps, and 1 / sqrt(m) as in `rounding`, for one pole up to 4.2 times that.
        tolerance = (40 + 8 / math.sqrt(m)) * EPS
        np.testing.assert_allclose(pole, expected.pole, rtol=tolerance, err_msg=str(octave))
        np.testing.assert_allclose(weight, expected.weight, rtol=tolerance, err_msg=str(octave))
