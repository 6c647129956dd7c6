"""The measures against brute force and against cases whose answer is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from svmax_ops import spectrum
from svmax_ops.runs.retrieval import evaluation
from svmax_ops.runs.retrieval.data.pictures import GreyPictures
from svmax_ops.runs.retrieval.embedding import embed
from svmax_ops.runs.retrieval.models import SmallNetwork


@pytest.fixture
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    """Ten overlapping classes of eight."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(8)
    centres = torch.randn(10, 6, generator=generator)
    return F.normalize(centres[labels] + 0.9 * torch.randn(80, 6, generator=generator)), labels


def test_recalls_match_brute_force(clouds, monkeypatch):
    x, y = clouds
    hits = {1: 0, 3: 0, 8: 0}
    for query in range(80):
        others = sorted((q for q in range(80) if q != query), key=lambda q: math.dist(x[query], x[q]))
        for k in hits:
            hits[k] += any(y[q] == y[query] for q in others[:k])
    assert 0 < hits[1] < hits[3] < hits[8] < 80
    monkeypatch.setattr(evaluation, "_CHUNK", 33)  # several uneven chunks
    result = evaluation.recalls(x, y, (1, 3, 8))
    assert result == {f"recall_at_{k}": pytest.approx(n / 80) for k, n in hits.items()}


def test_neighbours_are_exact_at_collapse():
    """Float32 products would not tell these apart: their distances are below 1e-4."""
    x = torch.ones(200, 16) + 1e-5 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    x = F.normalize(x)
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    assert evaluation.nearest_neighbours(x, 1).squeeze(1).equal(distances.argmin(1))


def test_chance_is_the_mean_over_all_orders():
    labels = torch.tensor([0, 0, 1, 1, 1])
    for k in (1, 2):
        hits = []
        for query in range(5):
            others = [q for q in range(5) if q != query]
            draws = list(itertools.combinations(others, k))
            hits.append(sum(any(labels[q] == labels[query] for q in draw) for draw in draws) / len(draws))
        assert evaluation.chance_recalls(labels, (k,))[f"recall_at_{k}"] == pytest.approx(sum(hits) / 5)


def test_nmi_is_one_for_separate_classes_and_survives_a_collapse():
    labels = torch.arange(5).repeat_interleave(6)
    assert evaluation.nmi(torch.eye(5)[labels], labels) == pytest.approx(1)
    assert evaluation.nmi(torch.ones(30, 5), labels) == pytest.approx(0, abs=1e-6)


def test_spectrum_is_the_mean_over_test_batches():
    x = F.normalize(torch.randn(100, 6, generator=torch.Generator().manual_seed(0)))
    result = evaluation.batch_spectrum(x, 30)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    parts = [spectrum(x[order[i : i + 30]]) for i in (0, 30, 60)]
    assert result["spread"] == pytest.approx(sum(part.spread.item() for part in parts) / 3, rel=1e-6)
    assert result["effective_rank"] == pytest.approx(sum(part.effective_rank.item() for part in parts) / 3, rel=1e-6)
    expected = torch.stack([part.singular_values for part in parts]).mean(0).tolist()
    assert result["singular_values"] == pytest.approx(expected, abs=1e-6)


def test_spectrum_of_fewer_pictures_than_a_batch_takes_them_all():
    x = F.normalize(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)))
    assert evaluation.batch_spectrum(x, 30)["spread"] == pytest.approx(spectrum(x).spread.item(), rel=1e-6)


def test_embedding_uses_running_statistics_and_changes_nothing():
    pictures = GreyPictures(torch.randint(0, 256, (50, 32, 32), dtype=torch.uint8), torch.arange(50))
    network: nn.Module = SmallNetwork(pictures.shape, 8)
    network(pictures.batch(torch.arange(50)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    embeddings = embed(network, pictures)
    assert network.training
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    alone = embed(network, GreyPictures(pictures.pixels[:1], pictures.labels[:1]))
    torch.testing.assert_close(embeddings[:1], alone)  # no picture changes another's embedding
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(50))
