"""W comes with its precision, and the backward takes its products in float32 where that says so, and nowhere else."""

from __future__ import annotations

import ctypes
import json

import pytest
import torch

from tests import truth
from tests.host import library

OPTIONS = {"normalize": True, "center": False}


@pytest.fixture(scope="module")
def host() -> ctypes.CDLL:
    host = library.load()
    host.svmax_host_report.restype = ctypes.c_char_p
    return host


def float32_products(host: ctypes.CDLL, x: torch.Tensor, in_float32: bool, center: bool) -> int:
    """How many multiply-adds of float32 the backward of this W takes."""
    options = {**OPTIONS, "center": center}
    n = min(x.shape)
    weight = torch.eye(n, dtype=torch.float64)
    norms = x.double().norm(dim=-1)
    host.svmax_host_reset()
    try:
        with torch.inference_mode():  # the kernel alone
            grad, precision = torch.ones(()), torch.tensor([in_float32])
            torch.ops.svmax_host.backward(grad, x, weight, precision, norms, objective="nuclear_norm", **options)
        launches = json.loads(host.svmax_host_report().decode())
    finally:
        host.svmax_host_reset()
        host.svmax_host_count(False)
    (counted,) = [launch["total"]["f32"]["fma"] for launch in launches if "backward_kernel" in launch["kernel"]]
    return counted


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)], ids=["tall", "wide"])
def test_the_backward_multiplies_in_float32_where_the_precision_of_w_says_so(host, shape):
    x = truth.random(*shape)
    assert float32_products(host, x, True, center=False) > 0
    assert float32_products(host, x, False, center=False) == 0


def test_products_stay_in_float64_where_the_mean_row_of_w_is_taken_off(host):
    assert float32_products(host, truth.random(24, 40), True, center=True) == 0
    assert float32_products(host, truth.random(40, 24), True, center=True) > 0


def test_products_of_float64_input_stay_in_float64(host):
    assert float32_products(host, truth.random(40, 24).double(), True, center=False) == 0


def test_the_precision_of_w_follows_the_spread_of_the_singular_values(host):
    """Even spectra let float32 do, steep ones do not; W of a zero matrix is zero, and NaN has no digits."""
    x = truth.random(6, 40, 24)
    x[1] *= 0.5 ** torch.arange(24)
    x[2] = 1 + 1e-3 * x[2]
    x[3] = 0
    x[4, 0, 0] = torch.nan
    x[5] *= 1e-20  # float32 has no room for W
    with torch.inference_mode():
        outputs = torch.ops.svmax_host.objective(
            x.clone(), objective="nuclear_norm", normalize=False, center=False, need_gradient=True
        )
    _, weight, in_float32, _ = outputs
    assert in_float32.tolist() == [[True], [False], [False], [True], [False], [False]]
    even = weight[0]
    assert torch.equal(even.float().double(), even)
    assert not torch.equal(weight[1].float().double(), weight[1])


def test_products_of_large_matrices_promise_nothing(host):
    x = truth.random(200, 196)
    with torch.inference_mode():
        gram, _ = torch.ops.svmax_host.gram(x.clone(), **OPTIONS)
        stage = torch.ops.svmax_host.spectral(gram, need_inverse_sqrt=True)
        fused = torch.ops.svmax_host.objective(x.clone(), objective="nuclear_norm", **OPTIONS, need_gradient=True)
    assert stage[2].tolist() == fused[2].tolist() == [False]


def test_there_is_no_precision_where_no_w_was_asked_for(host):
    x = truth.random(3, 8, 6)
    with torch.inference_mode():
        gram, _ = torch.ops.svmax_host.gram(x.clone(), **OPTIONS)
        stage = torch.ops.svmax_host.spectral(gram, need_inverse_sqrt=False)
        fused = torch.ops.svmax_host.objective(x.clone(), objective="nuclear_norm", **OPTIONS)
    for result in (stage[2], fused[2]):
        assert (result.shape, result.dtype) == ((3, 0), torch.bool)
