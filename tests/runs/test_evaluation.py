"""The measures against brute force and against cases whose answer is known."""

from __future__ import annotations

import itertools
import math

import faiss
import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import nn
from torch.nn import functional as F

from svmax_ops import spectrum
from svmax_ops.runs.retrieval import evaluation
from svmax_ops.runs.retrieval.data.pictures import GreyPictures
from svmax_ops.runs.retrieval.embedding import embed
from svmax_ops.runs.retrieval.models import SmallNetwork


def clumps(noise: float, centres: int) -> torch.Tensor:
    """200 unit vectors around few centres, in float32."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(centres, 16, generator=generator)[torch.arange(200) % centres]
    return F.normalize(centre + noise * torch.randn(200, 16, generator=generator))


CASES = {
    "random": lambda: clumps(1.0, 1),
    **{f"one clump, noise {noise:.0e}": lambda noise=noise: clumps(noise, 1) for noise in (1e-3, 1e-5, 1e-6)},
    **{f"two clumps, noise {noise:.0e}": lambda noise=noise: clumps(noise, 2) for noise in (1e-3, 1e-5, 1e-6)},
    "half precision": lambda: clumps(1e-2, 1).bfloat16(),  # many are equal, by chance
    "each five times": lambda: clumps(1.0, 1)[:40].repeat(5, 1),
    "two points": lambda: clumps(0.0, 2),
    "one point": lambda: torch.full((200, 16), 0.25),
}


LABELS = torch.arange(40).repeat(5)[torch.randperm(200, generator=torch.Generator().manual_seed(1))]


def brute_force(x: torch.Tensor, y: torch.Tensor, ks: tuple[int, ...]) -> dict[str, float]:
    """R@K by sorting the float64 distances to all others; of equal ones, those of other classes come first."""
    points, labels = x.double().numpy(), y.numpy()
    hits = dict.fromkeys(ks, 0)
    for query in range(len(points)):
        others = np.delete(np.arange(len(points)), query)
        distances = np.sqrt(np.square(points[others] - points[query]).sum(1))
        right = labels[others] == labels[query]
        right = right[np.lexsort((right, distances))]
        for k in ks:
            hits[k] += right[:k].any()
    return {f"recall_at_{k}": count / len(points) for k, count in hits.items()}


@pytest.mark.parametrize("case", CASES)
def test_recalls_match_brute_force(case):
    x, ks = CASES[case](), (1, 2, 10, 100, 1000)
    expected = brute_force(x, LABELS, ks)
    assert expected["recall_at_1"] < expected["recall_at_1000"] == 1
    assert evaluation.recalls(x, LABELS, ks) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["random", "two clumps, noise 1e-06", "half precision"])
def test_neither_chunks_nor_the_order_of_the_pictures_change_a_rank(case, monkeypatch):
    x = CASES[case]()
    expected = evaluation.others_ahead(x, LABELS)
    assert expected.unique().numel() > 20
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(evaluation, "_QUERIES", 33)
    monkeypatch.setattr(evaluation, "_OTHERS", 17)
    assert evaluation.others_ahead(x[order], LABELS[order]).equal(expected[order])


def test_a_tie_counts_against_the_query():
    x = torch.tensor([[0.0], [1.0], [-1.0], [5.0], [5.0], [5.0]])
    labels = torch.tensor([0, 0, 1, 2, 2, 1])
    assert evaluation.others_ahead(x, labels).tolist() == [1, 0, 4, 1, 1, 4]
    assert evaluation.recalls(torch.ones(6, 3), labels, (1, 4, 5)) == {
        "recall_at_1": 0.0, "recall_at_4": 0.0, "recall_at_5": 1.0,
    }  # fmt: skip


def test_a_picture_alone_in_its_class_is_a_miss_for_every_k():
    x = torch.tensor([[0.0], [0.1], [0.2]])
    labels = torch.tensor([4, 4, 7])
    assert evaluation.others_ahead(x, labels).tolist() == [0, 1, 3]
    expected = {"recall_at_1": 1 / 3, "recall_at_2": 2 / 3, "recall_at_9": 2 / 3}
    assert evaluation.recalls(x, labels, (1, 2, 9)) == pytest.approx(expected)
    assert evaluation.chance_recalls(labels, (1, 9)) == pytest.approx({"recall_at_1": 1 / 3, "recall_at_9": 2 / 3})


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_no_numbers_find_nothing(value, capfd):
    x = clumps(1.0, 1)
    x[7, 3] = value
    assert evaluation.recalls(x, LABELS, (1, 1000)) == {"recall_at_1": 0, "recall_at_1000": 0}
    assert torch.tensor(evaluation.nmi(x, LABELS)).isnan()
    assert capfd.readouterr() == ("", "")


def test_neighbours_are_exact_at_collapse():
    """Float32 products would not tell these apart: their distances are below 1e-4."""
    x = torch.ones(200, 16) + 1e-5 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    x = F.normalize(x)
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    assert evaluation.nearest_neighbours(x, 1).squeeze(1).equal(distances.argmin(1))


def test_given_queries_alone_are_looked_up():
    x, queries = clumps(1.0, 1), torch.tensor([3, 150, 9])
    assert evaluation.nearest_neighbours(x, 6, queries).equal(evaluation.nearest_neighbours(x, 6)[queries])


def test_chance_is_the_mean_over_all_orders():
    labels = torch.tensor([0, 0, 1, 1, 1])
    for k in (1, 2):
        hits = []
        for query in range(5):
            others = [q for q in range(5) if q != query]
            draws = list(itertools.combinations(others, k))
            hits.append(sum(any(labels[q] == labels[query] for q in draw) for draw in draws) / len(draws))
        assert evaluation.chance_recalls(labels, (k,))[f"recall_at_{k}"] == pytest.approx(sum(hits) / 5)


def test_nmi_is_one_for_separate_classes():
    labels = torch.arange(5).repeat_interleave(6)
    assert evaluation.nmi(torch.eye(5)[labels], labels) == pytest.approx(1)


def test_nmi_is_that_of_scikit_learn():
    """On as many points as there are classes: the clusters are known, they are the points."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12).repeat(10)
    clusters = torch.where(torch.rand(120, generator=generator) < 0.6, labels, torch.randperm(120) % 12)
    expected = normalized_mutual_info_score(labels, clusters)
    assert 0.2 < expected < 0.8
    points = torch.randn(12, 6, generator=generator)
    assert evaluation.nmi(points[clusters], labels) == pytest.approx(expected)


