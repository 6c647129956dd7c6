"""SVMax as a regularizer of pytorch-metric-learning."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from svmax_ops import functional

try:
    from pytorch_metric_learning.regularizers import BaseRegularizer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "svmax_ops.integrations.metric_learning needs pytorch-metric-learning:"
        " pip install 'svmax-ops[metric-learning]'",
        name=error.name,
    ) from error


class SVMaxRegularizer(BaseRegularizer):  # type: ignore[misc]  # the library has no types
    r"""Adds :func:`svmax_ops.svmax_loss` of the embeddings to any loss of pytorch-metric-learning.

    ``embedding_reg_weight`` of that loss is the paper's :math:`\lambda`: 1 for contrastive and N-pair, 0.1 for
    triplet, 2 for angular loss.

    Args:
        bounded: eq. 4, between 1 and e; ``False``: eq. 1, :math:`-s_\mu`.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
        kwargs: for ``BaseRegularizer``.
    Shape:
        Input ``[b, d]``, any floating-point dtype; output a scalar, float64 for float64 input, float32 otherwise.
    Raises:
        TypeError, ValueError: on the call, as :func:`svmax_ops.svmax_loss`.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", eqs. 1 and 4, section 4.1 for the weights.

    >>> import torch
    >>> from pytorch_metric_learning.losses import ContrastiveLoss
    >>> criterion = ContrastiveLoss(embedding_regularizer=SVMaxRegularizer(), embedding_reg_weight=1.0)
    >>> criterion(torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)).item()
    1.0
    """

    def __init__(self, *, bounded: bool = True, normalize: bool = True, center: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bounded = bounded
        self.normalize = normalize
        self.center = center

    def compute_loss(self, embeddings: Tensor) -> dict[str, dict[str, Any]]:
        options = {"bounded": self.bounded, "normalize": self.normalize, "center": self.center}
        loss = functional.loss("SVMaxRegularizer", embeddings, **options)
        # One number for the whole batch: there is nothing for the library's reducers to average.
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}
