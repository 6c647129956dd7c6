"""csrc/cpu/inverse_sqrt.h as far as T^(-1/2): the interval, the factors of each pole and their sum, against SciPy, and
against mpmath where T is singular but for rounding."""

from __future__ import annotations

from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import scipy.linalg

from tests.steps.inputs import EPS, GRAMS, SIZES, Tridiagonal, exact, to_numpy, tridiagonal

RULE = 5.2e-9
"""Relative error of the sum over the poles: 4e-9, and the rounding of the poles (test_quadrature.py)."""
SMALL = (1, 2, 3, 5, 12)
"""Sizes that are compared with 40 digits."""


class Sum(NamedTuple):
    poles: object
    root_trace: float
    ratio: np.ndarray
    inverse: np.ndarray


def factored(steps, t: Tridiagonal) -> Sum:
    poles = steps.choose_poles(*t)
    return Sum(poles, *steps.factor_poles(*t, poles))


def inverse_of_pole(found: Sum, j: int) -> np.ndarray:
    """weight[j] (T + shift + pole[j])^-1: row i is row i - 1 times ratio[i], with inverse[i] on the diagonal."""
    n = len(found.ratio)
    out = np.zeros((n, n))
    for i in range(n):
        out[i, :i] = out[:i, i] = (out[i - 1, :i] if i > 0 else 0) * found.ratio[i, j]
        out[i, i] = found.inverse[i, j]
    return out


@pytest.mark.parametrize("name", GRAMS)
def test_the_interval_of_the_rule_encloses_the_spectrum_closely(steps, name):
    for n in SIZES:
        t = tridiagonal(name, n)
        eigenvalues, _ = t.decomposed()
        poles = steps.choose_poles(*t)
        slack = 2 * poles.shift  # 8 eps |T|: the pivots of the sections round, and so do SciPy's eigenvalues
        assert poles.shift == pytest.approx(4 * EPS * (poles.highest - poles.shift), rel=1e-12, abs=0)
        # Gershgorin's bound: an off-diagonal entry of a positive semidefinite matrix is no larger than an eigenvalue.
        assert eigenvalues[-1] + poles.shift <= poles.highest <= 3 * eigenvalues[-1] + slack, n
        # The sections end with an interval of 1.5 or less; where they begin, at the shift, the eigenvalue may be zero.
        assert poles.lowest <= eigenvalues[0] + poles.shift + slack, n
        assert eigenvalues[0] + poles.shift <= 1.5 * poles.lowest + slack, n


