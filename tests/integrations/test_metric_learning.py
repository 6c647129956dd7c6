"""SVMaxRegularizer inside the losses of pytorch-metric-learning."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.losses import AngularLoss, ContrastiveLoss, TripletMarginLoss

from svmax_ops import svmax_loss
from svmax_ops.integrations.metric_learning import SVMaxRegularizer


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(24, 8, requires_grad=True), torch.arange(6).repeat(4)


@pytest.mark.parametrize("loss", [ContrastiveLoss, TripletMarginLoss, AngularLoss])
@pytest.mark.parametrize("options", [{}, {"bounded": False}, {"center": True}, {"normalize": False}], ids=str)
def test_adds_weight_times_svmax_loss(loss, options):
    embeddings, labels = batch()
    regularized = loss(embedding_regularizer=SVMaxRegularizer(**options), embedding_reg_weight=0.1)
    expected = loss()(embeddings, labels) + 0.1 * svmax_loss(embeddings, **options)
    actual = regularized(embeddings, labels)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, embeddings)[0] for value in (actual, expected)))


def test_regularizes_where_the_ranking_loss_has_nothing_to_say():
    embeddings = torch.ones(6, 4) + torch.arange(6.0)[:, None] * torch.eye(6, 4) * 1e-3
    embeddings.requires_grad_()
    labels = torch.zeros(6, dtype=torch.long)  # one class: no negative pair, and no triplet
    loss = TripletMarginLoss(embedding_regularizer=SVMaxRegularizer())(embeddings, labels)
    torch.testing.assert_close(loss, svmax_loss(embeddings))
    loss.backward()
    assert embeddings.grad.abs().sum() > 0


def test_refuses_one_embedding_by_its_own_name():
    with pytest.raises(ValueError, match=r"SVMaxRegularizer: embeddings must be .* got \[1, 8\]"):
        SVMaxRegularizer()(torch.randn(1, 8))


def test_names_the_extra_when_the_library_is_missing(import_without):
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'svmax-ops\[metric-learning\]'"):
        import_without("pytorch_metric_learning", "svmax_ops.integrations.metric_learning")
