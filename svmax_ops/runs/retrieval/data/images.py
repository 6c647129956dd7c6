"""Pictures that are image files: read when asked for, resized, cropped and normalised as ImageNet's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from svmax_ops.runs.retrieval.data.decoding import read_rgb

SIZE = 224  # pixels a side, of what the network sees
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as torchvision's weights ask

_RESIZE = v2.Resize((256, 256))  # whatever the file's proportions
_TRAIN = v2.Compose([_RESIZE, v2.RandomCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()])
_TEST = v2.Compose([_RESIZE, v2.CenterCrop(SIZE), v2.PILToTensor()])
_NORMALIZE = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, SD)])


class ImageFiles:
    """The image files of some classes (``Pictures``).

    Args:
        root: folder of the files.
        names: ``[n]`` paths, relative to ``root``.
        labels: ``[n]`` numbers of their classes.
    """

    shape = (3, SIZE, SIZE)

    def __init__(self, root: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        self.root = root
        # One block of bytes: a list would be copied string by string into every process that reads.
        self.names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
        self.labels = torch.tensor(labels, dtype=torch.int64)

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(self.names[index].item())

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> Tensor:
        """Resized to 256 x 256 pixels and cropped to 224 x 224: with ``draws`` anywhere, and flipped every other time;
        without, at the centre."""
        if draws is None:
            pictures = [_TEST(read_rgb(self.path(index))) for index in indices.tolist()]
        else:
            pictures = []
            with torch.random.fork_rng(devices=[]):
                for index, draw in zip(indices.tolist(), draws.tolist(), strict=True):
                    torch.default_generator.manual_seed(draw)  # torch.manual_seed would reset the GPU's too
                    pictures.append(_TRAIN(read_rgb(self.path(index))))
        return _NORMALIZE(torch.stack(pictures))

    def shown(self, index: int) -> np.ndarray:
        return _TEST(read_rgb(self.path(index))).permute(1, 2, 0).numpy()

    def known_by(self) -> np.ndarray:
        return self.names
