"""csrc/cpu/eigenvalues.h: eigenvalues of a tridiagonal matrix, against formulas, mpmath, and bisection in SciPy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg

from tests.steps.inputs import EPS, GRAMS, SIZES, exact, tridiagonal


def tolerance(n: int, largest: float) -> float:
    """A few eps times the largest (eigenvalues.h): every sweep rounds each entry a few times, with random sign
    (measured: up to sqrt(n) eps)."""
    return (4 + 2 * n**0.5) * EPS * largest


def eigenvalues(steps, diagonal: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Ascending; off is ``[n - 1]``."""
    return np.sort(steps.tridiagonal_eigenvalues(np.asarray(diagonal, float), np.append(np.asarray(off, float), 0)))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    expected = np.sort(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(len(expected), np.abs(expected).max()))


@pytest.mark.parametrize("name", GRAMS)
def test_of_gram_matrices_they_are_those_of_bisection(steps, name):
    for n in SIZES[1:]:
        t = tridiagonal(name, n)
        expected = scipy.linalg.eigvalsh_tridiagonal(t.diagonal, t.off[:-1], lapack_driver="stebz")
        assert_close(eigenvalues(steps, t.diagonal, t.off[:-1]), expected)


@pytest.mark.parametrize("name", GRAMS)
def test_of_gram_matrices_they_are_those_of_forty_digits(steps, name):
    for n in (2, 3, 7, 12):
        t = tridiagonal(name, n)
        assert_close(eigenvalues(steps, t.diagonal, t.off[:-1]), np.array(exact(name, n).eigenvalues, float))


def test_second_differences_have_the_eigenvalues_of_a_string(steps):
    for n in SIZES:
        expected = 2 - 2 * np.cos(np.arange(1, n + 1) * np.pi / (n + 1))
        assert_close(eigenvalues(steps, np.full(n, 2.0), np.full(n - 1, -1.0)), expected)


@pytest.mark.parametrize("n", [2, 3, 10, 40, 101])
def test_clement_matrices_have_whole_numbers(steps, n):
    k = np.arange(1, n)
    assert_close(eigenvalues(steps, np.full(n, n), np.sqrt(k * (n - k))), np.arange(1, 2 * n, 2))


@pytest.mark.parametrize("m", [3, 10, 15])
def test_wilkinson_matrices_keep_their_pairs(steps, m):
    """Eigenvalues in pairs that agree to as many digits as float64 has, though no coupling is small."""
    diagonal, off = np.abs(np.arange(-m, m + 1)), np.ones(2 * m)
    with mpmath.workdps(30):
        matrix = mpmath.matrix((np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)).tolist())
        expected = np.array(list(mpmath.eigsy(matrix, eigvals_only=True)), float)
    assert_close(eigenvalues(steps, diagonal, off), expected)


@pytest.mark.parametrize("glue", [0, 1e-18, 1e-12, 1e-8, 1e-4])
def test_clusters_of_glued_matrices(steps, glue):
    """Wilkinson's, five times: every eigenvalue five or ten times, but for the glue."""
    diagonal = np.tile(np.abs(np.arange(-10, 11)), 5)
    off = np.ones(len(diagonal) - 1)
    off[20::21] = glue
    expected = scipy.linalg.eigvalsh_tridiagonal(diagonal.astype(float), off, lapack_driver="stebz")
    assert_close(eigenvalues(steps, diagonal, off), expected)


def test_without_couplings_they_are_the_diagonal(steps):
    rng = np.random.default_rng(0)
    for n in SIZES:
        diagonal = rng.standard_normal(n)
        np.testing.assert_array_equal(eigenvalues(steps, diagonal, np.zeros(n - 1)), np.sort(diagonal))
    assert not eigenvalues(steps, np.zeros(9), np.zeros(8)).any()


def test_a_coupling_in_the_middle_that_is_zero_parts_the_matrix(steps):
    rng = np.random.default_rng(1)
    diagonal, off = 2 + rng.random(30), rng.random(29)
    off[[0, 7, 8, 28]] = 0
    parts = [(0, 1), (1, 8), (8, 9), (9, 29), (29, 30)]
    expected = [eigenvalues(steps, diagonal[i:j], off[i : j - 1]) for i, j in parts]
    assert_close(eigenvalues(steps, diagonal, off), np.concatenate(expected))


@pytest.mark.parametrize(("a", "b", "c"), [(1, 1, 1), (1, 1, 1e-3), (1, 2, 1e-9), (1, 0, 1e-12), (1e-300, 1e-300, 0)])
def test_of_two_rows_they_are_those_of_the_formula(steps, a, b, c):
    mean, root = (a + b) / 2, np.hypot((a - b) / 2, c)
    assert_close(eigenvalues(steps, np.array([a, b]), np.array([c])), np.array([mean - root, mean + root]))


def test_scale_changes_nothing_but_the_exponent(steps):
    """The criteria for a negligible coupling are relative."""
    t = tridiagonal("collapsed", 33)
    expected = eigenvalues(steps, t.diagonal, t.off[:-1])
    for exponent in (-120, 120):
        scaled = eigenvalues(steps, np.ldexp(t.diagonal, exponent), np.ldexp(t.off[:-1], exponent))
        np.testing.assert_array_equal(np.ldexp(scaled, -exponent), expected)


def test_a_number_that_is_not_one_ends_and_shows(steps):
    for at in (0, 3, 9):
        t = tridiagonal("random", 10)
        diagonal = t.diagonal.copy()
        diagonal[at] = np.nan
        assert np.isnan(steps.tridiagonal_eigenvalues(diagonal, t.off)).any()
