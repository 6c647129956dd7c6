"""How every figure looks: colours that the colour-blind tell apart, sizes that fit a page, files written whole."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image

from svmax_ops.runs.harness import write_atomically

# Okabe and Ito's palette; each with a line style of its own, for print without colour.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#7A7A7A"
REGULARIZERS = {
    "none": (VERMILLION, "--", "s"),
    "svmax": (BLUE, "-", "o"),
    "svmax-centred": (PURPLE, ":", "D"),
    "spread-out": (GREEN, "-.", "^"),
}
FURTHER = (ORANGE, GREY)  # for a second and third variant of one regularizer
NAMES = {  # in the order of tables and legends
    "none": "without SVMax",
    "svmax": "with SVMax",
    "svmax-centred": "with SVMax, centred",
    "spread-out": "with spread-out",
    "contrastive": "contrastive",
    "triplet": "hard triplet",
    "npair": "N-pair",
    "angular": "angular",
}
DPI = 200
_EMBEDDED = re.compile(rb"(?<=data:image/png;base64,)[^\"]+")  # the images in an SVG

_STYLE = {
    "font.size": 8,
    "axes.titlepad": 5,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "svmax_ops",
}
styled = matplotlib.style.context(["default", _STYLE])
"""Decorates every function that draws: matplotlib looks its sizes up while drawing.

From matplotlib's own defaults: a user's matplotlibrc may ask for LaTeX or for a typeface that is not here.
"""


def plain(text: str) -> str:
    """A user's name, for a title or a legend as it is: matplotlib would read what stands between two $ as a formula."""
    return text.replace("$", r"\$")


def figure(width: float, height: float) -> Figure:
    """A figure of so many inches that needs no display; its axes are laid out by constraints."""
    return Figure((width, height), layout="constrained")


def save(figure: Figure, *paths: Path, few_colours: bool = False) -> None:
    """Write the figure whole or not at all, as .png or .svg by the path's suffix; equal figures give equal files.

    ``few_colours``: a PNG of 256 colours, a third of the bytes, where the figure has flat colours and no photographs;
    in an SVG a palette for the images that have no more colours, and all of them opaque.
    """
    for path in paths:
        buffer = io.BytesIO()
        kind = path.suffix.removeprefix(".")
        unstamped = {"Software": None} if kind == "png" else {"Creator": None, "Date": None}
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=unstamped)
        data = buffer.getvalue()
        if few_colours:
            data = _with_palette(data) if kind == "png" else _EMBEDDED.sub(_embedded_with_palette, data)
        write_atomically(path, data)


def _with_palette(png: bytes) -> bytes:
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(buffer, "png", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue()


def _embedded_with_palette(found: re.Match[bytes]) -> bytes:
    png = base64.b64decode(found[0])
    colours = Image.open(io.BytesIO(png)).convert("RGBA").getcolors(256)  # None: more than these
    if colours is None or any(alpha < 255 for _, (*_, alpha) in colours):
        return found[0]
    return base64.b64encode(_with_palette(png))
