"""Gradients of the public functions against float64 truth: the polar factor, then the way through rows and mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from svmax_ops import mean_singular_value, nuclear_norm, svdvals, svmax_loss
from tests import truth

OBJECTIVES = {  # name of the objective in truth.py -> the public function
    "nuclear_norm": nuclear_norm,
    "mean_singular_value": mean_singular_value,
    "svmax_loss": svmax_loss,
    "svmax_loss_unbounded": lambda x, **options: svmax_loss(x, bounded=False, **options),
}
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def gradient(function, x: torch.Tensor, **options: bool) -> torch.Tensor:
    x = x.detach().requires_grad_()
    (dx,) = torch.autograd.grad(function(x, **options).sum(), x)
    assert dx.dtype == x.dtype
    assert dx.shape == x.shape
    return dx


def assert_polar(p: torch.Tensor, e: np.ndarray, dtype: torch.dtype) -> None:
    error = truth.polar_error(truth.to_numpy(p), e)
    assert error.excess <= truth.POLAR_EXCESS
    assert error.in_directions <= truth.polar_tolerance(np.linalg.svd(e, compute_uv=False), dtype)


@pytest.mark.parametrize("transpose", [False, True], ids=["as given", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", truth.spectra())
def test_polar_factor_of_every_spectrum(backend, name, dtype, transpose):
    e = truth.tensor(truth.embedding(truth.spectra()[name], normalize=True)).to(torch.float32).to(dtype)
    e = e.mT if transpose else e
    assert_polar(gradient(nuclear_norm, e), truth.to_numpy(e), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 7), (7, 1), (2, 2), (144, 64), (64, 144), (4096, 64), (288, 256), (300, 512), (512, 512)],
    ids=str,
)
def test_polar_factor_of_every_shape(backend, shape, dtype):
    x = truth.random(*shape, dtype=dtype)
    assert_polar(gradient(nuclear_norm, x), truth.to_numpy(x), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(512, 512), (300, 512), (512, 300), (700, 256)], ids=str)
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-4, 1e-6, 0])
def test_polar_factor_of_large_collapsed_matrices(backend, shape, noise, dtype):
    x = (truth.random(1, shape[1]) + noise * truth.random(*shape, seed=1)).to(dtype)
    assert_polar(gradient(nuclear_norm, x), truth.to_numpy(x), dtype)


FORMS = {  # n singular values from 1 to 1 / ratio
    "geometric": lambda n, ratio: np.geomspace(1, 1 / ratio, n),
    "half large, half small": lambda n, ratio: np.where(np.arange(n) < n // 2, 1, 1 / ratio),
    "one large": lambda n, ratio: np.where(np.arange(n) < 1, 1, 1 / ratio),
    "one small": lambda n, ratio: np.where(np.arange(n) < n - 1, 1, 1 / ratio),
}


@pytest.mark.parametrize("n", [16, 128])
@pytest.mark.parametrize("ratio", [3, 10, 30, 50, 90, 110, 300, 900, 1100, 1e4, 1e5])
@pytest.mark.parametrize("form", FORMS)
def test_polar_factor_of_known_singular_values(backend, form, ratio, n):
    """kappa(G) from 9 to 1e10 on both sides of every threshold; kappa alone does not say how many are small."""
    u, v = (np.linalg.qr(truth.to_numpy(truth.random(n, n, dtype=torch.float64, seed=k)))[0] for k in (1, 2))
    x = truth.tensor(u * FORMS[form](n, ratio) @ v).float()
    assert_polar(gradient(nuclear_norm, x), truth.to_numpy(x), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(32, 128), (64, 64), (24, 24), (300, 320)], ids=str)
@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
def test_centred_gradient_at_collapse_onto_one_direction(backend, normalize, shape, dtype):
    """b <= d: the vector of ones is a null direction of G, where W is 3e7 times what it is elsewhere.

    What is left is the rounding of the input's type: of E, 1e-16 beside its noise, and of the result.
    """
    for noise in (1e-2, 1e-4, 1e-6):
        x = (truth.random(1, shape[1]) + noise * truth.random(*shape, seed=1)).to(dtype)
        full = truth.to_numpy(x)
        e = truth.embedding(full, normalize, center=True)
        rank = min(shape[0] - 1, shape[1])
        u, s, vt = np.linalg.svd(e, full_matrices=False)
        assert s[0] <= 1e4 * s[rank - 1 - normalize * (shape[0] > shape[1])]
        wanted = truth.through_rows(full, u[:, :rank] @ vt[:rank], normalize, center=True)
        tolerance = 2e-15 / noise * s[0] / s[rank - 1] if dtype == torch.float64 else 1e-7
        for function in (nuclear_norm, svdvals):
            actual = truth.to_numpy(gradient(function, x, normalize=normalize, center=True))
            assert np.linalg.norm(actual - wanted) <= tolerance * np.linalg.norm(wanted), (noise, function)
        loss = truth.to_numpy(gradient(svmax_loss, x, normalize=normalize, center=True))
        wanted *= truth.slope(full, "svmax_loss", normalize, True)
        assert np.linalg.norm(loss - wanted) <= 2 * tolerance * np.linalg.norm(wanted), noise


def test_float64_stays_float64_where_the_inverse_root_is_float32_numbers(backend):
    """Rows of norm one at right angles: W is the identity, which says nothing about E."""
    angle = 1 / 3
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    for rows in (rotation, rotation[:1], [[0.6, 0.8]], [[2 / 3, 2 / 3, 1 / 3], [1 / 3, -2 / 3, 2 / 3]]):
        x = torch.tensor(rows, dtype=torch.float64)
        np.testing.assert_allclose(truth.to_numpy(gradient(nuclear_norm, x)), truth.to_numpy(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_polar_factor_does_not_know_the_scale(backend, dtype, scale):
    for noise in (1.0, 1e-3):
        x = ((truth.random(1, 24, dtype=torch.float64) + noise * truth.random(40, 24, dtype=torch.float64)) * scale).to(
            dtype
        )
        assert_polar(gradient(nuclear_norm, x), truth.to_numpy(x), dtype)


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_polar_factor_of_rank_deficient_matrices_is_bounded(backend, dtype, center):
    x = truth.random(40, 24, dtype=dtype)
    x[20:] = x[:20]
    x[::3] = 0
    for matrix in (x, x.mT, torch.ones(40, 24, dtype=dtype), x * torch.tensor([1.0] * 3 + [0.0] * 21, dtype=dtype)):
        p = gradient(nuclear_norm, matrix, center=center)
        assert np.linalg.norm(truth.to_numpy(p), 2) <= 1 + truth.POLAR_EXCESS


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3)], ids=str)
def test_gradient_of_a_zero_matrix_is_zero(backend, shape, dtype, options, objective):
    x = torch.zeros(shape, dtype=dtype)
    assert torch.equal(gradient(OBJECTIVES[objective], x, **options), torch.zeros_like(x))


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 2), (12, 3), (144, 64), (24, 40), (40, 40), (3, 5, 32, 16)], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.kinds
def test_gradient_of_every_objective(backend, objective, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    if objective.startswith("svmax") and not options["normalize"]:
        x = x / x.shape[-1] ** 0.5  # rows of about unit norm, as normalize=False trusts
    full = truth.to_numpy(x)
    expected = truth.gradient(full, objective, **options)
    actual = truth.to_numpy(gradient(OBJECTIVES[objective], x, **options))
    # Entries are compared with the largest of their row: projection and centring subtract. 4e-6: P (2e-6 where kappa
    # allows float32 products) once more through the projection. A square random matrix has kappa(G) of 1e3 to 1e6.
    scale = (
        np.abs(expected).max((-2, -1), keepdims=True)
        if not options["normalize"]
        else (
            np.abs(expected).max((-2, -1), keepdims=True)
            + np.abs(truth.slope(full, objective, **options))[..., None, None]
            / truth.row_norms(full).min(-2, keepdims=True)
            / shape[-1] ** 0.5
        )
    )
    tolerance = 1e-10 if dtype == torch.float64 else 4e-6 + ROUNDING[dtype]
    assert (np.abs(actual - expected) <= tolerance * scale).all()


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_gradient_of_a_row_is_orthogonal_to_it_and_scales_with_its_inverse(backend, dtype, center):
    scales = 2.0 ** torch.linspace(-8, 8, 40).round()[:, None]  # exact in every dtype
    x = truth.random(40, 24, dtype=dtype)
    dx, scaled = gradient(svmax_loss, x, center=center), gradient(svmax_loss, (x * scales).to(dtype), center=center)
    # What is projected out, slope * P_i . e_i with |P_i| <= 1, leaves its rounding; so does dx in its own dtype.
    slope = abs(truth.slope(truth.to_numpy(x), "svmax_loss", True, center).item())
    along = (dx.double() * x.double()).sum(-1).abs()
    assert (along <= 8 * ROUNDING[dtype] * (dx.double().norm(dim=-1) * x.double().norm(dim=-1) + slope)).all()
    if dtype != torch.float16:  # whose gradients become subnormal
        torch.testing.assert_close((scaled.double() * scales), dx.double(), rtol=1e-6 + 4 * ROUNDING[dtype], atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_of_rows_from_1e_minus_20_to_1e20(backend, dtype):
    scales = torch.logspace(-20, 20, 48, dtype=torch.float64)[:, None]
    x = (truth.random(48, 24, dtype=torch.float64) * scales).to(dtype)
    expected = truth.gradient(truth.to_numpy(x), "svmax_loss", normalize=True) * truth.row_norms(truth.to_numpy(x))
    actual = truth.to_numpy(gradient(svmax_loss, x)) * truth.row_norms(truth.to_numpy(x))
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=(1e-10 if dtype == torch.float64 else 4e-6) * np.abs(expected).max()
    )


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=str)
def test_a_zero_row_gets_a_zero_gradient(backend, shape, dtype, center):
    x = truth.random(*shape, dtype=dtype)
    x[[0, 3, 7]] = 0
    for function in (*OBJECTIVES.values(), svdvals):
        dx = gradient(function, x, normalize=True, center=center)
        assert (dx[[0, 3, 7]] == 0).all()
        assert (dx[1] != 0).any()
        assert dx.isfinite().all()
    expected = truth.gradient(truth.to_numpy(x), "svmax_loss", True, center)
    actual = truth.to_numpy(gradient(svmax_loss, x, center=center))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=(4e-6 + ROUNDING[dtype]) * np.abs(expected).max())


@pytest.mark.parametrize("function", [svmax_loss, svdvals], ids=lambda f: f.__name__)
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("transpose", [False, True], ids=["as given", "transposed"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("name", truth.spectra())
@pytest.mark.leave_out(
    lambda of: of["backend"] == "host" and of["dtype"] in truth.HALF,
    "seconds a case on the emulator, and the same kernels as for float32 once a row is read",
)
def test_gradient_is_finite_on_every_spectrum(backend, name, dtype, transpose, options, function):
    x = truth.tensor(truth.spectra()[name]).to(dtype)
    assert gradient(function, x.mT if transpose else x, **options).isfinite().all()


@pytest.mark.parametrize("incoming", [3.0, -1.0, 1e-20, 1e20, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_incoming_gradients_multiply(backend, dtype, incoming):
    x = truth.random(2, 20, 12, dtype=dtype).requires_grad_()
    loss = svmax_loss(x)
    weights = torch.tensor([1.0, incoming], dtype=dtype)
    (dx,) = torch.autograd.grad(loss, x, weights)
    unit = gradient(svmax_loss, x)
    torch.testing.assert_close(dx, unit * weights[:, None, None], rtol=4e-7, atol=0)


# --- singular values ---


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (144, 64), (24, 40), (3, 5, 32, 16)], ids=str)
@pytest.mark.leave_out(
    lambda of: of["options"]["center"] and of["shape"][-2] == 1,
    "one row minus its mean is zero: no singular vector is right or wrong",
)
@pytest.mark.kinds
def test_gradient_of_singular_values_for_any_incoming_gradient(backend, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype).requires_grad_()
    values = svdvals(x, **options)
    incoming = truth.random(*values.shape, seed=5, dtype=torch.float64)
    if options["center"] and shape[-2] <= shape[-1]:
        incoming[..., -1] = 0  # s = 0: its singular vectors are arbitrary
    (actual,) = torch.autograd.grad(values, x, incoming.to(values.dtype))
    full = truth.to_numpy(x)
    u, s, vt = np.linalg.svd(truth.embedding(full, **options), full_matrices=False)
    g = truth.to_numpy(incoming.to(values.dtype))
    expected = truth.through_rows(full, (u * g[..., None, :]) @ vt, options["normalize"], options["center"])
    # A singular vector moves by eps s_1^2 / (gap of the eigenvalues of G).
    gap = np.min(s[..., :-1] ** 2 - s[..., 1:] ** 2, axis=-1, initial=np.inf) if s.shape[-1] > 1 else s[..., 0] ** 2
    amplification = np.max(s[..., 0] ** 2 / np.where(np.isfinite(gap), gap, 1))
    tolerance = 1e-14 * amplification + (1e-11 if dtype == torch.float64 else 2e-6 + ROUNDING[dtype])
    scale = (
        np.abs(expected).max()
        if not options["normalize"]
        else np.abs(expected).max() + np.abs(g).max() / (truth.row_norms(full).min() * shape[-1] ** 0.5)
    )
    np.testing.assert_allclose(truth.to_numpy(actual), expected, rtol=0, atol=tolerance * scale)


def repeated(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Singular values 3, 3, 3, 2, 2, 1 in random directions."""
    left = np.linalg.qr(truth.to_numpy(truth.random(shape[0], 6, dtype=torch.float64)))[0]
    right = np.linalg.qr(truth.to_numpy(truth.random(shape[1], 6, dtype=torch.float64, seed=1)))[0]
    return truth.tensor(left * np.array([3.0, 3, 3, 2, 2, 1]) @ right.T).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(20, 6), (6, 20)], ids=str)
