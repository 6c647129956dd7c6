"""How figures are saved."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svmax_ops.runs import plots


def embedded(pixels: np.ndarray, path: Path, few_colours: bool) -> Image.Image:
    """The image in an SVG of ``pixels``."""
    figure = plots.figure(2, 2)
    figure.subplots().imshow(pixels, interpolation="none")
    plots.save(figure, path, few_colours=few_colours)
    (found,) = re.findall(r'data:image/png;base64,\s*([^"]+)"', path.read_text())
    return Image.open(io.BytesIO(base64.b64decode(found)))


@pytest.mark.parametrize(("colours", "alpha", "mode"), [(256, 255, "P"), (257, 255, "RGBA"), (2, 128, "RGBA")])
def test_an_image_in_an_svg_keeps_every_pixel(tmp_path, colours, alpha, mode):
    """With a palette where that can be."""
    numbers = np.arange(600).reshape(20, 30) % colours
    pixels = np.stack([numbers % 256, numbers // 256 * 90, 255 - numbers % 256, np.full_like(numbers, alpha)], -1)
    plain, few = (embedded(pixels.astype(np.uint8), tmp_path / f"{few}.svg", few) for few in (False, True))
    assert few.mode == mode
    assert len(plain.getcolors(600)) == colours
    np.testing.assert_array_equal(few.convert("RGBA"), plain.convert("RGBA"))
