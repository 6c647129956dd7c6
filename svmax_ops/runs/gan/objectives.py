"""What SVMax adds to the generator's loss."""

from __future__ import annotations

from torch import Tensor

import svmax_ops
from svmax_ops.runs.gan.config import GanConfig


def regularizer(fake: Tensor, real: Tensor, config: GanConfig) -> Tensor:
    """Before lambda, of a fake and a real batch ``[b, 2]``.

    eq1 and bounded are the paper's eq. 1 (on the samples as they are) and eq. 4 (on their directions). matched is ours:
    eq. 1 has no bound in the scale of the samples, and its optimum is not the real ones; this one's is. Centring tells
    one cluster far from the origin from a ring around it.
    """
    if config.objective != "matched":
        bounded = config.objective == "bounded"
        return svmax_ops.svmax_loss(fake, bounded=bounded, normalize=bounded)
    missing = _spread(real) - _spread(fake)
    return missing.abs() if config.matched_form == "absolute" else missing.clamp_min(0)


def _spread(samples: Tensor) -> Tensor:
    return svmax_ops.mean_singular_value(samples, normalize=False, center=True)
