"""How good embeddings are for retrieval, and how spread out: on classes that were not trained on."""

from __future__ import annotations

import math
from typing import Any

import faiss
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from svmax_ops import spectrum
from svmax_ops.runs.retrieval.data.loading import Request, load
from svmax_ops.runs.retrieval.data.pictures import Pictures

RECALL_AT = (1, 2, 4, 8)

_QUERIES, _OTHERS = 256, 2048  # a block of distances: 4 MiB, which stays in the cache while it is counted
_PICTURES = 256  # read at a time
_MOST_PIXELS = 1024  # numbers a picture: 32 x 32 grey, 18 x 18 in colour
_SEED = 0  # of the test batches and of k-means: the same for every run, so that runs compare
_KMEANS_ITERATIONS = 20


def raw_pixels(pictures: Pictures, workers: int = 0) -> Tensor:
    """The pictures themselves, float32 ``[n, pixels]``: what a network has to beat.

    Larger ones are averaged down to 32 x 32 points, in colour 18 x 18. The 150,528 numbers of a photograph as a network
    takes it would fill the memory, n times, and no two photographs agree in them.
    """
    channels, height, width = pictures.shape
    most = math.isqrt(_MOST_PIXELS // channels)
    size = min(height, most), min(width, most)
    requests = [Request(chunk) for chunk in torch.arange(len(pictures.labels)).split(_PICTURES)]
    chunks = load(pictures, requests, workers, torch.device("cpu"))
    if size != (height, width):
        chunks = (F.adaptive_avg_pool2d(chunk, size) for chunk in chunks)
    return torch.cat([chunk.flatten(1) for chunk in chunks])


def evaluate(
    embeddings: Tensor, labels: Tensor, batch_size: int, recall_at: tuple[int, ...] = RECALL_AT, with_nmi: bool = True
) -> dict[str, Any]:
    """All of the numbers below for ``[n, d]`` embeddings with labels ``[n]``; spectra of batches of ``batch_size``."""
    return {
        **recalls(embeddings, labels, recall_at),
        **({"nmi": nmi(embeddings, labels)} if with_nmi else {}),
        **batch_spectrum(embeddings, batch_size),
    }


def recalls(embeddings: Tensor, labels: Tensor, ks: tuple[int, ...] = RECALL_AT) -> dict[str, float]:
    """``recall_at_k``: share of the queries with one of their class among the k nearest others (Euclidean).

    Every picture is a query and is looked for among all others. One that is alone in its class has nothing to find and
    counts as a miss.
    """
    n = len(labels)
    ahead = others_ahead(embeddings, labels)
    return {f"recall_at_{k}": (ahead < min(k, n)).double().mean().item() for k in ks}


def others_ahead(embeddings: Tensor, labels: Tensor) -> Tensor:
    """How many pictures of other classes are as near to each query as the nearest of its own class, or nearer.

    That is all that R@K needs, for every K and without sorting: it is a hit where fewer than K are ahead.

    Args:
        embeddings: ``[n, d]``.
        labels: ``[n]``.
    Returns:
        int64 ``[n]``; n where the class has no other picture, and everywhere if an embedding is NaN or inf. A tie
        counts against the query: the order of the pictures changes nothing, and a collapse onto one point finds none.

    As exact as float64 differences x - y. A matrix product, |x|^2 + |y|^2 - 2xy, is ten times as fast but rounds more;
    where that leaves open who is nearer, as it may in a collapse, the differences decide.
    """
    n = len(labels)
    if not embeddings.isfinite().all():
        return torch.full_like(labels, n)
    order = labels.argsort(stable=True)  # the pictures of a class side by side
    x, y = embeddings[order].double(), labels[order]
    x = x - x[0]  # changes no distance, and at collapse leaves small numbers with all of their digits
    square = x.square().sum(1)
    # Both ways to a squared distance are off by less than (d + 4) eps / 2 * (|x| + |y|)^2.
    rounding = 4 * (x.shape[1] + 4) * torch.finfo(x.dtype).eps * square.max()
    first, end = torch.searchsorted(y, y), torch.searchsorted(y, y, right=True)
    ahead = torch.empty_like(order)
    for queries in torch.arange(n, device=x.device).split(_QUERIES):
        own = torch.arange(first[queries[0]].item(), end[queries[-1]].item(), device=x.device)
        distances = _distances(x[queries], x[own])
        distances[(y[queries, None] != y[own]) | (queries[:, None] == own)] = torch.inf
        nearest = distances.amin(1, keepdim=True)
        limit = nearest.square() - square[queries, None]
        behind = torch.zeros_like(queries)  # counts the own class too
        for others in torch.arange(n, device=x.device).split(_OTHERS):
            same = y[queries, None] == y[others]
            distances = torch.addmm(square[others], x[queries], x[others].T, alpha=-2).masked_fill_(same, torch.inf)
            further = (distances > limit + rounding).sum(1)
            unsure = ((distances > limit - rounding).sum(1) != further).nonzero().squeeze(1)
            if len(unsure):
                distances = _distances(x[queries[unsure]], x[others]).masked_fill_(same[unsure], torch.inf)
                further[unsure] = (distances > nearest[unsure]).sum(1)
            behind += further
        ahead[order[queries]] = n - behind
    return ahead


def nearest_neighbours(embeddings: Tensor, k: int, queries: Tensor | None = None) -> Tensor:
    """Rows ``[q, k]`` of the others nearest to each of ``queries`` (int64 ``[q]``; None: all), nearest first."""
    x = embeddings.double()
    if queries is None:
        queries = torch.arange(len(x), device=x.device)
    result = []
    for chunk in queries.split(_QUERIES):
        distances = _distances(x[chunk], x)
        distances[torch.arange(len(chunk)), chunk] = torch.inf
        result.append(distances.topk(min(k, len(x) - 1), largest=False).indices)
    return torch.cat(result)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """``[n, m]`` of the rows of ``[n, d]`` and ``[m, d]`` float64, from their differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def chance_recalls(labels: Tensor, ks: tuple[int, ...] = RECALL_AT) -> dict[str, float]:
    """``recall_at_k`` of neighbours drawn at random without replacement, exactly."""
    n = len(labels)
    sizes, classes = labels.unique(return_counts=True)[1].unique(return_counts=True)  # all of one size are alike
    drawn = torch.arange(min(max(ks), n - 1))
    others = n - sizes[:, None]  # pictures of other classes
    misses = ((others - drawn).clamp_min(0).double() / (n - 1 - drawn)).cumprod(1)
    hits = (sizes * classes).double() / n @ (1 - misses)
    return {f"recall_at_{k}": hits[min(k, n - 1) - 1].item() for k in ks}


def nmi(embeddings: Tensor, labels: Tensor) -> float:
    """Normalised mutual information of the labels and as many k-means clusters as there are classes.

    k-means by faiss on the CPU: k-means++ (Arthur and Vassilvitskii, 2007), then 20 iterations. The same embeddings get
    the same value, whatever the number of threads. NaN if an embedding is NaN or inf.
    """
    x = embeddings.double().cpu()
    if not x.isfinite().all():
        return math.nan
    x = x - x.mean(0)  # and scaled: faiss has float32 alone, which would not tell collapsed embeddings apart
    x = (x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)).float().numpy()
    means = faiss.Kmeans(
        x.shape[1],
        len(labels.unique()),
        niter=_KMEANS_ITERATIONS,
        seed=_SEED,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,  # a class has few pictures: no warning
        max_points_per_centroid=len(x),  # all of them, no sample
    )
    means.train(x)
    return float(normalized_mutual_info_score(labels.cpu().numpy(), means.assign(x)[1]))


def batch_spectrum(embeddings: Tensor, batch_size: int) -> dict[str, Any]:
    """``spread``, ``effective_rank`` and ``singular_values`` (descending), each the mean over random test batches."""
    n = len(embeddings)
    size = min(batch_size, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_SEED))[: n // size * size]
    result = spectrum(embeddings[order].view(-1, size, embeddings.shape[1]))
    return {
        "spread": result.spread.mean().item(),
        "effective_rank": result.effective_rank.mean().item(),
        "singular_values": [round(s, 6) for s in result.singular_values.mean(0).tolist()],
    }
