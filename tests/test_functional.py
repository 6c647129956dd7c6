"""Values of the public functions against a float64 SVD, on every spectrum, shape, dtype and layout of the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svmax_ops import mean_singular_value, nuclear_norm, singular_value_bounds, svdvals, svmax_loss
from tests import truth

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 2), (144, 64), (64, 144), (96, 96), (32, 16), (4096, 64), (3, 5, 32, 16)]
LARGE = [(288, 256), (300, 512), (512, 512), (16, 1024)]


def assert_nuclear_norm(actual: torch.Tensor, x: torch.Tensor, normalize: bool = False, center: bool = False) -> None:
    """Against the SVD of the same rounded numbers; the dtype of the result is part of the contract."""
    assert actual.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    full = truth.to_numpy(x)
    expected = truth.value(full, "nuclear_norm", normalize, center)
    tolerance = truth.NUCLEAR_RTOL[x.dtype] * expected
    if center:  # taking the mean off cancels: the float64 rounding of what it is taken off stays, here and in the truth
        floor = 1e-12 if x.dtype == torch.float64 else 1e-14
        tolerance = np.maximum(tolerance, floor * truth.value(full, "nuclear_norm", normalize))
    error = np.abs(truth.to_numpy(actual) - expected)
    assert actual.shape == expected.shape
    assert (error <= tolerance).all(), f"relative error {np.max(error / expected):.1e}"


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.kinds
def test_nuclear_norm_of_every_shape(backend, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    actual = nuclear_norm(x, **options)
    if options["center"] and shape[-2] == 1:  # one row minus its mean
        assert actual.item() == 0
    else:
        assert_nuclear_norm(actual, x, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_nuclear_norm_of_large_matrices(backend, shape, dtype):
    x = truth.random(*shape, dtype=dtype)
    assert_nuclear_norm(nuclear_norm(x), x)
    assert_nuclear_norm(nuclear_norm(x, normalize=True, center=True), x, normalize=True, center=True)


@pytest.mark.parametrize("transpose", [False, True], ids=["as given", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", truth.spectra())
def test_nuclear_norm_of_every_spectrum(backend, name, dtype, transpose):
    e = truth.tensor(truth.embedding(truth.spectra()[name], normalize=True)).to(torch.float32).to(dtype)
    e = e.mT if transpose else e
    assert_nuclear_norm(nuclear_norm(e), e)


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("name", truth.spectra())
def test_nuclear_norm_of_every_spectrum_through_normalisation(backend, name, dtype, center):
    x = truth.tensor(truth.spectra()[name]).to(dtype)
    if center and name == "rank 1":  # equal rows: the centred matrix is rounding alone
        assert nuclear_norm(x, normalize=True, center=True) < 1e-6 * nuclear_norm(x, normalize=True)
    else:
        assert_nuclear_norm(nuclear_norm(x, normalize=True, center=center), x, normalize=True, center=center)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
def test_a_whole_matrix_may_be_tiny_or_huge(backend, dtype, scale, options):
    x = (truth.random(40, 24, dtype=torch.float64) * scale).to(dtype)
    assert_nuclear_norm(nuclear_norm(x, **options), x, **options)
    expected = np.linalg.svd(truth.to_numpy(x), compute_uv=False)
    np.testing.assert_allclose(truth.to_numpy(svdvals(x)), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_from_1e_minus_20_to_1e20_are_ordinary_rows(backend, dtype, center):
    scales = torch.logspace(-20, 20, 48, dtype=torch.float64)[:, None]
    x = (truth.random(48, 24, dtype=torch.float64) * scales).to(dtype)
    assert_nuclear_norm(nuclear_norm(x, normalize=True, center=center), x, normalize=True, center=center)
    assert_nuclear_norm(nuclear_norm(x, center=center), x, center=center)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_subnormal_rows_are_ordinary_rows(backend, dtype):
    # The largest subnormals keep enough bits to say where a row points.
    x = (truth.random(24, 12, dtype=torch.float64) * 0.2 * torch.finfo(dtype).tiny).to(dtype)
    if dtype == torch.float64:
        x[1:] = truth.random(23, 12, dtype=dtype)  # and beside ordinary rows
    assert_nuclear_norm(nuclear_norm(x, normalize=True), x, normalize=True)


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_duplicate_and_zero_rows(backend, dtype, options):
    x = truth.random(40, 24, dtype=dtype)
    x[20:] = x[:20]
    x[::3] = 0
    assert_nuclear_norm(nuclear_norm(x, **options), x, **options)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3)], ids=str)
def test_a_zero_matrix_is_zero(backend, shape, dtype):
    x = torch.zeros(shape, dtype=dtype)
    for options in truth.OPTIONS.values():
        assert torch.equal(nuclear_norm(x, **options), torch.zeros(shape[:-2], dtype=svdvals(x).dtype))
        assert torch.equal(svdvals(x, **options), torch.zeros(*shape[:-2], min(shape[-2:]), dtype=svdvals(x).dtype))
    # s_mu = 0 lies below L: the loss is what the formula says there.
    expected = truth.value(truth.to_numpy(x), "svmax_loss", True)
    np.testing.assert_allclose(truth.to_numpy(svmax_loss(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 6, 4), (3, 0, 4, 6)], ids=str)
def test_an_empty_batch_gives_an_empty_result(backend, shape, dtype):
    x = torch.zeros(shape, dtype=dtype, requires_grad=True)
    for function in (svmax_loss, mean_singular_value, nuclear_norm):
        result = function(x)
        assert result.shape == shape[:-2]
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert gradient.shape == shape
    values = svdvals(x)
    assert values.shape == (*shape[:-2], 4)
    assert torch.autograd.grad(values.sum(), x)[0].shape == shape


LAYOUTS = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second row and column": lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., ::2, ::2],
    "a slice of a wider matrix": lambda x: torch.cat([x, x + 1], -1)[..., : x.shape[-1]],
    "batch dimensions swapped": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "offset into its storage": lambda x: torch.cat([x[:1] + 1, x])[1:],
    "odd offset": lambda x: torch.cat([x.new_ones(1), x.flatten()])[1:].view(x.shape),
}


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", [svmax_loss, nuclear_norm, svdvals], ids=lambda f: f.__name__)
def test_any_strides(backend, function, layout, dtype):
    x = truth.random(3, 2, 20, 12, dtype=dtype)
    view = LAYOUTS[layout](x)
    assert torch.equal(view, x)
    a, b = x.clone().requires_grad_(), view.detach().requires_grad_()
    expected, actual = function(a), function(b)
    torch.testing.assert_close(actual, expected, rtol=3e-7, atol=0)
    grads = torch.autograd.grad(expected.sum(), a) + torch.autograd.grad(actual.sum(), b)
    torch.testing.assert_close(grads[1], grads[0], rtol=2e-2 if dtype in truth.HALF else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_expanded_views(backend, dtype):
    matrix = truth.random(20, 12, dtype=dtype)
    torch.testing.assert_close(svmax_loss(matrix.expand(3, 2, 20, 12)), svmax_loss(matrix).expand(3, 2))
    row = truth.random(1, 12, dtype=dtype)  # all rows the same memory: collapse
    assert_nuclear_norm(nuclear_norm(row.expand(20, 12)), row.expand(20, 12))
    column = truth.random(20, 1, dtype=dtype)
    assert_nuclear_norm(nuclear_norm(column.expand(20, 12)), column.expand(20, 12))


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(144, 64), (24, 40), (2, 2), (3, 5, 32, 16)], ids=str)
def test_losses_follow_equations_1_and_4(backend, shape, dtype, center):
    x = truth.random(*shape, dtype=dtype)
    full = truth.to_numpy(x)
    # N is good to 2e-7, and the exponent multiplies its relative error by N / (d (U - L)).
    lower, upper = truth.bounds(*shape[-2:], center)
    amplified = np.max(truth.value(full, "mean_singular_value", True, center)) / (upper - lower)
    rtol = truth.NUCLEAR_RTOL[dtype]
    for actual, objective, tolerance in (
        (svmax_loss(x, center=center), "svmax_loss", rtol * (1 + amplified)),
        (svmax_loss(x, bounded=False, center=center), "svmax_loss_unbounded", rtol),
        (mean_singular_value(x, center=center), "mean_singular_value", rtol),
    ):
        np.testing.assert_allclose(truth.to_numpy(actual), truth.value(full, objective, True, center), rtol=tolerance)
    # Without normalisation the numbers are taken as they are.
    actual = mean_singular_value(x, normalize=False, center=center)
    expected = truth.value(full, "mean_singular_value", False, center)
    np.testing.assert_allclose(truth.to_numpy(actual), expected, rtol=rtol)


@pytest.mark.parametrize("shape", [(12, 1), (2, 1)], ids=str)
def test_one_dimension_has_a_centered_loss(backend, shape):
    x = truth.random(*shape, dtype=torch.float64)
    expected = truth.value(truth.to_numpy(x), "svmax_loss", True, True)
    np.testing.assert_allclose(svmax_loss(x, center=True).item(), expected, rtol=1e-12)


@pytest.mark.parametrize(("b", "d"), [(144, 64), (64, 144), (2, 2), (3, 200)])
@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
def test_bounds_are_reached_by_extremal_matrices(backend, b, d, center):
    lower, upper = singular_value_bounds(b, d, center=center)
    assert (lower, upper) == pytest.approx(truth.bounds(b, d, center), rel=1e-15)
    collapsed = torch.full((b, d), 0.5)
    assert mean_singular_value(collapsed, center=center).item() == pytest.approx(lower, rel=1e-6, abs=1e-7)
    # Rows of norm one whose singular values are all equal: repeated basis vectors, or rows of an orthonormal matrix;
    # centred: the corners of a regular simplex, which needs b - 1 <= d, or +-basis vectors, which need b = 2d k.
    if not center:
        spread = torch.eye(min(b, d), d).repeat(b // min(b, d), 1)
        spread = spread if len(spread) == b else None
    elif b - 1 <= d:
        spread = torch.eye(b) - 1 / b
        spread = torch.linalg.svd(spread)[0][:, : b - 1] if b > 2 else torch.tensor([[1.0], [-1.0]])
        spread = torch.nn.functional.pad(spread, (0, d - b + 1))
    else:
        spread = torch.cat([torch.eye(d), -torch.eye(d)]).repeat(b // (2 * d), 1)
        spread = spread if len(spread) == b else None
    if spread is not None:
        assert mean_singular_value(spread, center=center).item() == pytest.approx(upper, rel=1e-6)
        assert svmax_loss(spread, center=center).item() == pytest.approx(1, rel=2e-6)
    assert svmax_loss(collapsed, center=center).item() == pytest.approx(np.e, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize(("b", "d"), [(5, 2), (40, 60), (128, 64)])
def test_bounds_hold_for_random_matrices(backend, b, d, center, seed):
    lower, upper = singular_value_bounds(b, d, center=center)
    noise = truth.random(8, b, d, seed=seed)
    x = truth.random(8, 1, d, seed=seed + 100) + torch.logspace(-6, 2, 8)[:, None, None] * noise
    means = mean_singular_value(x, center=center)
    assert (means >= lower * (1 - 1e-6)).all()
    assert (means <= upper * (1 + 1e-6)).all()
    losses = svmax_loss(x, center=center)
    assert (losses >= 1 - 1e-5).all()
    assert (losses <= np.e * (1 + 1e-5)).all()


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (144, 64), (64, 144), (300, 256), (3, 5, 32, 16)], ids=str)
@pytest.mark.kinds
def test_singular_values_of_every_shape(backend, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    e = truth.embedding(truth.to_numpy(x), **options)
    expected = np.linalg.svd(e, compute_uv=False)
    actual = truth.to_numpy(svdvals(x, **options))
    assert actual.shape == expected.shape
    assert (np.diff(actual, axis=-1) <= 0).all(), "descending"
    # sqrt of an eigenvalue of G: its error eps s_1^2 is sqrt(eps) s_1 where s is zero (centred b <= d has such an s).
    largest = np.linalg.norm(truth.embedding(truth.to_numpy(x), options["normalize"]), 2, axis=(-2, -1), keepdims=True)
    absolute, relative = (1e-14, 1e-12) if dtype == torch.float64 else (1e-7, 1.2e-7)
    assert (np.abs(actual - expected) <= absolute * largest[..., 0] + relative * expected).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", truth.spectra())
def test_singular_values_of_every_spectrum(backend, name, dtype):
    x = truth.tensor(truth.embedding(truth.spectra()[name], normalize=True)).to(torch.float32).to(dtype)
    expected = np.linalg.svd(truth.to_numpy(x), compute_uv=False)
    error = np.abs(truth.to_numpy(svdvals(x)) - expected)
    assert error.max() <= (1e-14 if dtype == torch.float64 else 1e-7) * expected[0] + 1e-7 * (dtype != torch.float64)
    assert svdvals(x).sum().item() == pytest.approx(expected.sum(), rel=1e-12 if dtype == torch.float64 else 3e-7)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("where", [(0, 0), (-1, -1)], ids=["first", "last"])
@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=str)
@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("function", [nuclear_norm, svmax_loss, mean_singular_value, svdvals], ids=lambda f: f.__name__)
def test_a_nan_or_inf_makes_its_own_matrix_nan_and_no_other(backend, function, options, shape, where, dtype, poison):
    clean = truth.random(3, *shape, dtype=dtype)
    dirty = clean.clone()
    dirty[(1, *where)] = poison
    others = [0, 2]
    x, y = clean.clone().requires_grad_(), dirty.clone().requires_grad_()
    expected, actual = function(x, **options), function(y, **options)
    assert actual[1].isnan().all()
    assert torch.equal(actual[others], expected[others])
    (dx,), (dy,) = torch.autograd.grad(expected.sum(), x), torch.autograd.grad(actual[others].sum(), y)
    assert torch.equal(dx[others], dy[others])
    (dy,) = torch.autograd.grad(function(y, **options).sum(), y)
    assert dy[1].isnan().all()
    assert torch.equal(dx[others], dy[others])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(144, 128), (64, 128), (300, 256), (16, 40, 24)], ids=str)
def test_bitwise_repeatable_whatever_the_number_of_threads(backend, shape, dtype, two_threads):
    x = truth.random(*shape, dtype=dtype).requires_grad_()

    def everything() -> list[torch.Tensor]:
        results = [svmax_loss(x), nuclear_norm(x, center=True), svdvals(x)]
        return results + [torch.autograd.grad(r.sum(), x)[0] for r in results]

    first = everything()
    assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))
    if backend == "cpu" and dtype == torch.float32:  # the others are torch.linalg's, whose threads it does not promise
        torch.set_num_threads(1)
        assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))


def test_a_matrix_of_a_batch_gives_what_it_gives_alone(backend):
    x = truth.random(9, 40, 24)
    together = svmax_loss(x)
    torch.testing.assert_close(together, torch.stack([svmax_loss(m) for m in x]), rtol=3e-7, atol=0)
