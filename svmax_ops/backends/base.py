"""The class of a backend."""

from __future__ import annotations

from torch import Tensor

from svmax_ops import torch_internals
from svmax_ops.ops import Functions


class Backend(Functions):
    """The ops of one namespace, with the tensors that they serve: one way to compute what functional.py offers."""

    name: str
    """As :class:`svmax_ops.use_backend` takes it."""
    devices: tuple[str, ...] | None
    """Types of torch.device; None: all. On "meta" the ops only compute shapes."""

    def missing(self) -> str | None:
        """Why it serves no tensor on this machine, or None."""
        raise NotImplementedError

    def missing_for(self, x: Tensor) -> str | None:
        """The same where ``x`` is there, and with it the device that it is on."""
        return self.missing()

    def serves(self, x: Tensor) -> bool:
        """Whether it has kernels for the device of ``x``."""
        return self.devices is None or x.device.type in self.devices

    def refusal(self, x: Tensor) -> str | None:
        """Why it does not serve ``x``, as what follows on its name in a sentence, or None."""
        reason = self.missing_for(x)
        if reason is not None:
            return f"is not available: {reason}"
        if not self.serves(x):
            served = " and ".join(device.upper() for device in self.devices or () if device != "meta")
            return f"serves {served} tensors, got one on {x.device}; use 'auto'"
        return None

    def describe(self) -> dict[str, str]:
        """The rows of ``svmax info`` about its libraries."""
        return {}


def missing_names() -> str | None:
    """Which private names of torch, that every backend's ops are made with, this torch does not have."""
    return torch_internals.lacking[0] if torch_internals.lacking else None
