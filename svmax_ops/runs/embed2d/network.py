"""The paper's "tiny CNN (one convolutional layer and one hidden layer)" (section 4.3)."""

from __future__ import annotations

from torch import nn

_CHANNELS, _HIDDEN = 32, 128  # not in the paper
SMALLEST = 4  # pixels a side


def tiny_network(height: int, width: int) -> nn.Sequential:
    """32 convolutions of 3x3, ReLU, 2x2 max pooling, 128 hidden units, ReLU, 2 outputs.

    Args:
        height, width: of a picture, at least 4.
    Returns:
        A module of float32 ``[n, 1, height, width]`` to activations ``[n, 2]``, initialised from torch's global
        generator.
    """
    pooled = _CHANNELS * ((height - 2) // 2) * ((width - 2) // 2)
    return nn.Sequential(
        nn.Conv2d(1, _CHANNELS, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(pooled, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, 2),
    )
