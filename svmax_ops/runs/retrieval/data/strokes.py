"""Invented characters drawn from a seed: a retrieval set in the spirit of Omniglot that needs no download."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.pictures import DATA_SEED, RetrievalData, split_classes

CLASSES = 200
DRAWINGS = 40
SIZE = 32  # pixels a side

_SUPERSAMPLING = 4
_CURVE = np.linspace(0.0, 1.0, 13)  # where a Bezier curve is evaluated; finer is not visible at 32 pixels
_BERNSTEIN = np.stack([(1 - _CURVE) ** 2, 2 * _CURVE * (1 - _CURVE), _CURVE**2])  # [3 control points, 13]
_TOUCHING = 0.6  # probability that a stroke begins on the one before
_CONTROL_POINT_SD = 0.045  # how far a drawing moves each control point
_PEN_WIDTHS = (2.0, 4.0)  # pixels of the final picture


class Jitter(NamedTuple):
    """The affine that tells two drawings of one character apart; lengths in units of the picture's side."""

    rotation_sd: float  # radians
    smallest: float  # scale, drawn for each axis
    largest: float
    shear_sd: float
    shift: float  # uniform in +- shift


JITTERS = {
    "mild": Jitter(0.15, 0.80, 1.10, 0.15, 0.06),
    "medium": Jitter(0.20, 0.72, 1.10, 0.20, 0.09),
    "strong": Jitter(0.30, 0.65, 1.10, 0.25, 0.12),
}


def strokes(config: RetrievalConfig) -> RetrievalData:
    return RetrievalData(*split_classes(*draw_strokes(config.jitter, DATA_SEED)))


def draw_strokes(jitter: str, seed: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Every drawing of every character.

    Args:
        jitter: a key of ``JITTERS``.
        seed: of the characters and of their drawings; the same seed gives the same bytes.
        classes: how many characters.
    Returns:
        pictures uint8 ``[classes * 40, 32, 32]`` (0 paper, 255 ink), labels int64 ``[classes * 40]``.
    """
    rng = np.random.default_rng(seed)
    pictures = np.empty((classes, DRAWINGS, SIZE, SIZE), np.uint8)
    for label in range(classes):
        character = _invent(rng)
        for drawing in range(DRAWINGS):
            pictures[label, drawing] = _draw(character, JITTERS[jitter], rng)
    return pictures.reshape(-1, SIZE, SIZE), np.repeat(np.arange(classes), DRAWINGS)


def random_affine(jitter: Jitter, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A linear map [2, 2] about the picture's centre and the shift [2] after it."""
    angle = rng.normal(0, jitter.rotation_sd)
    scale = np.diag(rng.uniform(jitter.smallest, jitter.largest, 2))
    shear = np.array([[1, rng.normal(0, jitter.shear_sd)], [0, 1]])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ shear @ scale, rng.uniform(-jitter.shift, jitter.shift, 2)


def _invent(rng: np.random.Generator) -> np.ndarray:
    """A character: the control points [strokes, 3, 2] of its two to four quadratic Bezier strokes."""
    strokes = rng.uniform(0.12, 0.88, (rng.integers(2, 5), 3, 2))
    for i in range(1, len(strokes)):
        if rng.random() < _TOUCHING:
            on_the_one_before = _BERNSTEIN[:, rng.integers(len(_CURVE))] @ strokes[i - 1]
            strokes[i, 0] = on_the_one_before
    return strokes


def _draw(character: np.ndarray, jitter: Jitter, rng: np.random.Generator) -> np.ndarray:
    control_points = character + rng.normal(0, _CONTROL_POINT_SD, character.shape)
    linear, shift = random_affine(jitter, rng)
    control_points = (control_points - 0.5) @ linear.T + 0.5 + shift
    side = SIZE * _SUPERSAMPLING
    width = rng.uniform(*_PEN_WIDTHS) * _SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for curve in np.einsum("kt,skx->stx", _BERNSTEIN, control_points) * side:
        pen.line([tuple(point) for point in curve.tolist()], fill=255, width=round(width), joint="curve")
        for x, y in curve[[0, -1]].tolist():  # round ends
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLING))
