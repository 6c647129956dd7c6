"""More matrices than one launch takes: csrc/cuda/stages.h works through them in groups."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from tests import truth
from tests.host import library

OPTIONS = {"objective": "nuclear_norm", "normalize": False, "center": False}
MOST = 32768
"""As many matrices as a group has: kMostMatrices there, which the number of launches gives away here."""


def test_a_batch_of_more_matrices_than_one_launch_takes():
    host = library.load()
    host.svmax_host_launched.restype = ctypes.c_int64

    def objective_and_gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """With the number of launches."""
        before = host.svmax_host_launched()
        value, weight, norms = torch.ops.svmax_host.objective(x, **OPTIONS, need_gradient=True)
        dx = torch.ops.svmax_host.backward(torch.ones_like(value), x, weight, norms, **OPTIONS)
        return value, dx, host.svmax_host_launched() - before

    x = truth.random(MOST + 3, 2, 1)
    host.svmax_host_count(False)
    try:
        *_, launches_of_a_group = objective_and_gradient(x[:3])
        value, dx, launches = objective_and_gradient(x)
    finally:
        host.svmax_host_count(True)
    assert launches == 2 * launches_of_a_group
    full = truth.to_numpy(x)
    np.testing.assert_allclose(truth.to_numpy(value), truth.value(full, "nuclear_norm"), rtol=2e-7)
    np.testing.assert_allclose(truth.to_numpy(dx), truth.polar_factor(full), rtol=0, atol=2e-6)
