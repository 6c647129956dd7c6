"""Telemetry against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svmax_ops import Spectrum, spectrum
from tests import truth


def spread(x: np.ndarray, normalize: bool, center: bool) -> np.ndarray:
    """API.md's formula, which holds for every matrix."""
    b, d = x.shape[-2:]
    s = np.linalg.svd(truth.embedding(x, normalize, center), compute_uv=False)
    size = np.linalg.norm(truth.embedding(x, normalize), axis=(-2, -1))
    if center:
        return s.sum(-1) / size / np.sqrt(min(b - 1, d))
    return (s.sum(-1) / size - 1) / (np.sqrt(min(b, d)) - 1)


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (2, 2), (2, 3, 30, 12)], ids=str)
def test_every_field(backend, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    report = spectrum(x, **options)
    s = np.linalg.svd(truth.embedding(truth.to_numpy(x), **options), compute_uv=False)
    lower, upper = truth.bounds(*shape[-2:], options["center"])
    share = s / s.sum(-1, keepdims=True)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0).sum(-1)
    expected = {
        "singular_values": s,
        "mean": s.sum(-1) / shape[-1],
        "lower": lower,
        "upper": upper,
        "spread": spread(truth.to_numpy(x), **options),
        "effective_rank": np.exp(entropy),
    }
    largest = np.linalg.norm(truth.embedding(truth.to_numpy(x), options["normalize"]), 2, axis=(-2, -1)).max()
    for field, value in expected.items():
        actual = getattr(report, field)
        actual = truth.to_numpy(actual) if isinstance(actual, torch.Tensor) else actual
        # A zero singular value (centred b <= d) comes out as up to 1e-7 of the largest; effective rank feels its log.
        tolerance = 2e-5 if field == "effective_rank" else 1e-6 * max(largest, 1)
        np.testing.assert_allclose(actual, value, rtol=2e-6, atol=tolerance * shape[-1] ** 0.5, err_msg=field)
    if not (options["center"] and shape[-2] <= shape[-1]):
        np.testing.assert_allclose(truth.to_numpy(report.condition), s[..., 0] / s[..., -1], rtol=1e-4)


@pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)
def test_dtypes_shapes_and_no_gradient(backend, dtype):
    x = truth.random(3, 20, 12, dtype=dtype).requires_grad_()
    report = spectrum(x)
    assert isinstance(report, Spectrum)
    assert isinstance(report.lower, float)
    assert isinstance(report.upper, float)
    assert report.singular_values.shape == (3, 12)
    for field in (report.singular_values, report.mean, report.spread, report.effective_rank, report.condition):
        assert field.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert not field.requires_grad
        assert field.shape[0] == 3


def test_spread_and_effective_rank_at_the_extremes(backend):
    even = spectrum(torch.eye(8).repeat(4, 1))
    assert even.spread.item() == pytest.approx(1, abs=1e-6)
    assert even.effective_rank.item() == pytest.approx(8, rel=1e-6)
    assert even.condition.item() == pytest.approx(1, rel=1e-6)
    collapsed = spectrum(torch.ones(32, 8))
    assert collapsed.spread.item() == pytest.approx(0, abs=1e-6)
    assert collapsed.effective_rank.item() == pytest.approx(1, abs=1e-5)
    assert collapsed.condition.item() > 1e6
    zero = spectrum(torch.zeros(32, 8))
    assert zero.spread.item() == 0
    assert zero.effective_rank.item() == 0
    assert zero.mean.item() == 0


@pytest.mark.parametrize("center", [False, True], ids=["plain", "centered"])
def test_spread_of_unit_rows_is_where_the_mean_lies_between_its_bounds(backend, center):
    for noise in (10, 1e-1, 1e-3):
        x = truth.random(1, 12) + noise * truth.random(20, 12, seed=1)
        report = spectrum(x, center=center)
        expected = (report.mean.item() - report.lower) / (report.upper - report.lower)
        assert report.spread.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_spread_knows_neither_zero_rows_nor_the_scale(backend, dtype, options):
    x = truth.random(24, 16, dtype=dtype)
    one_direction = torch.ones(24, 16, dtype=dtype)
    one_direction[6:] = 0
    matrices = {"random": x, "twelve rows": x.clone(), "one direction": one_direction, "one row": x.clone()}
    matrices["twelve rows"][::2] = 0
    matrices["one row"][1:] = 0
    for name, matrix in matrices.items():
        expected = spread(truth.to_numpy(matrix), **options)
        for scale in (1, 48.0, 1e-30, 1e30) + ((1e-200, 1e200) if dtype == torch.float64 else ()):
            actual = spectrum(matrix * scale, **options).spread.item()
            assert 0 <= actual <= 1
            assert actual == pytest.approx(expected, abs=2e-6), (name, scale)


def test_a_nan_is_reported_not_hidden(backend):
    x = truth.random(2, 20, 12)
    x[1, 0, 0] = float("nan")
    report = spectrum(x)
    for field in (report.singular_values, report.mean, report.spread, report.effective_rank, report.condition):
        assert field[0].isfinite().all()
        assert field[1].isnan().all()


def test_condition_of_a_zero_matrix_is_infinite(backend):
    assert spectrum(torch.zeros(4, 3)).condition == float("inf")
