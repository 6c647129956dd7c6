"""BatchNorm over the rows of all processes: in a group of one it is the module that it was made of."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.parallel import Ranks, _synchronized


@pytest.fixture
def ranks():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    ranks = Ranks("cpu")
    ranks.group = dist.group.WORLD
    yield ranks
    dist.destroy_process_group()


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_values_gradients_and_statistics_are_those_of_the_module(ranks, kind, dtype, rounding):
    torch.manual_seed(0)
    plain = kind(3)
    nn.init.uniform_(plain.weight, 0.5, 2)
    nn.init.normal_(plain.bias)
    shared = copy.deepcopy(plain)
    ranks.share_network(nn.Sequential(shared))
    # Far from zero, where half precision cannot take the mean off.
    x = (20 + torch.randn(8, 3, 5, 5)).to(dtype)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    actual, expected = shared(ours), plain(theirs)
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=rounding, atol=rounding)
    direction = torch.randn_like(expected)
    actual.backward(direction)
    expected.backward(direction)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2 * rounding, atol=2 * rounding)
    assert shared.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, msg=name)
    assert shared.eval()(x).equal(plain.eval()(x))


def test_a_batch_norm_that_cannot_be_shared_on_a_cpu_is_refused(ranks):
    with pytest.raises(UserError, match="BatchNorm1d cannot be shared"):
        ranks.share_network(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))


def test_for_gpus_the_activations_inside_timms_batch_norm_are_kept():
    network = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    pictures = torch.randn(2, 3, 64, 64)
    before, names = network(pictures), list(network.state_dict())
    synchronized = _synchronized(network, None)
    assert any(isinstance(module, SyncBatchNormAct) for module in synchronized.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in synchronized.modules())
    assert list(synchronized.state_dict()) == names
    assert synchronized(pictures).equal(before)
