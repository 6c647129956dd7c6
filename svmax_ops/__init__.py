"""SVMax: the mean singular value of a batch of embeddings as a regularizer that costs next to nothing.

>>> import torch, svmax_ops
>>> embeddings = torch.eye(4).repeat(2, 1)
>>> round(svmax_ops.svmax_loss(embeddings).item(), 3)
1.0
"""

from svmax_ops.backends import available_backends, use_backend
from svmax_ops.functional import mean_singular_value, nuclear_norm, singular_value_bounds, svdvals, svmax_loss
from svmax_ops.modules import SVMaxLoss
from svmax_ops.spectrum import Spectrum, spectrum

__version__ = "0.1.0"

__all__ = [
    "SVMaxLoss",
    "Spectrum",
    "available_backends",
    "mean_singular_value",
    "nuclear_norm",
    "singular_value_bounds",
    "spectrum",
    "svdvals",
    "svmax_loss",
    "use_backend",
]
