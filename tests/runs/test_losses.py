"""The ranking losses and the spread-out regularizer against their formulas, written out in plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor
from torch.nn import functional as F

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.losses import LOSSES, pairs, ranking_loss, triplet_loss
from svmax_ops.runs.retrieval.regularizers import random_negatives, spread_out_loss


def batch(loss: str, noise: float = 1.0, p: int = 12, d: int = 16) -> tuple[Tensor, Tensor]:
    """Unit-length float64 embeddings: ``noise`` about one direction."""
    l = LOSSES[loss].samples_per_class  # noqa: E741
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(d, generator=generator, dtype=torch.float64) if noise < 1 else torch.zeros(d).double()
    x = direction + noise * torch.randn(p * l, d, generator=generator, dtype=torch.float64)
    return F.normalize(x), torch.arange(p).repeat_interleave(l)


def test_contrastive_is_equation_6():
    x, y = batch("contrastive")
    positive = [(a, a + 2) for k in range(12) for a in (4 * k, 4 * k + 1)]
    negative = [(a, (4 * k + 6 + a % 4) % 48) for k in range(12) for a in (4 * k, 4 * k + 1)]
    terms = [math.dist(x[a].tolist(), x[b].tolist()) for a, b in positive]
    terms += [max(0.0, 1 - math.dist(x[a].tolist(), x[b].tolist())) for a, b in negative]
    assert LOSSES["contrastive"].formula(x, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


@pytest.mark.parametrize(("p", "l"), [(36, 4), (3, 6), (2, 2)])
def test_every_embedding_is_in_one_positive_and_one_negative_pair(p: int, l: int):  # noqa: E741
    labels = torch.randperm(p).repeat_interleave(l)
    same, different = pairs(labels)
    assert (labels[same[:, 0]] == labels[same[:, 1]]).all()
    assert (labels[different[:, 0]] != labels[different[:, 1]]).all()
    for rows in (same, different):
        assert rows.shape == (p * l // 2, 2)
        assert rows.flatten().sort().values.tolist() == list(range(p * l))


def test_triplet_is_equation_5_on_the_hardest_pairs():
    x, y = batch("triplet")
    distance = [[math.dist(a, b) for b in x.tolist()] for a in x.tolist()]
    terms = []
    for a in range(len(y)):
        farthest_positive = max(distance[a][b] for b in range(len(y)) if b != a and y[b] == y[a])
        nearest_negative = min(distance[a][b] for b in range(len(y)) if y[b] != y[a])
        terms.append(max(0.0, farthest_positive - nearest_negative + 0.2))
    assert triplet_loss(x, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


@pytest.mark.parametrize(("noise", "library_error_from", "library_error_to"), [(1.0, 0, 1e-4), (1e-4, 0.1, 10)])
def test_triplet_keeps_its_accuracy_at_collapse_where_the_library_loses_it(noise, library_error_from, library_error_to):
    x, y = batch("triplet", noise)
    library = TripletMarginLoss(margin=0.2, reducer=MeanReducer(), distance=LpDistance(normalize_embeddings=False))
    hardest = BatchHardMiner(distance=LpDistance(normalize_embeddings=False))

    def gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        loss(x).backward()
        return x.grad.double()

    exact = gradient(lambda z: triplet_loss(z, y), x.float().double())
    ours = gradient(lambda z: triplet_loss(z, y), x.float())
    theirs = gradient(lambda z: library(z, y, hardest(z, y)), x.float())
    assert (ours - exact).norm() < 1e-5 * exact.norm()
    assert library_error_from <= (theirs - exact).norm() / exact.norm() < library_error_to


def test_npair_of_the_library_is_the_formula():
    x, y = batch("npair")
    terms = []
    for a in range(0, len(y), 2):
        similarity = [(x[a] @ x[n]).item() for n in range(1, len(y), 2)]
        own = (x[a] @ x[a + 1]).item()
        terms.append(math.log(sum(math.exp(s - own) for s in similarity)))  # the positive itself gives the 1
    assert LOSSES["npair"].formula(x, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def sohn(anchors: np.ndarray, positives: np.ndarray, l2: float) -> float:
    """Sohn (2016): mean over i of log(1 + sum over j != i of exp(a_i.p_j - a_i.p_i)), and the L2 term."""
    total = 0.0
    for i, anchor in enumerate(anchors):
        negatives = np.delete(positives, i, axis=0)
        total += np.log1p(np.exp(negatives @ anchor - positives[i] @ anchor).sum())
    rows = np.concatenate([anchors, positives])
    return total / len(anchors) + l2 * np.square(rows).sum(1).mean()


@pytest.mark.parametrize("l2", [0.0, 0.02, 0.5])
def test_npair_with_an_l2_term_is_sohns_on_raw_activations(l2: float):
    x, y = batch("npair")
    x = x * torch.linspace(0.5, 3, len(x), dtype=x.dtype)[:, None]  # norms that count
    actual = ranking_loss(RetrievalConfig(loss="npair", npair_l2=l2))(x, y).item()
    assert actual == pytest.approx(sohn(x[0::2].numpy(), x[1::2].numpy(), l2), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_on_the_unit_circle_where_nothing_else_is_asked_for(loss: str):
    x, y = batch(loss)
    norms = torch.linspace(1e-3, 1e3, len(x), dtype=x.dtype)[:, None]
    actual = ranking_loss(RetrievalConfig(loss=loss))(x * norms, y).item()
    assert actual == pytest.approx(LOSSES[loss].formula(x, y).item(), rel=1e-6)


def test_angular_of_the_library_is_the_formula():
    x, y = batch("angular")
    tangent_squared = math.tan(math.radians(45)) ** 2
    terms = []
    for a in range(len(y)):
        p = a ^ 1
        total = 1.0
        for n in range(len(y)):
            if y[n] != y[a]:
                cross = 4 * tangent_squared * ((x[a] + x[p]) @ x[n]).item()
                total += math.exp(cross - 2 * (1 + tangent_squared) * (x[a] @ x[p]).item())
        terms.append(math.log(total))
    assert LOSSES["angular"].formula(x, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_finite_at_exact_collapse(loss: str):
    x, y = batch(loss)
    x = x[:1].float().repeat(len(y), 1).requires_grad_()
    LOSSES[loss].formula(x, y).backward()
    assert x.grad.isfinite().all()


def test_batches_and_lambdas_are_the_papers():
    settings = {name: (144 // loss.samples_per_class, loss.svmax_weight) for name, loss in LOSSES.items()}
    assert settings == {"contrastive": (36, 1.0), "triplet": (24, 0.1), "npair": (72, 1.0), "angular": (72, 2.0)}


def test_spread_out_is_its_formula():
    x, y = batch("contrastive", noise=0.5)
    negatives = random_negatives(y, torch.Generator().manual_seed(0))
    inner = [(x[a] @ x[n]).item() for a, n in enumerate(negatives.tolist())]
    first, second = sum(inner) / 48, sum(s * s for s in inner) / 48
    assert second > 1 / 16  # both terms count
    expected = first**2 + max(0.0, second - 1 / 16)
    assert spread_out_loss(x, negatives).item() == pytest.approx(expected, rel=1e-12)


def test_random_negatives_are_of_other_classes_and_reach_all_of_them():
    labels = torch.arange(4).repeat_interleave(3)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_negatives(labels, generator) for _ in range(300)])
    assert (labels[drawn] != labels).all()
    assert all(len(set(drawn[:, a].tolist())) == 9 for a in range(12))
