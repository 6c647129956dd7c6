"""How good embeddings are for retrieval, and how spread out: on classes that were not trained on."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from threadpoolctl import threadpool_limits
from torch import Tensor

from svmax_ops import spectrum
from svmax_ops.runs.retrieval.data.pictures import Pictures

_CHUNK = 1024  # queries at a time: 1024 x n float64 distances
_ORDER_SEED = 0  # of the test batches and of k-means: the same for every run, so that runs compare


def raw_pixels(pictures: Pictures) -> Tensor:
    """The pictures themselves ``[n, pixels]``: what a network has to beat."""
    return pictures.batch(torch.arange(len(pictures.labels))).flatten(1)


def evaluate(embeddings: Tensor, labels: Tensor, batch_size: int) -> dict[str, Any]:
    """All of the numbers below for ``[n, d]`` embeddings with labels ``[n]``; spectra of batches of ``batch_size``."""
    return {
        **recalls(embeddings, labels),
        "nmi": nmi(embeddings, labels),
        **batch_spectrum(embeddings, batch_size),
    }


def recalls(embeddings: Tensor, labels: Tensor, ks: tuple[int, ...] = (1, 8)) -> dict[str, float]:
    """``recall_at_k``: share of the queries with one of their class among the k nearest others (Euclidean)."""
    nearest = nearest_neighbours(embeddings, max(ks))
    hits = labels[nearest] == labels[:, None]
    return {f"recall_at_{k}": hits[:, :k].any(1).double().mean().item() for k in ks}


def nearest_neighbours(embeddings: Tensor, k: int) -> Tensor:
    """Rows ``[n, k]`` of the nearest others, nearest first.

    In float64: collapsed embeddings differ by 1e-3 or less, and |x|^2 + |y|^2 - 2xy would lose that in float32.
    """
    x = embeddings.double()
    square = x.square().sum(1)
    result = []
    for rows in torch.arange(len(x), device=x.device).split(_CHUNK):
        distances = square - 2 * x[rows] @ x.T  # + the query's own square, which changes no order
        distances[torch.arange(len(rows)), rows] = torch.inf
        result.append(distances.topk(min(k, len(x) - 1), largest=False).indices)
    return torch.cat(result)


def chance_recalls(labels: Tensor, ks: tuple[int, ...] = (1, 8)) -> dict[str, float]:
    """``recall_at_k`` of neighbours drawn at random without replacement, exactly."""
    n = len(labels)
    result = {}
    for k in ks:
        misses = torch.ones((), dtype=torch.float64)
        others = (labels[:, None] != labels).sum(1).double()  # pictures of other classes
        for drawn in range(k):
            misses = misses * ((others - drawn).clamp_min(0) / (n - 1 - drawn))
        result[f"recall_at_{k}"] = (1 - misses).mean().item()
    return result


def nmi(embeddings: Tensor, labels: Tensor) -> float:
    """Normalised mutual information of the labels and as many k-means clusters as there are classes."""
    with warnings.catch_warnings(), threadpool_limits(1):  # several threads add up in a random order
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than classes: a collapse
        means = KMeans(len(labels.unique()), n_init=1, random_state=_ORDER_SEED)
        clusters = means.fit_predict(embeddings.double().cpu().numpy())
    return float(normalized_mutual_info_score(labels.cpu().numpy(), clusters))


def batch_spectrum(embeddings: Tensor, batch_size: int) -> dict[str, Any]:
    """``spread``, ``effective_rank`` and ``singular_values`` (descending), each the mean over random test batches."""
    n = len(embeddings)
    size = min(batch_size, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_ORDER_SEED))[: n // size * size]
    result = spectrum(embeddings[order].view(-1, size, embeddings.shape[1]))
    return {
        "spread": result.spread.mean().item(),
        "effective_rank": result.effective_rank.mean().item(),
        "singular_values": [round(s, 6) for s in result.singular_values.mean(0).tolist()],
    }