@pytest.mark.parametrize("case", ["one point", "two points", "each five times", "half precision"])
def test_nmi_survives_fewer_points_than_classes_in_silence(case, capfd):
    value = evaluation.nmi(CASES[case](), LABELS)
    assert -1e-9 <= value < 1
    assert case != "one point" or value == pytest.approx(0, abs=1e-6)
    assert capfd.readouterr() == ("", "")


def test_nmi_of_a_collapse_is_that_of_what_is_left():
    """Around a common centre a float32 k-means would see no difference."""
    x = clumps(0.4, 40).double()
    labels = torch.arange(200) % 40
    assert 0.5 < evaluation.nmi(x, labels) < 1
    assert evaluation.nmi(1 + 1e-9 * x, labels) == pytest.approx(evaluation.nmi(x, labels), abs=1e-3)


def test_nmi_is_the_same_again_and_with_other_threads():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(1500, 16, generator=generator), torch.arange(1500) % 300
    expected = evaluation.nmi(x, labels)
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 2, 1):
            faiss.omp_set_num_threads(threads)
            assert evaluation.nmi(x, labels) == expected
    finally:
        faiss.omp_set_num_threads(before)


def test_raw_pixels_are_averaged_to_a_thousand_numbers(monkeypatch):
    monkeypatch.setattr(evaluation, "_PICTURES", 4)  # several uneven chunks
    grey = GreyPictures(torch.randint(0, 256, (10, 32, 32), dtype=torch.uint8), torch.arange(10))
    assert evaluation.raw_pixels(grey).equal(grey.pixels.flatten(1) / 255)
    large = GreyPictures(torch.randint(0, 256, (10, 96, 64), dtype=torch.uint8), torch.arange(10))
    means = large.batch(torch.arange(10)).unflatten(2, (32, 3)).unflatten(4, (32, 2)).mean((3, 5))
    torch.testing.assert_close(evaluation.raw_pixels(large), means.flatten(1))


def test_raw_pixels_of_photographs_keep_their_colours():
    class Photographs:
        labels = torch.arange(3)
        shape = (3, 224, 224)

        def batch(self, indices, draws=None):
            return torch.tensor([0.1, 0.2, 0.7]).view(1, 3, 1, 1).expand(len(indices), 3, 224, 224)

    pixels = evaluation.raw_pixels(Photographs())
    torch.testing.assert_close(pixels, torch.tensor([0.1, 0.2, 0.7]).repeat_interleave(18 * 18).expand(3, -1))


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
