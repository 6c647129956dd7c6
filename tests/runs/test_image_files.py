"""Image files on their way to the network: as Pillow and NumPy make them, whoever reads them and beside whatever."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.data.loading import Request, draws, load
from tests.runs import trees

MEAN, SD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> ImageFiles:
    root = trees.imagefolder(tmp_path, "abc", images_per_class=3)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
    return ImageFiles(root, names, [ord(name[0]) for name in names])


def resized(path: Path) -> np.ndarray:
    """``[256, 256, 3]``, 0 to 255, by Pillow."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR), np.float64)


def raw(batch: torch.Tensor) -> np.ndarray:
    """Pixels ``[k, 224, 224, 3]``, 0 to 255, of normalised ones."""
    return (batch.double().numpy().transpose(0, 2, 3, 1) * SD + MEAN) * 255


def test_testing_takes_the_centre_of_the_resized_picture(pictures):
    indices = torch.tensor([7, 0, 3])
    batch = pictures.batch(indices)
    assert batch.dtype == torch.float32
    assert batch.shape == (3, *pictures.shape) == (3, 3, 224, 224)
    for index, picture in zip(indices.tolist(), batch.numpy(), strict=True):
        expected = (resized(pictures.path(index))[16:240, 16:240] / 255 - MEAN) / SD
        np.testing.assert_allclose(picture, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_training_takes_any_part_of_the_resized_picture_and_flips_half(pictures):
    whole = resized(pictures.path(4))
    parts = raw(pictures.batch(torch.full((60,), 4), draws(seed=0, step=0, count=60)))
    places = []
    for part in parts:
        matches = [
            (top, left, flipped)
            for flipped, candidate in ((False, part), (True, part[:, ::-1]))
            for top in range(33)
            for left in range(33)
            if np.abs(whole[top, left : left + 224] - candidate[0]).max() < 0.01
            and np.abs(whole[top : top + 224, left : left + 224] - candidate).max() < 0.01
        ]
        assert len(matches) == 1
        places += matches
    top, left, flipped = np.array(places).T
    assert 18 <= flipped.sum() <= 42  # 60 fair coins: 3 standard deviations are 11.6
    for offset in (top, left):
        assert offset.min() <= 3
        assert offset.max() >= 29
        assert len(set(offset.tolist())) > 20
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.4


def test_draw_alone_decides_the_crop(pictures):
    indices, seeds = torch.tensor([5, 2, 5, 8]), draws(seed=3, step=9, count=4)
    torch.manual_seed(1)
    together = pictures.batch(indices, seeds)
    torch.manual_seed(2)
    apart = torch.cat([pictures.batch(indices[i : i + 1], seeds[i : i + 1]) for i in (3, 1, 2, 0)])
    assert together.equal(apart[[3, 1, 2, 0]])
    assert not together[0].equal(together[2])  # one picture, two draws
    assert not together.equal(pictures.batch(indices, draws(seed=3, step=10, count=4)))


def test_reading_leaves_the_random_numbers_of_training_alone(pictures):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pictures.batch(torch.tensor([0, 1]), torch.tensor([7, 8]))
    assert torch.rand(3).equal(expected)


@pytest.mark.processes
def test_a_signal_to_the_whole_group_of_processes_does_not_reach_the_workers(pictures):
    requests = [Request(torch.tensor([0]))] * 9
    batches = load(pictures, requests, 2, CPU)
    next(batches), next(batches)  # both have begun
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    assert os.getpgrp() not in [os.getpgid(worker.pid) for worker in workers]
    assert len(list(batches)) == 7


@pytest.mark.processes
def test_number_of_workers_changes_nothing(pictures):
    requests = [Request(torch.tensor([i, 8 - i, 4]), draws(0, i, 3) if i % 2 else None) for i in range(5)]
    alone, shared = (list(load(pictures, requests, workers, CPU)) for workers in (0, 2))
    assert len(alone) == len(shared) == 5
    for first, second in zip(alone, shared, strict=True):
        assert first.equal(second)


def test_a_picture_of_16_bits_with_an_orientation_is_one_and_the_same_to_the_network_and_to_people(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (256, 1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(ramp).save(tmp_path / "a.png", exif=exif)
    pictures = ImageFiles(tmp_path, ["a.png"], [0])
    upright = np.arange(16, 240)[:, None, None].repeat(224, 1).repeat(3, 2)  # the stored columns are its rows
    np.testing.assert_allclose(raw(pictures.batch(torch.tensor([0])))[0], upright, atol=1)
    np.testing.assert_allclose(pictures.shown(0).astype(int), upright, atol=1)


def damaged(path: Path, how: str) -> str:
    """Spoil a picture; the reason that the user should be given."""
    if how == "missing":
        path.unlink()
        return "cannot be read: No such file or directory."
    if how == "a folder":
        path.unlink()
        path.mkdir()
        return "cannot be read: Is a directory."
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
        return "cannot be read: "
    if how == "a broken PNG":
        file = io.BytesIO()
        Image.open(path).save(file, "PNG")
        path.write_bytes(file.getvalue().replace(b"IDAT", b"IDAX"))
        return ""
    path.write_bytes(b"" if how == "empty" else b"<html>not found</html>")
    return "is not an image that Pillow can read."


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["missing", "a folder", "truncated", "empty", "not an image", "a broken PNG"])
def test_unreadable_picture_is_named(pictures, workers, how):
    path = pictures.path(4)
    reason = damaged(path, how)
    requests = [Request(torch.tensor([0, 1])), Request(torch.tensor([2, 4]), torch.tensor([1, 2]))]
    batches = load(pictures, requests, workers, CPU)
    assert next(batches).shape == (2, 3, 224, 224)
    with pytest.raises(UserError) as caught:
        next(batches)
    text = str(caught.value)
    assert text.startswith(f"{path} {reason}")
    assert text.endswith(".")
    assert "\n" not in text


def test_many_names_are_sent_to_a_worker_in_a_few_bytes_each():
    names = [f"bicycle_final/1110{i:08d}_{i % 7}.JPG" for i in range(20_000)]
    pictures = ImageFiles(Path("data"), names, list(range(20_000)))
    sent = pickle.dumps(pictures)
    assert len(sent) < 20_000 * (max(map(len, names)) + 8) + 2_000  # a name and an int64
    again = pickle.loads(sent)
    assert again.path(123) == Path("data") / names[123]
    assert again.labels.equal(pictures.labels)


def test_names_need_not_be_ascii_or_utf_8(tmp_path):
    names = ["Gr\u00fcnspecht.jpg", os.fsdecode(b"\xff\xfe.jpg")]
    for name in names:
        trees.picture(tmp_path / "plain.jpg")
        (tmp_path / "plain.jpg").rename(tmp_path / name)
    assert ImageFiles(tmp_path, names, [0, 1]).batch(torch.tensor([0, 1])).shape == (2, 3, 224, 224)
