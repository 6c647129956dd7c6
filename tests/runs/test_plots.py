"""How figures are saved."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
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


def test_a_figure_is_the_same_whatever_the_users_matplotlibrc_asks_for(tmp_path):
    @plots.styled
    def draw(path: Path) -> bytes:
        figure = plots.figure(2, 2)
        figure.subplots().set(title="R@1, %", xlabel="λ_")
        plots.save(figure, path)
        return path.read_bytes()

    plain = draw(tmp_path / "plain.png")
    theirs = {"text.usetex": True, "font.family": ["No Such Typeface"], "savefig.bbox": "tight", "axes.facecolor": "r"}
    with matplotlib.rc_context(theirs):
        assert draw(tmp_path / "theirs.png") == plain
        assert matplotlib.rcParams["text.usetex"]  # a notebook's own figures stay as they were


@pytest.mark.processes
def test_matplotlib_is_loaded_whatever_backend_a_notebook_asks_for():
    code = "from svmax_ops.cli import main; main(['--help']); import matplotlib; print(matplotlib.get_backend())"
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.no_such_backend"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\nagg\n")
