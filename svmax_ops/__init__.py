"""SVMax: the mean singular value of a batch of embeddings as a regularizer that costs next to nothing.

>>> import torch, svmax_ops
>>> embeddings = torch.eye(4).repeat(2, 1)
>>> round(svmax_ops.svmax_loss(embeddings).item(), 3)
1.0
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

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


def _in_the_command() -> bool:
    """Whether ``svmax`` or ``python -m svmax_ops`` imports this; a wrong answer costs time and nothing else."""
    program = sys.argv[0] if hasattr(sys, "argv") and sys.argv else ""
    if program == "-m":  # Python is still looking for the module
        return "svmax_ops" in sys.orig_argv or "svmax_ops.cli" in sys.orig_argv
    return program.rpartition("/")[2] == "svmax"


# Importing the package registers its ops with torch, which programs count on that name none of it, such as one that
# loads an exported model. Only the command leaves torch, a second and a half, until it has something to compute.
if TYPE_CHECKING or not _in_the_command():
    from svmax_ops.backends import available_backends, use_backend
    from svmax_ops.functional import mean_singular_value, nuclear_norm, singular_value_bounds, svdvals, svmax_loss
    from svmax_ops.modules import SVMaxLoss
    from svmax_ops.spectrum import Spectrum, spectrum

if not TYPE_CHECKING:  # to which it would say that any name is there

    def __getattr__(name: str) -> Any:
        """All public names, in the command, when the first of them is wanted."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in ("backends", "functional", "modules", "spectrum"):
            found = vars(importlib.import_module(f"svmax_ops.{module}"))
            globals().update({public: found[public] for public in __all__ if public in found})
        return globals()[name]
