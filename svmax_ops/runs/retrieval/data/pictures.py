"""What a data set is made of: pictures with labels, of classes to train on and of other classes to test on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from svmax_ops.runs.same_data import identity

DATA_SEED = 0  # of the pictures and of the split into classes: --seed varies the training alone


class Pictures(Protocol):
    """The pictures of some classes."""

    labels: Tensor
    """int64 ``[n]``."""
    shape: tuple[int, int, int]
    """(channels, height, width) of a picture."""

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> Tensor:
        """The pictures as the network takes them.

        Args:
            indices: int64 ``[k]``.
            draws: int64 ``[k]``, for each picture the seed of its random crop and flip, where the data set has such.
                None: as for testing, without chance.
        Returns:
            float32 ``[k, *shape]``.
        Raises:
            UserError: a picture that cannot be read; names the file.
        """

    def shown(self, index: int) -> np.ndarray:
        """A picture as people see it: ``[height, width]`` or ``[height, width, 3]``, uint8."""

    def known_by(self) -> np.ndarray:
        """What tells these pictures from others: their names or their pixels."""


@dataclass(frozen=True)
class RetrievalData:
    train: Pictures
    test: Pictures
    """Of other classes than ``train``."""
    notes: tuple[str, ...] = ()
    """What the user should know, for example which files were left out."""
    recall_at: tuple[int, ...] = (1, 2, 4, 8)
    """The K of the R@K that this data set is judged by."""

    @cached_property
    def identity(self) -> dict[str, str]:
        """See ``svmax_ops.runs.same_data``: of the names, or the pixels, and the labels."""
        words = (
            f"{len(half.labels.unique()):,} classes with {len(half.labels):,} pictures {use}"
            for half, use in ((self.train, "to train on"), (self.test, "to test on"))
        )
        parts = (part for half in (self.train, self.test) for part in (half.known_by(), half.labels.numpy()))
        return identity(", ".join(words), parts)


@dataclass(frozen=True)
class GreyPictures:
    """Pictures held in memory: uint8 ``[n, height, width]``; trained on as they are, so ``draws`` changes nothing."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.pixels.shape[1], self.pixels.shape[2]

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> Tensor:
        return self.pixels[indices, None].float() / 255

    def shown(self, index: int) -> np.ndarray:
        """Dark ink on white paper."""
        return 255 - self.pixels[index].numpy()

    def known_by(self) -> np.ndarray:
        return self.pixels.numpy()


def split_classes(pixels: np.ndarray, labels: np.ndarray) -> tuple[GreyPictures, GreyPictures]:
    """Half of the classes, chosen at random, and the other half; never pictures of one class in both."""
    rows = [np.flatnonzero(np.isin(labels, half)) for half in halves(labels.max() + 1)]
    train, test = (GreyPictures(torch.from_numpy(pixels[r]), torch.from_numpy(labels[r])) for r in rows)
    return train, test


def halves(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers below ``classes`` in two halves, by the data's own seed; the smaller one trains."""
    order = np.random.default_rng(DATA_SEED).permutation(classes)
    return order[: classes // 2], order[classes // 2 :]
