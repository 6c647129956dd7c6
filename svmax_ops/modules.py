"""SVMaxLoss: the loss as a module, to be added to a criterion."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from svmax_ops import functional


class SVMaxLoss(nn.Module):
    r"""``weight`` times :func:`svmax_ops.svmax_loss`, averaged over batch dimensions.

    Args:
        weight: the paper's :math:`\lambda`: 1 for contrastive and N-pair, 0.1 for triplet, 2 for angular loss.
        bounded: eq. 4, between 1 and e; ``False``: eq. 1, :math:`-s_\mu`.
        normalize: divide each row by its L2 norm first.
        center: subtract the mean of the (normalised) rows first.
        group: process group whose ranks hold the rest of the batch, as for the function. torch can neither pickle nor
            copy a process group, so a module that has one cannot be pickled or deep-copied.
    Shape:
        Input ``[..., b, d]``, any floating-point dtype; output a scalar, float64 for float64 input, float32 otherwise.
    Raises:
        TypeError, ValueError, NotImplementedError: on the forward call, as :func:`svmax_ops.svmax_loss`.
    Source: Taha et al., "SVMax: A Feature Embedding Regularizer", eqs. 1 and 4, section 4.1 for the weights.

    >>> import torch
    >>> SVMaxLoss(weight=0.1)(torch.eye(8)).item()
    0.10000000149011612
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        bounded: bool = True,
        normalize: bool = True,
        center: bool = False,
        group: Any = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.bounded = bounded
        self.normalize = normalize
        self.center = center
        self.group = group

    def forward(self, embeddings: Tensor) -> Tensor:
        options = {"bounded": self.bounded, "normalize": self.normalize, "center": self.center}
        loss = functional.loss("SVMaxLoss", embeddings, **options, group=self.group)
        return self.weight * (loss.mean() if loss.dim() else loss)

    def extra_repr(self) -> str:
        said = f"weight={self.weight}, bounded={self.bounded}, normalize={self.normalize}, center={self.center}"
        return said if self.group is None else f"{said}, group=<ranks: {self.group.size()}>"
