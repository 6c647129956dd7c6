"""The matrices that benchmarks and tests share, and how far a computed polar factor is from the true one."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np


def matrices(spectrum: str, *shape: int, seed: int = 0) -> np.ndarray:
    """``[..., b, d]`` float64: "random" (standard normal) or "collapse NOISE" (one row for all, plus noise)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    if spectrum == "random":
        return noise
    name, _, size = spectrum.partition(" ")
    if name != "collapse":
        raise ValueError(f"spectrum must be 'random' or 'collapse NOISE', got {spectrum!r}.")
    return rng.standard_normal((1, shape[-1])) + float(size) * noise


@cache
def spectra() -> dict[str, np.ndarray]:
    """Every spectrum that the method has been verified on, 144x128 or 64x128, float64, rows not normalised."""
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((144, 128)), rng.standard_normal((1, 128))
    return {
        "random": x,
        "decay to 1e-6": x * np.logspace(0, -6, 128),
        "orthonormal": np.linalg.qr(x)[0],
        **{f"collapse, noise 1e-{k}": u + 10.0**-k * x for k in range(1, 8)},
        "rank 8": rng.standard_normal((144, 8)) @ rng.standard_normal((8, 128)),
        "rank 1": np.ones((144, 1)) @ u,
        "72 rows twice": np.repeat(x[:72], 2, 0),
        "64 x 128": x[:64],
        "64 x 128 collapse 1e-4": u + 1e-4 * x[:64],
    }


class PolarError(NamedTuple):
    """How far a computed polar factor P is from U V^T."""

    in_directions: float
    """Root mean square over the directions with s > 1e-4 s_1."""
    excess: float
    """||P||_2 - 1."""
    directions: int
    """How many directions have s > 1e-4 s_1."""


def polar_error(p: np.ndarray, e: np.ndarray) -> PolarError:
    """Of one matrix e [b, d]; p is what was computed as the gradient of its nuclear norm."""
    left, s, right = np.linalg.svd(e, full_matrices=False)
    k = s > 1e-4 * s[0]
    core = left[:, k].T @ p @ right[k].T
    error = np.linalg.norm(core - np.eye(k.sum())) / math.sqrt(k.sum())
    return PolarError(float(error), float(np.linalg.norm(p, 2) - 1), int(k.sum()))
