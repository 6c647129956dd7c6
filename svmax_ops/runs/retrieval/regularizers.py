"""What is added to the ranking loss: nothing, SVMax, or the paper's other baseline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from svmax_ops import svmax_loss
from svmax_ops.runs.retrieval.config import RetrievalConfig


def regularizer(
    own: Tensor, activations: Tensor, labels: Tensor, config: RetrievalConfig, generator: torch.Generator, group: Any
) -> Tensor:
    """The unweighted term of ``config.regularizer``, a scalar; zero for "none".

    Args:
        own: ``[b / processes, d]``, the activations of this process.
        activations: ``[b, d]``, those of the whole batch, with its labels ``[b]``.
        config: which term.
        generator: draws spread-out's negatives.
        group: the processes that share the batch; None: this one alone.
    """
    if config.regularizer == "svmax":
        return svmax_loss(own, bounded=config.bounded, center=config.center, group=group)
    if config.regularizer == "spread-out":
        return spread_out_loss(F.normalize(activations), random_negatives(labels, generator))
    return activations.new_zeros(())


def spread_out_loss(embeddings: Tensor, negatives: Tensor) -> Tensor:
    r"""Zhang et al., "Learning Spread-out Local Feature Descriptors" (2017): :math:`M_1^2 + [M_2 - 1/d]_+`.

    Args:
        embeddings: ``[b, d]`` of unit length.
        negatives: ``[b]``, for each anchor the row of an embedding of another class. M_1 and M_2 are the first two
            moments of the inner products with them; points spread uniformly over the sphere have 0 and 1/d.
    """
    inner = (embeddings * embeddings[negatives]).sum(-1)
    return inner.mean().square() + (inner.square().mean() - 1 / embeddings.shape[-1]).relu()


def random_negatives(labels: Tensor, generator: torch.Generator) -> Tensor:
    """For each row a random row of another class (paper, section 4.1)."""
    other_class = (labels[:, None] != labels).float().cpu()
    return torch.multinomial(other_class, 1, generator=generator).squeeze(1).to(labels.device)
