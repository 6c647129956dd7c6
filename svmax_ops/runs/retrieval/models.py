"""The embedding network."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = (32, 64, 96, 128)


class SmallNetwork(nn.Module):
    """Four 3x3 convolutions of stride 2, each with BatchNorm and ReLU, then a linear layer: 218 k weights at d = 64.

    Args:
        picture: ``(channels, height, width)`` of the input.
        dim: d, of the embeddings.
    Shape:
        Input ``[n, channels, height, width]``, output ``[n, d]``: raw activations. The losses divide each row by its
        L2 norm, SVMax does so itself.
    """

    def __init__(self, picture: tuple[int, int, int], dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming, height, width = picture
        for channels in CHANNELS:
            convolution = nn.Conv2d(incoming, channels, 3, stride=2, padding=1, bias=False)  # BatchNorm has the bias
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            incoming, height, width = channels, (height + 1) // 2, (width + 1) // 2
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(incoming * height * width, dim)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.embedding(self.features(pictures).flatten(1))
