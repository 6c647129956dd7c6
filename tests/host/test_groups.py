"""More matrices than one launch takes: csrc/cuda/launch_plans.h works through them in groups."""

from __future__ import annotations

import numpy as np
import torch

from tests import truth
from tests.host import library

OPTIONS = {"objective": "nuclear_norm", "normalize": False, "center": False}


def test_a_batch_of_more_matrices_than_one_launch_takes():
    host = library.load()
    host.svmax_host_count(False)
    x = truth.random(host.svmax_host_most_matrices() + 3, 2, 1)
    try:
        value, *kept = torch.ops.svmax_host.objective(x, **OPTIONS, need_gradient=True)
        dx = torch.ops.svmax_host.backward(torch.ones_like(value), x, *kept, **OPTIONS)
    finally:
        host.svmax_host_count(True)
    full = truth.to_numpy(x)
    np.testing.assert_allclose(truth.to_numpy(value), truth.value(full, "nuclear_norm"), rtol=2e-7)
    np.testing.assert_allclose(truth.to_numpy(dx), truth.polar_factor(full), rtol=0, atol=2e-6)
