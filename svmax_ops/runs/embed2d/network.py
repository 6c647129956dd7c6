"""The paper's "tiny CNN (one convolutional layer and one hidden layer)"."""

from __future__ import annotations

import torch
from torch import nn

_CHANNELS, _HIDDEN = 32, 128  # not in the paper


def tiny_network(height: int, width: int) -> nn.Sequential:
    """32 convolutions of 3x3, ReLU, 2x2 max pooling, 128 hidden units, ReLU, 2 outputs.

    Args:
        height, width: of a picture, at least 4.
    Returns:
        A module of float32 ``[n, 1, height, width]`` to activations ``[n, 2]``, initialised from torch's global
        generator.
    """
    pooled = _CHANNELS * ((height - 2) // 2) * ((width - 2) // 2)
    network = nn.Sequential(
        nn.Conv2d(1, _CHANNELS, 3),
        nn.MaxPool2d(2),  # before ReLU: the same values from a quarter of the work
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(pooled, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, 2),
    )
    return network.to(memory_format=torch.channels_last)  # in which pooling is fast
