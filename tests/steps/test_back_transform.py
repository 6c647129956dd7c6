"""csrc/cpu/inverse_sqrt.h, back_transform: Q F Q', a group of reflectors at a time, against products in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.steps.inputs import SIZES, gram, orthogonal

GROUPS = (16, 32)
"""spectral.h has these."""


def symmetric(n: int, dtype: type) -> np.ndarray:
    f = np.random.default_rng(n).standard_normal((n, n))
    return ((f + f.T) / 2).astype(dtype)


def tolerance(n: int, f: np.ndarray) -> float:
    """As for Q itself: n reflectors, whose errors of random sign add up to sqrt(n) (measured: up to 2 sqrt(n) eps)."""
    return (4 + 4 * n**0.5) * np.finfo(f.dtype).eps * np.linalg.norm(f.astype(float), 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", ["random", "collapsed", "rank 3", "diagonal"])
def test_q_f_q_transposed(steps, name, group, dtype):
    """The reflectors of a Gram matrix; n of every remainder by the group, and of several groups."""
    for n in SIZES:
        _, _, beta, reflectors = steps.tridiagonalize(gram(name, n))
        f = symmetric(n, dtype)
        w = steps.back_transform(f, reflectors, beta, group)
        q = orthogonal(reflectors, beta)
        assert np.linalg.norm(w - q @ f.astype(float) @ q.T, 2) <= tolerance(n, f), n
        np.testing.assert_array_equal(w, w.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("group", GROUPS)
def test_and_back_again_it_is_g(steps, group, dtype):
    """Q T Q' with T as tridiagonalize leaves it: the two steps agree on what Q is."""
    for n in SIZES:
        g = gram("random", n)
        diagonal, off, beta, reflectors = steps.tridiagonalize(g)
        t = (np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)).astype(dtype)
        assert np.linalg.norm(steps.back_transform(t, reflectors, beta, group) - g, 2) <= 2 * tolerance(n, t), n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("group", GROUPS)
def test_threads_change_no_bit_of_it(steps, group, dtype):
    n = 400  # large enough for several parts with either group
    _, _, beta, reflectors = steps.tridiagonalize(gram("random", n))
    f = symmetric(n, dtype)
    before = steps.parts_run()
    in_parts = steps.back_transform(f, reflectors, beta, group, in_parts=True)
    assert steps.parts_run() > before
    np.testing.assert_array_equal(in_parts, steps.back_transform(f, reflectors, beta, group))
