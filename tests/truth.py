"""Float64 truth for the tests: plain NumPy SVD and eigh, sharing no code with the package, and the matrices to try."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

# The same matrices and the same measure as in the published accuracy table.
from benchmarks.matrices import polar_error as polar_error
from benchmarks.matrices import spectra as spectra

# The ops under test: conftest.py's fixture `kernels` puts those of another library here.
kernels = torch.ops.svmax

HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)
OPTIONS = {  # id -> keyword arguments
    "plain": {"normalize": False, "center": False},
    "normalized": {"normalize": True, "center": False},
    "centered": {"normalize": False, "center": True},
    "normalized-centered": {"normalize": True, "center": True},
}

# Relative error of the nuclear norm: the contract. float32 output alone rounds by 6e-8; the poles and the squared
# condition number add at most 1e-7 (ALGORITHM.md, rank one). float64 input is decomposed by torch.linalg.svd.
NUCLEAR_RTOL = {torch.float16: 2e-7, torch.bfloat16: 2e-7, torch.float32: 2e-7, torch.float64: 1e-12}
# ||P||_2 may exceed one by this much, always.
POLAR_EXCESS = 1e-5


def polar_tolerance(singular_values: np.ndarray, dtype: torch.dtype) -> float:
    """Error allowed to P in the directions with s > 1e-4 s_1, per direction (root mean square).

    float32, from ALGORITHM.md at n = 128: 3e-8 from the poles and at most 6e-8 from rounding P. Up to kappa(G) = 1e6
    the products may be done in float32 for 1e-6 (2e-6 with both). Rounding grows with the length n of the sums: like
    its root where it is random, like n itself where the rows are all alike, which is where kappa is large.

    float64: the polar factor moves by eps s_1 / (s_i + s_j), eps 1e4 at most, times a small constant for the SVD's own
    error; the kernels' way by E W adds eps s_1 / s_n, never more than the 3e-8 of the poles.
    """
    largest, smallest = singular_values[0], max(singular_values[-1], 1e-30)
    longer = max(len(singular_values) / 128, 1)
    if dtype == torch.float64:
        return min(3e-8, max(1e-11, 1e-15 * largest / smallest))
    return 2e-6 * math.sqrt(longer) if largest <= 1e3 * smallest else 1e-7 * longer


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The same numbers in float64: the cast to a narrower type before is not the kernel's error."""
    return x.detach().to("cpu", torch.float64).numpy()


def tensor(x: np.ndarray) -> torch.Tensor:
    """The same numbers on the device under test, which a fixture has made torch's default."""
    return torch.from_numpy(x).to(torch.get_default_device())


def is_tall(shape: Sequence[int], center: bool = False) -> bool:
    """Whether the stages work with E'E, not EE'; the rows of a centred E have b - 1 dimensions at most."""
    return shape[-2] - center >= shape[-1]


def row_norms(x: np.ndarray) -> np.ndarray:
    """[..., b, d] -> [..., b, 1]; scaled, so that no square underflows."""
    largest = np.abs(x).max(-1, keepdims=True)
    return largest * np.linalg.norm(x / np.where(largest == 0, 1, largest), axis=-1, keepdims=True)


def embedding(x: np.ndarray, normalize: bool = False, center: bool = False) -> np.ndarray:
    """E: rows divided by their norms (a zero row stays zero), then the mean row taken off."""
    if normalize:
        norms = row_norms(x)
        x = np.where(norms == 0, 0, x / np.where(norms == 0, 1, norms))
    for _ in range(2 if center else 0):  # at collapse the rounding of the first mean is large beside what is left
        x = x - x.mean(-2, keepdims=True)
    return x


def polar_factor(e: np.ndarray) -> np.ndarray:
    """Gradient of the nuclear norm: U V^T without the directions whose singular value is zero up to rounding."""
    u, s, vt = np.linalg.svd(e, full_matrices=False)
    kept = s > 1e-13 * s[..., :1]
    return (u * kept[..., None, :]) @ vt


