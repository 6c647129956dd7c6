"""Small pictures of ten classes, to train and to test on: scikit-learn's digits, MNIST, Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from svmax_ops.runs.embed2d.config import CLASSES, Embed2dConfig
from svmax_ops.runs.embed2d.idx import read_idx
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.same_data import identity

CLASS_NAMES = {
    "digits": tuple("0123456789"),
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        *("T-shirt", "trousers", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has the four files."""
_DATA_SEED = 0  # of the digits' split and of --images: --seeds varies the training alone
_DIGITS_TRAIN = 1000
_DIGITS_WHITE, _BYTE_WHITE = 16, 255  # the largest value of a pixel
_SIDE = 28


class Images(NamedTuple):
    pixels: Tensor
    """``[n, height, width]``, of any type."""
    labels: Tensor
    """int64 ``[n]``, 0 to 9."""
    white: int
    """The largest value of a pixel."""

    def batch(self, indices: Tensor) -> Tensor:
        """float32 ``[k, 1, height, width]`` in [0, 1], of the pictures ``indices``, int64 ``[k]``."""
        return self.pixels[indices, None].float() / self.white


def identity_of(train: Images, test: Images) -> dict[str, str]:
    """See ``svmax_ops.runs.same_data``: of the pixels and the labels."""
    content = f"{len(train.labels):,} pictures to train on, {len(test.labels):,} to test on"
    return identity(content, (part.numpy() for images in (train, test) for part in (images.pixels, images.labels)))


def load(config: Embed2dConfig) -> tuple[Images, Images]:
    """The pictures to train on and those to test on, of the same ten classes.

    Raises:
        UserError: the files are not there, are damaged, do not fit each other, or are fewer than ``config.images``.
    """
    train, test = _digits() if config.dataset == "digits" else _idx_files(_root(config))
    if config.images is None:
        return train, test
    n = len(train.labels)
    if config.images > n:
        raise UserError(f"--images must be at most {n}, what {config.dataset} has to train on; got {config.images}.")
    chosen = torch.from_numpy(np.random.default_rng(_DATA_SEED).permutation(n)[: config.images])
    return Images(train.pixels[chosen], train.labels[chosen], train.white), test


def _digits() -> tuple[Images, Images]:
    """1,000 and 797, with the classes in equal shares."""
    pixels, labels = load_digits().images, load_digits().target
    parts = train_test_split(
        np.arange(len(labels)), train_size=_DIGITS_TRAIN, stratify=labels, random_state=_DATA_SEED
    )  # fmt: skip
    train, test = (
        Images(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part]).long(), _DIGITS_WHITE) for part in parts
    )
    return train, test


def _root(config: Embed2dConfig) -> Path:
    if config.root is not None:
        if not config.root.is_dir():
            raise UserError(f"--root {config.root} is not a folder.")
        return config.root
    if config.dataset == "mnist":
        raise UserError("--dataset mnist needs --root, the folder of train-images-idx3-ubyte and three more files.")
    if not DEBIAN.is_dir():
        raise UserError(
            "--dataset fashion-mnist needs --root, the folder of train-images-idx3-ubyte and three more files,"
            f" or Debian's package dataset-fashion-mnist, which puts them into {DEBIAN}."
        )
    return DEBIAN


def _idx_files(root: Path) -> tuple[Images, Images]:
    train, test = (_idx_part(root, part) for part in ("train", "t10k"))
    return train, test


def _idx_part(root: Path, part: str) -> Images:
    pictures, names = _find(root, f"{part}-images-idx3-ubyte"), _find(root, f"{part}-labels-idx1-ubyte")
    pixels, labels = read_idx(pictures, 3), read_idx(names, 1)
    if pixels.shape[1:] != (_SIDE, _SIDE):
        height, width = pixels.shape[1:]
        raise UserError(f"{pictures} must hold pictures of {_SIDE} x {_SIDE} pixels; they have {height} x {width}.")
    if len(pixels) != len(labels):
        raise UserError(f"{pictures} has {len(pixels)} pictures, {names} has {len(labels)} labels; they must agree.")
    if labels.max() >= CLASSES:
        raise UserError(f"{names} must hold labels from 0 to {CLASSES - 1}; one is {labels.max()}.")
    return Images(torch.tensor(pixels), torch.tensor(labels).long(), _BYTE_WHITE)


def _find(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.exists():
            return path
    raise UserError(f"--root {root} has no {name} or {name}.gz.")
