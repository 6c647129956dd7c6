"""The embeddings of a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.loading import Request, load
from svmax_ops.runs.retrieval.data.pictures import Pictures
from svmax_ops.runs.retrieval.parallel import Ranks
from svmax_ops.runs.retrieval.training import activations

_CHUNK = 64  # pictures at a time: 39 MB at 224 x 224, of which each worker keeps two in shared memory


@torch.no_grad()
def embed(
    network: nn.Module, pictures: Pictures, config: RetrievalConfig | None = None, ranks: Ranks | None = None
) -> Tensor:
    """Unit-length float32 embeddings ``[n, d]`` of all pictures, on the CPU; BatchNorm with its running statistics.

    Args:
        network: makes ``[n, d]`` activations.
        pictures: of any classes.
        config: its precision, memory format and workers; None: float32, in this process.
        ranks: the processes that share the work, all of which get the result; None: this one alone.
    """
    config, ranks = config or RetrievalConfig(workers=0), ranks or Ranks("cpu")
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    own = ranks.own(torch.arange(len(pictures.labels)))
    parts = []
    for batch in load(pictures, map(Request, own.split(_CHUNK)), config.workers, device):
        parts.append(F.normalize(activations(network, batch, config)))
    network.train(training)
    return torch.cat(ranks.all(torch.cat(parts).cpu()))
