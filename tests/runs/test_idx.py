"""MNIST's files: what is read, and every way in which they can be damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets.mnist import read_image_file, read_label_file

from svmax_ops.runs.embed2d.config import Embed2dConfig
from svmax_ops.runs.embed2d.data import load
from svmax_ops.runs.embed2d.idx import read_idx
from svmax_ops.runs.errors import UserError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx(array: np.ndarray, kind: int = 8, order: str = ">") -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f"{order}{array.ndim}i", *array.shape) + array.tobytes()


def write_mnist(root: Path, train: int = 40, test: int = 20) -> Path:
    """Four files of random pictures; the labels go round."""
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for part, n in {"train": train, "t10k": test}.items():
        (root / f"{part}-{IMAGES}").write_bytes(idx(rng.integers(0, 256, (n, 28, 28), np.uint8)))
        (root / f"{part}-{LABELS}").write_bytes(idx((np.arange(n) % 10).astype(np.uint8)))
    return root


def refused(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def mnist(root: Path, **values):
    return load(Embed2dConfig(dataset="mnist", root=root, **values))


def test_files_are_read_as_torchvision_reads_them(tmp_path):
    root = write_mnist(tmp_path)
    for images, part in zip(mnist(root), ("train", "t10k"), strict=True):
        assert images.pixels.equal(read_image_file(str(root / f"{part}-{IMAGES}")))
        assert images.labels.equal(read_label_file(str(root / f"{part}-{LABELS}")))
        batch = images.batch(torch.tensor([3, 1]))
        assert (batch.shape, batch.dtype) == ((2, 1, 28, 28), torch.float32)
        torch.testing.assert_close(batch[1, 0], images.pixels[1] / 255)


def test_compressed_files_are_the_same(tmp_path):
    plain = mnist(write_mnist(tmp_path))
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    for one, other in zip(mnist(tmp_path), plain, strict=True):
        assert one.pixels.equal(other.pixels)
        assert one.labels.equal(other.labels)


_GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it begins with nothing instead of 00 00 08 03"),
        (b"<html>", "it begins with 3c 68 74 6d instead of 00 00 08 03"),
        (b"\1" + _GOOD[1:], "it begins with 01 00 08 03"),
        (idx(np.zeros((2, 3, 4), np.uint8), kind=13), "it begins with 00 00 0d 03"),
        (idx(np.zeros(24, np.uint8)), "it begins with 00 00 08 01"),
        (_GOOD[:9], "it ends after 9 bytes, in the header"),
        (_GOOD[:-1], "2 x 3 x 4 values are announced, 23 are there"),
        (_GOOD + b"\0", "2 x 3 x 4 values are announced, 25 are there"),
        (idx(np.zeros((2, 3, 4), np.uint8), order="<"), "33554432 x 50331648 x 67108864 values are announced"),
        (idx(np.zeros((0, 3, 4), np.uint8)), "its sizes are 0 x 3 x 4"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3i", -2, -3, 4) + bytes(24), "its sizes are -2 x -3 x 4"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, reason):
    np.testing.assert_array_equal(read(tmp_path / "good", _GOOD).ravel(), np.arange(24))
    path = tmp_path / "pictures"
    text = refused(lambda: read(path, content))
    assert text.startswith(f"{path} is damaged or no IDX file of 3 dimension(s): {reason}")


def read(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    return read_idx(path, 3)


@pytest.mark.parametrize("damage", ["truncated", "no deflate", "flipped", "plain"])
def test_a_damaged_compressed_file_is_named(tmp_path, damage):
    rng = np.random.default_rng(0)
    whole = gzip.compress(idx(rng.integers(0, 256, (4, 8, 8), np.uint8)), mtime=0)
    content = {
        "truncated": whole[: len(whole) // 2],
        "no deflate": whole[:10] + b"\7" + whole[11:],
        "flipped": whole[:100] + bytes([whole[100] ^ 255]) + whole[101:],
        "plain": _GOOD,
    }[damage]
    path = tmp_path / "pictures.gz"
    assert refused(lambda: read(path, content)).startswith(f"{path} cannot be read: ")
    assert read(path, whole).shape == (4, 8, 8)


def test_files_that_are_not_there_or_do_not_fit_are_named(tmp_path):
    root = write_mnist(tmp_path / "mnist")
    pictures, labels = root / f"train-{IMAGES}", root / f"train-{LABELS}"
    kept = labels.read_bytes()
    labels.write_bytes(idx(np.zeros(39, np.uint8)))
    assert refused(lambda: mnist(root)) == (
        f"{pictures} has 40 pictures, {labels} has 39 labels; they must agree."
    )  # fmt: skip
    labels.write_bytes(idx(np.full(40, 10, np.uint8)))
    assert refused(lambda: mnist(root)) == f"{labels} must hold labels from 0 to 9; one is 10."
    labels.write_bytes(kept)
    pictures.write_bytes(idx(np.zeros((40, 8, 9), np.uint8)))
    assert refused(lambda: mnist(root)) == f"{pictures} must hold pictures of 28 x 28 pixels; they have 8 x 9."
    pictures.unlink()
    assert refused(lambda: mnist(root)) == f"--root {root} has no train-{IMAGES} or train-{IMAGES}.gz."
    pictures.mkdir()
    assert refused(lambda: mnist(root)) == f"{pictures} cannot be read: Is a directory."


def test_images_are_drawn_from_a_fixed_seed(tmp_path):
    root = write_mnist(tmp_path, train=200)
    whole, test = mnist(root)
    few, same_test = mnist(root, images=64, seeds="5")
    again, _ = mnist(root, images=64)
    assert few.pixels.equal(again.pixels)
    assert few.labels.equal(again.labels)
    assert same_test.pixels.equal(test.pixels)
    places = [(whole.pixels == picture).flatten(1).all(1).nonzero().item() for picture in few.pixels]
    assert len(set(places)) == 64
    assert places != sorted(places)
    assert whole.labels[places].equal(few.labels)
    assert refused(lambda: mnist(root, images=201)) == (
        "--images must be at most 200, what mnist has to train on; got 201."
    )  # fmt: skip


def test_digits_are_split_with_equal_shares_of_the_classes():
    train, test = load(Embed2dConfig())
    assert (len(train.labels), len(test.labels)) == (1000, 797)
    counts = torch.bincount(train.labels) + torch.bincount(test.labels)
    assert ((torch.bincount(train.labels) - counts * 1000 / 1797).abs() < 1).all()
    pictures = torch.cat([train.pixels, test.pixels]).flatten(1)
    assert len(pictures.unique(dim=0)) == 1797  # none is in both
    assert train.batch(torch.arange(1000)).max() == 1
    again, _ = load(Embed2dConfig(seeds="3"))
    assert again.pixels.equal(train.pixels)