def test_repeated_singular_values_give_the_gradient_of_symmetric_functions(backend, shape, dtype):
    x = repeated(shape, dtype).requires_grad_()
    full = truth.to_numpy(x)
    u, s, vt = np.linalg.svd(full, full_matrices=False)
    for function, slope in (
        (lambda s: s.sum(), np.ones_like),
        (lambda s: (s**3).sum(), lambda s: 3 * s**2),
        (lambda s: s.square().sum().sqrt(), lambda s: s / np.sqrt((s**2).sum())),
        (lambda s: s.log().sum(), lambda s: 1 / s),
    ):
        (actual,) = torch.autograd.grad(function(svdvals(x)), x)
        expected = (u * slope(s)) @ vt
        tolerance = (1e-11 if dtype == torch.float64 else 2e-6) * np.abs(expected).max()
        np.testing.assert_allclose(truth.to_numpy(actual), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("matrix", ["identity", "repeated", "zero", "rank 1", "duplicates"])
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
def test_repeated_singular_values_give_finite_gradients_for_any_function(backend, matrix, dtype, options):
    x = {
        "identity": torch.eye(8, 6, dtype=dtype),
        "repeated": repeated((20, 6), dtype),
        "zero": torch.zeros(8, 6, dtype=dtype),
        "rank 1": torch.ones(8, 6, dtype=dtype),
        "duplicates": truth.random(4, 6, dtype=dtype).repeat(2, 1),
    }[matrix]
    for m in (x, x.mT):
        m = m.detach().requires_grad_()
        values = svdvals(m, **options)
        incoming = truth.random(*values.shape, dtype=values.dtype, seed=3)
        (dx,) = torch.autograd.grad(values, m, incoming)
        assert dx.isfinite().all()
        if not options["normalize"]:
            # U diag(g) V^T with any orthonormal U, V: no larger than the largest incoming gradient.
            assert np.linalg.norm(truth.to_numpy(dx), 2) <= incoming.abs().max().item() * (1 + 1e-5)


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_sum_of_singular_values_has_the_gradient_of_the_nuclear_norm(backend, dtype, options):
    x = truth.random(40, 24, dtype=dtype)
    a, b = gradient(svdvals, x, **options), gradient(nuclear_norm, x, **options)
    torch.testing.assert_close(a, b, rtol=0, atol=(1e-10 if dtype == torch.float64 else 4e-6) + 2 * ROUNDING[dtype])
