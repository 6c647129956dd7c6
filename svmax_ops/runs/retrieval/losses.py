"""The paper's four ranking losses, each with the batch and the lambda that go with it (section 4.1).

A run takes :func:`ranking_loss`, of raw activations. The formulas take embeddings ``[b, d]``, of unit length except for
the unnormalised N-pair, and labels ``[b]`` in groups of l equal ones, as samplers.py makes them; they return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.losses import AngularLoss, NPairsLoss
from torch import Tensor
from torch.nn import functional as F

from svmax_ops.runs.retrieval.config import LOSS_SETTINGS, RetrievalConfig

CONTRASTIVE_MARGIN = 1.0  # paper, section 4.1
TRIPLET_MARGIN = 0.2  # paper, section 4.1
ANGULAR_DEGREES = 45.0  # Wang et al., "Deep Metric Learning with Angular Loss" (2017)
_SMALLEST_SQUARE = 1e-12  # the slope of the root is infinite at zero, and NaN after the chain rule


def contrastive_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Paper, eq. 6, averaged over b/2 positive and b/2 negative pairs; every embedding is in one of each.

    Not pytorch-metric-learning's: its pair distance adds 1e-6 to each difference, which is not small at collapse.
    """
    same, different = pairs(labels)
    positive = _distance(embeddings, same)
    negative = _distance(embeddings, different)
    return torch.cat([positive, (CONTRASTIVE_MARGIN - negative).relu()]).mean()


def pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[b/2, 2]`` of positive pairs (within a class) and of negative ones (with the next class of the batch)."""
    l = int((labels == labels[0]).sum())  # noqa: E741 - the paper's letter
    rows = torch.arange(len(labels), device=labels.device).view(-1, 2, l // 2)  # [p, half of the class, l/2]
    same = rows.transpose(1, 2).reshape(-1, 2)
    different = torch.stack([rows[:, 0], rows[:, 1].roll(-1, 0)], -1).reshape(-1, 2)
    return same, different


def triplet_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Paper, eq. 5, averaged over the anchors, each with its farthest positive and its nearest negative.

    Not pytorch-metric-learning's: it expands the square, |x|^2 + |y|^2 - 2xy, and in float32 that cancels at collapse,
    which is where this loss spends its time without SVMax.
    """
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")  # slope 0 at 0
    same = labels[:, None] == labels
    hardest_positive = distances.masked_fill(~same, -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    return (hardest_positive - hardest_negative + TRIPLET_MARGIN).relu().mean()


def _distance(embeddings: Tensor, rows: Tensor) -> Tensor:
    difference = embeddings[rows[:, 0]] - embeddings[rows[:, 1]]
    return difference.square().sum(-1).clamp_min(_SMALLEST_SQUARE).sqrt()


class RankingLoss(NamedTuple):
    samples_per_class: int
    """l: pictures of a class in a batch."""
    svmax_weight: float
    """The paper's lambda for this loss."""
    formula: Callable[[Tensor, Tensor], Tensor]


LOSSES = {
    name: RankingLoss(*LOSS_SETTINGS[name], formula)
    for name, formula in {
        "contrastive": contrastive_loss,
        "triplet": triplet_loss,
        # Equal to the formulas of Sohn (2016) and Wang et al. (2017): tests/runs/test_losses.py.
        "npair": NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False)),
        "angular": AngularLoss(alpha=ANGULAR_DEGREES),
    }.items()
}


def ranking_loss(config: RetrievalConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of ``config``: a function of raw activations ``[b, d]`` and labels ``[b]`` that returns a scalar.

    It divides each row by its L2 norm first, as the paper does. With ``config.npair_l2`` it does not: N-pair is then
    that of Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective" (2016), which bounds the norms
    by a term of their own, here ``npair_l2`` times the mean squared norm of the b rows.
    """
    loss = LOSSES[config.loss].formula
    if config.npair_l2 is None:
        return lambda activations, labels: loss(F.normalize(activations), labels)
    return lambda activations, labels: loss(activations, labels) + config.npair_l2 * activations.square().sum(-1).mean()
