"""SVMaxLoss."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from svmax_ops import SVMaxLoss, svmax_loss
from svmax_ops.backends import triton_library
from tests import truth

OPTIONS = [
    {},
    {"weight": 0.1},
    {"bounded": False},
    {"normalize": False},
    {"center": True},
    {"weight": 2.0, "bounded": False, "normalize": False, "center": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_module_is_weight_times_the_function(backend, options):
    x = truth.random(20, 12)
    arguments = {k: v for k, v in options.items() if k != "weight"}
    assert torch.equal(SVMaxLoss(**options)(x), options.get("weight", 1.0) * svmax_loss(x, **arguments))


def test_module_averages_over_batch_dimensions(backend):
    x = truth.random(2, 3, 20, 12)
    loss = SVMaxLoss(0.5)(x)
    assert loss.shape == ()
    torch.testing.assert_close(loss, 0.5 * svmax_loss(x).mean())


def test_module_has_no_state():
    module = SVMaxLoss()
    assert not list(module.parameters())
    assert not list(module.buffers())
    assert not module.state_dict()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_deepcopy_and_pickle(backend, options):
    module, x = SVMaxLoss(**options), truth.random(20, 12)
    expected = module(x)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)


def test_repr_says_how_it_is_configured():
    assert repr(SVMaxLoss(0.1)) == "SVMaxLoss(weight=0.1, bounded=True, normalize=True, center=False)"
    assert "center=True" in repr(SVMaxLoss(center=True))


@pytest.mark.leave_out(
    lambda of: of["backend"] == "triton" and triton_library.INTERPRETED, "400 steps take Triton's interpreter minutes"
)
def test_module_trains(backend):
    """The one-line use: gradient descent on the loss alone spreads collapsed embeddings evenly."""
    x = torch.nn.Parameter(truth.random(1, 8) + 1e-3 * truth.random(24, 8, seed=1))
    criterion, optimizer = SVMaxLoss(), torch.optim.SGD([x], lr=5.0)
    losses = []
    for _ in range(400):
        optimizer.zero_grad()
        loss = criterion(x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.7
    assert losses[-1] < 1.01
