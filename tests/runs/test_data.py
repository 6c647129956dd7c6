"""The data sets: reproducible, split by class, and as hard as their names say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.fonts import draw_fonts, usable_faces
from svmax_ops.runs.retrieval.data.pictures import split_classes
from svmax_ops.runs.retrieval.data.strokes import JITTERS, draw_strokes
from svmax_ops.runs.retrieval.evaluation import recalls


def test_strokes_come_from_their_seed():
    pictures, labels = draw_strokes("medium", seed=0, classes=5)
    assert pictures.shape == (200, 32, 32)
    assert pictures.dtype == np.uint8
    assert labels.tolist() == sorted([0, 1, 2, 3, 4] * 40)
    assert np.array_equal(pictures, draw_strokes("medium", seed=0, classes=5)[0])
    assert not np.array_equal(pictures, draw_strokes("medium", seed=1, classes=5)[0])
    ink = pictures.reshape(200, -1).mean(1) / 255
    assert ink.min() > 0.01  # none is empty
    assert ink.max() < 0.6


def test_more_jitter_is_harder():
    found = []
    for jitter in ("mild", "medium", "strong"):
        pictures, labels = draw_strokes(jitter, seed=0, classes=60)
        pixels = torch.from_numpy(pictures).flatten(1).float()
        found.append(recalls(pixels, torch.from_numpy(labels))["recall_at_1"])
    assert set(JITTERS) == {"mild", "medium", "strong"}
    assert found[0] > found[1] + 0.1 > found[2] + 0.2


def test_classes_are_split_and_not_pictures():
    pictures = np.arange(60, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    train, test = split_classes(pictures, np.repeat(np.arange(20), 3))
    classes = set(train.labels.tolist()), set(test.labels.tolist())
    assert classes[0] | classes[1] == set(range(20))
    assert not classes[0] & classes[1]
    assert len(classes[0]) == 10
    for part in (train, test):
        assert (part.pixels[:, 0, 0] // 3).equal(part.labels.to(torch.uint8))  # pictures went with their labels
        batch = part.batch(torch.tensor([1, 0]))
        assert batch.shape == (2, *part.shape)
        assert batch[0, 0, 0, 0].item() == pytest.approx(part.pixels[1, 0, 0].item() / 255)


def test_fonts_come_from_their_seed(fonts_root: Path):
    pictures, labels, left_out = draw_fonts(fonts_root, "medium", seed=0)
    assert pictures.shape == (60 * (labels.max() + 1), 32, 32)
    assert np.array_equal(pictures, draw_fonts(fonts_root, "medium", seed=0)[0])
    assert (pictures.reshape(len(pictures), -1).max(1) > 100).all()  # none is empty
    names = {path.name for path in fonts_root.iterdir() if path.suffix == ".ttf"}
    assert len(names) == labels.max() + 1 + len(left_out)


def test_unusable_typefaces_are_left_out_and_named(fonts_root: Path, tmp_path: Path):
    for name in ("DejaVuSans.ttf", "DejaVuSerif.ttf", "STIXSizOneSymReg.ttf"):
        shutil.copy(fonts_root / name, tmp_path)
    shutil.copy(fonts_root / "DejaVuSans.ttf", tmp_path / "ZCopy.ttf")
    (tmp_path / "Broken.otf").write_text("<html>not found</html>")
    (tmp_path / "notes.txt").write_text("not a font")
    faces, left_out = usable_faces(tmp_path)
    assert [face.font.getname()[0] for face in faces] == ["DejaVu Sans", "DejaVu Serif"]
    broken, symbols, copy = left_out
    assert broken.startswith("Broken.otf: does not open")
    assert symbols == "STIXSizOneSymReg.ttf: draws 0 distinct letters, fewer than 10"
    assert copy == "ZCopy.ttf: looks the same as DejaVuSans.ttf"
    with pytest.raises(UserError, match=r"--root .* has 2 usable .ttf or .otf typefaces; at least 4 are needed"):
        draw_fonts(tmp_path, "medium", seed=0)
    with pytest.raises(UserError, match=r"--root .*nowhere is not a folder"):
        draw_fonts(tmp_path / "nowhere", "medium", seed=0)
