"""Typefaces as classes: a picture is two random letters of one face. Fine-grained, real, and only a folder away."""

from __future__ import annotations

import string
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFont

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.pictures import DATA_SEED, RetrievalData, split_classes
from svmax_ops.runs.retrieval.data.strokes import JITTERS, SIZE, Jitter, random_affine

PICTURES = 60  # a face
FEWEST_LETTERS = 10
_POINTS = 40  # size at which a letter is drawn before it is fitted into the picture
_FILL = 0.9  # share of the picture that the longer side of two letters takes before the affine
_SUPERSAMPLING = 2
_MISSING_GLYPH = 3  # a bitmap that this many letters share stands for "no such letter", sometimes as a logo


class Face(NamedTuple):
    font: ImageFont.FreeTypeFont
    letters: str
    """Those that it really draws."""
    look: frozenset[bytes]
    """Its letters' bitmaps: equal for two names of one face."""


def fonts(config: RetrievalConfig) -> RetrievalData:
    if config.root is None:
        raise UserError("--dataset fonts needs --root, a folder of .ttf or .otf files.")
    pixels, labels, left_out = draw_fonts(config.root, config.jitter, DATA_SEED)
    found = f"{labels.max() + 1} typefaces from {config.root}, {len(left_out)} files left out"
    return RetrievalData(*split_classes(pixels, labels), (found, *(f"  {line}" for line in left_out)))


def draw_fonts(root: Path, jitter: str, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sixty pictures of every usable face below ``root``.

    Args:
        root: searched with its subfolders for .ttf and .otf files.
        jitter: a key of ``strokes.JITTERS``.
        seed: of the letters and their affine maps; the same files and seed give the same bytes.
    Returns:
        pictures uint8 ``[faces * 60, 32, 32]`` (0 paper, 255 ink), labels int64 ``[faces * 60]``, and which files were
        left out and why.
    Raises:
        UserError: ``root`` is no folder, or has fewer than four usable faces (two to train on, two to test).
    """
    faces, left_out = usable_faces(root)
    if len(faces) < 4:
        raise UserError(f"--root {root} has {len(faces)} usable .ttf or .otf typefaces; at least 4 are needed.")
    rng = np.random.default_rng(seed)
    pictures = np.empty((len(faces), PICTURES, SIZE, SIZE), np.uint8)
    for label, face in enumerate(faces):
        for i in range(PICTURES):
            pictures[label, i] = _draw(face, JITTERS[jitter], rng)
    return pictures.reshape(-1, SIZE, SIZE), np.repeat(np.arange(len(faces)), PICTURES), left_out


def usable_faces(root: Path) -> tuple[list[Face], list[str]]:
    """The faces that open, draw at least ten distinct letters and look like no other; and a line on each other file."""
    if not root.is_dir():
        raise UserError(f"--root {root} is not a folder.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))
    faces: dict[frozenset[bytes], tuple[Path, Face]] = {}
    left_out = []
    for path in files:
        try:
            face = _open(path)
        except (OSError, ValueError) as error:  # what Pillow raises for a file that is no font, or a broken one
            left_out.append(f"{path.name}: does not open ({error})")
            continue
        if len(face.look) < FEWEST_LETTERS:
            left_out.append(f"{path.name}: draws {len(face.look)} distinct letters, fewer than {FEWEST_LETTERS}")
        elif face.look in faces:
            left_out.append(f"{path.name}: looks the same as {faces[face.look][0].name}")
        else:
            faces[face.look] = path, face
    return [face for _, face in faces.values()], left_out


def _open(path: Path) -> Face:
    font = ImageFont.truetype(str(path), _POINTS)
    bitmaps = {letter: _bitmap(font, letter) for letter in string.ascii_letters}
    count = Counter(bitmaps.values())
    letters = [letter for letter, bitmap in bitmaps.items() if any(bitmap) and count[bitmap] < _MISSING_GLYPH]
    return Face(font, "".join(letters), frozenset(bitmaps[letter] for letter in letters))


def _bitmap(font: ImageFont.FreeTypeFont, text: str) -> bytes:
    mask = font.getmask(text, "L")
    return bytes(mask)


def _draw(face: Face, jitter: Jitter, rng: np.random.Generator) -> np.ndarray:
    text = "".join(face.letters[i] for i in rng.integers(len(face.letters), size=2))
    mask = face.font.getmask(text, "L")
    letters = Image.frombytes("L", mask.size, bytes(mask))
    letters = letters.crop(letters.getbbox())
    side = SIZE * _SUPERSAMPLING
    linear, shift = random_affine(jitter, rng)
    # Pillow asks for the way back, from a pixel of the result to one of the letters.
    back = np.linalg.inv(linear) * max(letters.size) / (_FILL * side)
    offset = np.array(letters.size) / 2 - back @ (side * (0.5 + shift))
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    fitted = letters.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(fitted.reduce(_SUPERSAMPLING))
