"""csrc/cpu/tridiagonal.h: G = Q T Q' by reflectors, against products in NumPy and SciPy's reduction."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from tests.steps.inputs import EPS, GRAMS, SIZES, Tridiagonal, gram, orthogonal


def close(n: int) -> float:
    """n reflectors, each of which rounds what it touches a few times: errors of random sign, so sqrt(n) of them add up
    (measured: up to 2.9 sqrt(n) eps in Q T Q', 2.1 in Q Q')."""
    return (4 + 4 * n**0.5) * EPS


@pytest.mark.parametrize("name", GRAMS)
def test_q_t_q_transposed_is_the_gram_matrix(steps, name):
    for n in SIZES:
        g = gram(name, n)
        diagonal, off, beta, reflectors = steps.tridiagonalize(g)
        q = orthogonal(reflectors, beta)
        assert np.linalg.norm(q.T @ q - np.eye(n), 2) <= close(n), n
        t = Tridiagonal(diagonal, off)
        assert np.linalg.norm(q @ t.dense() @ q.T - g, 2) <= close(n) * np.linalg.norm(g, 2), n
        assert off[n - 1] == 0


@pytest.mark.parametrize("name", GRAMS)
def test_a_reflector_ends_in_one_and_is_zero_beyond(steps, name):
    """The next steps read whole registers, of rows that are padded."""
    for n in SIZES:
        _, _, beta, reflectors = steps.tridiagonalize(gram(name, n))
        assert beta[0] == 0
        for k in range(1, n):
            assert reflectors[k, k - 1] == 1, (n, k)
            assert not reflectors[k, k:].any(), (n, k)


@pytest.mark.parametrize("name", GRAMS)
def test_t_has_the_eigenvalues_of_the_gram_matrix(steps, name):
    for n in SIZES:
        g = gram(name, n)
        eigenvalues, _ = Tridiagonal(*steps.tridiagonalize(g)[:2]).decomposed()
        np.testing.assert_allclose(eigenvalues, scipy.linalg.eigh(g, eigvals_only=True), rtol=0, atol=close(n))


def test_t_is_that_of_scipy_but_for_signs(steps):
    """Q leaves the last vector alone, so T is unique (implicit Q theorem); SciPy's leaves the first. Small matrices: T
    is the worse determined the more steps it takes."""
    for n in range(1, 9):
        g = gram("random", n)
        diagonal, off, *_ = steps.tridiagonalize(g)
        t = scipy.linalg.hessenberg(g[::-1, ::-1])[::-1, ::-1]
        np.testing.assert_allclose(diagonal, np.diag(t), rtol=0, atol=100 * EPS)
        np.testing.assert_allclose(np.abs(off[:-1]), np.abs(np.diag(t, 1)), rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("g", [np.zeros((7, 7)), np.diag(np.arange(7.0)), np.eye(40)], ids=["zero", "diagonal", "one"])
def test_a_diagonal_matrix_is_left_alone(steps, g):
    diagonal, off, beta, _ = steps.tridiagonalize(g)
    np.testing.assert_array_equal(diagonal, np.diag(g))
    assert not off.any()
    assert not beta.any()


def test_a_number_that_is_not_one_shows_in_t(steps):
    """spectral.h tells by the sum of T's entries that there was one."""
    for at in ((2, 2), (20, 3)):
        g = gram("random", 33).copy()
        g[at] = g[at[::-1]] = np.nan
        diagonal, off, *_ = steps.tridiagonalize(g)
        assert np.isnan(np.abs(diagonal).sum() + np.abs(off).sum())


@pytest.mark.parametrize("tail", [0.0, 1e-9, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("pivot", [1.0, -1.0, 0.0])
def test_a_reflector_maps_its_row_onto_the_last_entry(steps, pivot, tail):
    """Relative to the row's own size, however small the tail is beside the pivot: nothing cancels."""
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, 8, 31, 100):
        x = np.append(tail * rng.standard_normal(length - 1), pivot)
        u, off, beta = steps.make_reflector(x)
        square = x[:-1] @ x[:-1]
        assert u[-1] == 1
        if square == 0:
            assert (off, beta) == (pivot, 0)
            continue
        assert abs(off) == pytest.approx(np.linalg.norm(x), rel=8 * EPS, abs=0)
        assert off * pivot <= 0  # of the other sign, so that pivot - off does not cancel
        assert beta == pytest.approx(2 / (u @ u), rel=8 * EPS, abs=0)
        assert u[:-1] * (pivot - off) == pytest.approx(x[:-1], rel=8 * EPS, abs=0)
