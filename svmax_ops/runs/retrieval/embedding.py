"""The embeddings of a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svmax_ops.runs.retrieval.data.loading import Request, load
from svmax_ops.runs.retrieval.data.pictures import Pictures

_CHUNK = 256  # pictures at a time: 150 MB at 224 x 224


@torch.no_grad()
def embed(network: nn.Module, pictures: Pictures, workers: int = 0) -> Tensor:
    """Unit-length float32 embeddings ``[n, d]`` of all pictures, BatchNorm with its running statistics."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    requests = [Request(chunk) for chunk in torch.arange(len(pictures.labels)).split(_CHUNK)]
    chunks = load(pictures, requests, workers, device)
    embeddings = torch.cat([F.normalize(network(chunk).float()) for chunk in chunks])
    network.train(training)
    return embeddings