@pytest.mark.parametrize("name", GRAMS)
def test_the_rule_is_that_of_the_next_octave(steps, name):
    for n in SIZES:
        t = tridiagonal(name, n)
        poles = steps.choose_poles(*t)
        octave = next(k for k in range(steps.OCTAVES + 1) if poles.lowest * 2.0**k >= poles.highest)
        pole, weight = steps.rule(octave)
        count = len(pole)
        assert (poles.count, poles.stride) == (count, -(-count // steps.TOGETHER) * steps.TOGETHER)
        np.testing.assert_allclose(poles.pole[:count], poles.highest * pole, rtol=2 * EPS)
        np.testing.assert_allclose(poles.weight[:count], np.sqrt(poles.highest) * weight, rtol=2 * EPS)
        assert (poles.pole[count:] > 0).all()  # no division by zero
        assert not poles.weight[count:].any()
        z = np.geomspace(poles.lowest, poles.highest, 2000)[:, None]
        error = (poles.weight / (z + poles.pole)).sum(1) * np.sqrt(z[:, 0]) - 1
        assert np.abs(error).max() <= RULE


@pytest.mark.parametrize("least", [1.0, 1e-3, 1e-9])
def test_shifts_below_the_smallest_eigenvalue_leave_t_definite(steps, least):
    n = 40
    t = Tridiagonal(np.full(n, 2.0), np.append(np.full(n - 1, -1.0), 0))
    smallest = 2 - 2 * np.cos(np.pi / (n + 1))
    t = t._replace(diagonal=t.diagonal - smallest + least)  # its smallest eigenvalue is `least`
    for above in range(steps.TOGETHER + 1):
        exponents = np.arange(steps.TOGETHER) - (steps.TOGETHER - above) + 0.5
        assert steps.count_definite(*t, least * 1.1**exponents) == steps.TOGETHER - above


@pytest.mark.parametrize("name", GRAMS)
def test_the_trace_of_the_inverse(steps, name):
    """Only positive terms are added, but the pivots lose what T's condition takes."""
    for n in SMALL:
        t, shift = tridiagonal(name, n), steps.choose_poles(*tridiagonal(name, n)).shift
        with mpmath.workdps(40):
            shifted = [x + mpmath.mpf(shift) for x in exact(name, n).eigenvalues]
            expected = float(sum(1 / x for x in shifted))
            condition = float(shifted[-1] / shifted[0])
        assert steps.inverse_trace(*t, shift) == pytest.approx(expected, rel=4 * EPS * (n + condition), abs=0), n


@pytest.mark.parametrize("name", ["random", "diagonal"])
def test_the_trace_of_the_inverse_of_many_rows(steps, name):
    for n in SIZES:
        t = tridiagonal(name, n)
        eigenvalues, _ = t.decomposed()
        tolerance = 8 * EPS * eigenvalues[-1] / eigenvalues[0] * n**0.5
        expected = (1 / (eigenvalues + 1e-3)).sum()
        assert steps.inverse_trace(*t, 1e-3) == pytest.approx(expected, rel=tolerance, abs=0)


@pytest.mark.parametrize("name", GRAMS)
def test_the_factors_are_those_of_each_inverse(steps, name):
    for n in SMALL:
        found = factored(steps, tridiagonal(name, n))
        for j in {0, found.poles.count // 2, found.poles.count - 1}:
            with mpmath.workdps(40):
                shift = mpmath.mpf(found.poles.shift) + mpmath.mpf(float(found.poles.pole[j]))
                inverse = to_numpy(mpmath.inverse(exact(name, n).t + shift * mpmath.eye(n)))
            largest = np.linalg.norm(inverse, 2)
            condition = largest * np.linalg.norm(tridiagonal(name, n).dense() + float(shift) * np.eye(n), 2)
            error = inverse_of_pole(found, j) / found.poles.weight[j] - inverse
            assert np.abs(error).max() <= 4 * EPS * condition * largest, (n, j)


@pytest.mark.parametrize("name", ["graded down", "graded up"])
def test_no_entry_of_a_graded_inverse_cancels(steps, name):
    """Entry by entry, at a condition of 1e15: the diagonal is a sum of positive terms (ALGORITHM.md, trap 2)."""
    for n in SMALL:
        found = factored(steps, tridiagonal(name, n))
        for j in range(found.poles.count):
            with mpmath.workdps(40):
                shift = mpmath.mpf(found.poles.shift) + mpmath.mpf(float(found.poles.pole[j]))
                inverse = to_numpy(mpmath.inverse(exact(name, n).t + shift * mpmath.eye(n)))
            diagonal = found.inverse[:, j] / found.poles.weight[j]
            np.testing.assert_allclose(diagonal, np.diag(inverse), rtol=1e-12, err_msg=f"{n} {j}")


@pytest.mark.parametrize("name", GRAMS)
def test_the_trace_of_the_root(steps, name):
    """Also where T is singular but for rounding: there the shift counts, and is part of what is expected."""
    for n in SMALL:
        found = factored(steps, tridiagonal(name, n))
        with mpmath.workdps(40):
            expected = sum(mpmath.sqrt(x + mpmath.mpf(found.poles.shift)) for x in exact(name, n).eigenvalues)
        assert found.root_trace == pytest.approx(float(expected), rel=RULE, abs=0), n


@pytest.mark.parametrize("name", ["random", "diagonal"])
def test_the_sum_is_the_inverse_square_root(steps, name):
    """For T with a condition below 1e5, so that the rule's error is all."""
    for n in SIZES:
        t = tridiagonal(name, n)
        found = factored(steps, t)
        f = steps.sum_poles(found.poles, found.ratio, found.inverse)
        eigenvalues, vectors = t.decomposed()
        shifted = eigenvalues + found.poles.shift
        expected = vectors / np.sqrt(shifted) @ vectors.T
        assert np.linalg.norm(f - expected, 2) <= RULE * np.linalg.norm(expected, 2), n
        assert found.root_trace == pytest.approx(np.sqrt(shifted).sum(), rel=RULE, abs=0), n
        np.testing.assert_array_equal(f, f.T)


def test_the_sum_is_scipys_root_of_a_matrix(steps):
    t = tridiagonal("random", 24)
    found = factored(steps, t)
    f = steps.sum_poles(found.poles, found.ratio, found.inverse)
    expected = scipy.linalg.inv(scipy.linalg.sqrtm(t.dense()))
    assert np.linalg.norm(f - expected, 2) <= RULE * np.linalg.norm(expected, 2)


@pytest.mark.parametrize("name", GRAMS)
def test_no_singular_value_of_the_polar_factor_exceeds_one(steps, name):
    """|P|^2 is |F T F|, with F = T^(-1/2): at most 1 + 2e-8, T singular or not (choose_poles: |P| <= 1 + 1e-8). Where
    the shift is below 1e-9 of the eigenvalue it is as close to 1 from below."""
    for n in SMALL:
        found = factored(steps, tridiagonal(name, n))
        f = steps.sum_poles(found.poles, found.ratio, found.inverse)
        with mpmath.workdps(40):
            root = mpmath.matrix(f.tolist())
            squares = np.linalg.eigvalsh(to_numpy(root * exact(name, n).t * root))
            counting = sum(x > 1e9 * found.poles.shift for x in exact(name, n).eigenvalues)
        assert squares[-1] <= 1 + 2e-8, n
        assert squares[-counting] >= 1 - 2e-8, n


@pytest.mark.parametrize("name", GRAMS)
def test_in_float_the_sum_is_that_of_float64_rounded(steps, name):
    for n in SIZES:
        found = factored(steps, tridiagonal(name, n))
        f = steps.sum_poles(found.poles, found.ratio, found.inverse)
        in_float = steps.sum_poles_in_float(found.poles, found.ratio, found.inverse)
        np.testing.assert_array_equal(in_float, f.astype(np.float32))


def test_threads_change_no_bit_of_the_sum(steps):
    found = factored(steps, tridiagonal("collapsed", 300))
    for sum_poles in (steps.sum_poles, steps.sum_poles_in_float):
        before = steps.parts_run()
        in_parts = sum_poles(found.poles, found.ratio, found.inverse, in_parts=True)
        assert steps.parts_run() >= before + 2
        np.testing.assert_array_equal(in_parts, sum_poles(found.poles, found.ratio, found.inverse))


def test_what_falls_off_to_nothing_is_zero(steps):
    """No subnormal number, at any distance from the diagonal."""
    n = 40
    t = Tridiagonal(np.full(n, 0.8), np.append(np.full(n - 1, 1e-8), 0))
    found = factored(steps, t)
    f = steps.sum_poles(found.poles, found.ratio, found.inverse)
    assert (np.diag(f, 3) != 0).all()
    assert not np.tril(f, -4).any()
    assert np.abs(f[f != 0]).min() >= 1e-30