def polar_derivative(e: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Derivative of the polar factor of one matrix of full rank in the direction v; only sums s_i + s_j divide."""
    if e.shape[0] < e.shape[1]:
        return polar_derivative(e.T, v.T).T
    u, s, vt = np.linalg.svd(e, full_matrices=False)
    m = u.T @ v @ vt.T
    return u @ ((m - m.T) / (s[:, None] + s)) @ vt + (v - u @ (u.T @ v)) @ (vt.T / s) @ vt


def bounds(b: int, d: int, center: bool = False) -> tuple[float, float]:
    """L and U of the mean singular value (paper, section 3; centred: ALGORITHM.md)."""
    if center:
        return 0.0, math.sqrt(b * min(b - 1, d)) / d
    return math.sqrt(b) / d, math.sqrt(b * d / max(b, d)) * math.sqrt(b) / d


def _of_nuclear_norm(nuclear_norm: Any, objective: str, b: int, d: int, center: bool, exp: Callable[[Any], Any]) -> Any:
    """The objective as a function of the nuclear norm, an array with NumPy's exp or a tensor with torch's."""
    if objective == "nuclear_norm":
        return nuclear_norm
    if objective == "mean_singular_value":
        return nuclear_norm / d
    if objective == "svmax_loss_unbounded":
        return -nuclear_norm / d
    lower, upper = bounds(b, d, center)
    return exp((upper - nuclear_norm / d) / (upper - lower))


def value(x: np.ndarray, objective: str, normalize: bool = False, center: bool = False) -> np.ndarray:
    """The objective of each matrix, by the names the ops use."""
    b, d = x.shape[-2:]
    nuclear_norm = np.linalg.svd(embedding(x, normalize, center), compute_uv=False).sum(-1)
    return _of_nuclear_norm(nuclear_norm, objective, b, d, center, np.exp)


def slope(x: np.ndarray, objective: str, normalize: bool = False, center: bool = False) -> np.ndarray:
    """Derivative of the objective with respect to the nuclear norm."""
    b, d = x.shape[-2:]
    if objective == "svmax_loss":
        lower, upper = bounds(b, d, center)
        return -value(x, objective, normalize, center) / (d * (upper - lower))
    return np.full(x.shape[:-2], {"nuclear_norm": 1.0, "mean_singular_value": 1 / d}.get(objective, -1 / d))


def through_rows(x: np.ndarray, gradient_of_e: np.ndarray, normalize: bool, center: bool) -> np.ndarray:
    """Gradient of x from the gradient of the centred, normalised E: dX_i = (g_i - (g_i . e_i) e_i) / |x_i|."""
    g = gradient_of_e - gradient_of_e.mean(-2, keepdims=True) if center else gradient_of_e
    if not normalize:
        return g
    e, norms = embedding(x, normalize=True), row_norms(x)
    projected = g - (g * e).sum(-1, keepdims=True) * e
    return np.where(norms == 0, 0, projected / np.where(norms == 0, 1, norms))


def gradient(x: np.ndarray, objective: str, normalize: bool = False, center: bool = False) -> np.ndarray:
    """Gradient of the objective of each matrix."""
    p = polar_factor(embedding(x, normalize, center))
    return through_rows(x, slope(x, objective, normalize, center)[..., None, None] * p, normalize, center)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Standard normal entries."""
    return tensor(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def loss_expression(x: torch.Tensor, objective: str, normalize: bool, center: bool) -> torch.Tensor:
    """The objective as plain torch operations, for torch's own derivatives of any order; distinct singular values."""
    e = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) if normalize else x
    e = e - e.mean(-2, keepdim=True) if center else e
    b, d = x.shape[-2:]
    nuclear_norm = torch.linalg.svdvals(e)[..., : b - 1 if center else b].sum(-1)  # centred: the last of b is zero
    return _of_nuclear_norm(nuclear_norm, objective, b, d, center, torch.exp)
