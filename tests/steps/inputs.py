"""Gram matrices and tridiagonal matrices for the steps, of every kind that reaches them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np
import scipy.linalg

from benchmarks.matrices import matrices

EPS = 2.0**-52
SIZES = (*range(1, 41), 64, 65, 100, 129, 257, 300)
"""Every remainder by the largest panel, tile and group of reflectors (32), and several of each."""

GRAMS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "random": lambda rng, n: rng.standard_normal((n + 16, n)),
    "collapsed": lambda rng, n: matrices("collapse 1e-5", n + 16, n),
    "rank 1": lambda rng, n: np.outer(np.ones(n + 16), rng.standard_normal(n)),
    "rank 3": lambda rng, n: rng.standard_normal((n + 16, 3)) @ rng.standard_normal((3, n)),
    "graded down": lambda rng, n: rng.standard_normal((n + 16, n)) * np.geomspace(1, 1e-8, n),
    "graded up": lambda rng, n: rng.standard_normal((n + 16, n)) * np.geomspace(1e-8, 1, n),
    "diagonal": lambda rng, n: np.diag(rng.uniform(0.1, 1, n)),
}
"""Name -> embeddings whose Gram matrix it is."""


@functools.cache
def gram(name: str, n: int) -> np.ndarray:
    """``[n, n]`` float64, exactly symmetric, its largest eigenvalue between 0.5 and 1: as the stage scales it."""
    x = GRAMS[name](np.random.default_rng(n), n)
    x = x / (np.linalg.norm(x, 2) * 1.2)
    g = x.T @ x
    return (g + g.T) / 2


def orthogonal(reflectors: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Q = H_(n-1) ... H_1, ``[n, n]``, with H_k = I - beta[k] u_k u_k'."""
    n = len(beta)
    q = np.eye(n)
    for k in range(1, n):
        u = reflectors[k, :k]
        q[:k] -= beta[k] * np.outer(u, u @ q[:k])
    return q


class Tridiagonal(NamedTuple):
    diagonal: np.ndarray
    """``[n]``"""
    off: np.ndarray
    """``[n]``, the last is 0."""

    def dense(self) -> np.ndarray:
        return np.diag(self.diagonal) + np.diag(self.off[:-1], 1) + np.diag(self.off[:-1], -1)

    def decomposed(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors as columns; by SciPy, in float64."""
        if len(self.diagonal) == 1:
            return self.diagonal, np.eye(1)
        return scipy.linalg.eigh_tridiagonal(self.diagonal, self.off[:-1])


@functools.cache
def tridiagonal(name: str, n: int) -> Tridiagonal:
    """T of gram(name, n) as SciPy reduces it, so that no step is given what another has made."""
    t = scipy.linalg.hessenberg(gram(name, n))
    return Tridiagonal(np.diag(t).copy(), np.append(np.diag(t, -1), 0))


class Exact(NamedTuple):
    """T with 40 digits."""

    t: mpmath.matrix
    eigenvalues: list[mpmath.mpf]
    """Ascending."""


@functools.cache
def exact(name: str, n: int) -> Exact:
    with mpmath.workdps(40):
        t = mpmath.matrix(tridiagonal(name, n).dense().tolist())
        return Exact(t, sorted(mpmath.eigsy(t, eigvals_only=True)))


def to_numpy(x: mpmath.matrix) -> np.ndarray:
    return np.array(x.tolist(), dtype=float).reshape(x.rows, x.cols)
