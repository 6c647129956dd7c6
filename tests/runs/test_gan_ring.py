"""The GAN's ring: its samples, what a set of samples has of it, their heat map."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from svmax_ops.runs.gan import figures, ring


def test_real_samples_lie_on_the_ring_in_proportion_to_the_weights():
    weights = ring.mode_weights("3,1,0,0,0,0,0,4", 0)
    samples = ring.draw(40_000, weights, torch.Generator().manual_seed(1))
    assert samples.shape == (40_000, 2)
    offset, mode = torch.cdist(samples.double(), ring.centres()).min(1)
    shares = torch.bincount(mode, minlength=8).double() / len(samples)
    torch.testing.assert_close(shares, weights, atol=0.01, rtol=0)
    assert offset.square().mean().sqrt().item() == pytest.approx(0.02 * math.sqrt(2), rel=0.02)
    torch.testing.assert_close(ring.centres().norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))


def test_random_weights_are_those_of_the_seed():
    assert ring.mode_weights("random", 1).equal(ring.mode_weights("random", 1))
    assert not ring.mode_weights("random", 1).equal(ring.mode_weights("random", 2))


def test_a_mode_counts_from_one_percent_of_the_samples():
    centres = ring.centres()
    aside = centres[7] + torch.tensor([0.3, 0.0])
    origin = torch.zeros(2, dtype=torch.float64)
    places = {9: centres[0], 10: centres[1], 181: centres[2], 20: aside, 780: origin}
    samples = torch.cat([place.expand(count, 2) for count, place in places.items()])
    found = ring.coverage(samples, len(samples))
    assert (found["modes"], found["modes_wide"]) == (2, 3)
    assert found["high_quality"] == pytest.approx(0.2)
    assert found["high_quality_wide"] == pytest.approx(0.22)


def test_singular_values_are_those_of_a_batch():
    samples = ring.draw(1000, ring.mode_weights("uniform", 0), torch.Generator().manual_seed(0)) + 1
    found = ring.coverage(samples, 250)
    expected = torch.linalg.svdvals(samples.double()) / 2
    assert found["singular_values"] == pytest.approx(expected.tolist())
    centred = torch.linalg.svdvals((samples - samples.mean(0)).double()) / 2
    assert found["singular_values_centred"] == pytest.approx(centred.tolist(), rel=1e-5)
    assert found["radius_99"] == pytest.approx(torch.quantile(samples.norm(dim=1), 0.99).item())


def test_samples_that_are_not_finite_cover_nothing():
    found = ring.coverage(torch.full((100, 2), float("nan")), 10)
    assert (found["modes"], found["high_quality_wide"], found["radius_99"]) == (0, 0, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.fixture
def heat_map(tmp_path) -> Path:
    """Of samples at (2, 0) and (0, -1); without the suffix."""
    samples = torch.tensor([[2.0, 0.0], [0.0, -1.0]]).repeat(50, 1)
    settings = {"batch_size": 16, "mode_weights": "uniform"}
    figures.draw_grid({"row": [figures.panel(samples, settings)]}, ["step 1"], tmp_path, "map")
    return tmp_path / "map"


def test_a_sample_is_drawn_where_it_lies(heat_map):
    image = np.asarray(Image.open(heat_map.with_suffix(".png")).convert("RGB")).astype(int)
    rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1] > 200) & (image[..., 2] < 100))  # yellow
    frame = np.nonzero((image == image[rows[0], columns[0] - 20]).all(-1))  # the heat map's ground
    top, bottom, left, right = frame[0].min(), frame[0].max(), frame[1].min(), frame[1].max()
    x = 6 * (columns - left) / (right - left) - 3
    y = 3 - 6 * (rows - top) / (bottom - top)
    assert {(round(a), round(b)) for a, b in zip(x, y, strict=True)} == {(2, 0), (0, -1)}


def test_a_heat_map_in_an_svg_has_a_pixel_a_cell_and_a_palette(heat_map):
    text = heat_map.with_suffix(".svg").read_text()
    (found,) = re.findall(r'data:image/png;base64,([^"]+)"', text)
    cells = Image.open(io.BytesIO(base64.b64decode(found)))
    assert (cells.mode, cells.size) == ("P", (72, 72))
    assert f'width="{cells.width}" height="{cells.height}" transform="matrix(' in text
    colours = np.asarray(cells.convert("RGB"))
    yellow, ground = (matplotlib.colormaps["viridis"](end, bytes=True)[:3] for end in (1.0, 0.0))
    lit = (colours == yellow).all(-1)
    assert (colours[~lit] == ground).all()
    rows, columns = np.nonzero(lit)
    assert {(int(c), int(r)) for c, r in zip(columns, rows, strict=True)} == {(60, 36), (36, 24)}  # y upwards
