"""Image files as the eye sees them, by their values: every mode that Pillow has, in the files that can hold it."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.decoding import read_rgb, to_rgb

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
# The formats that hold a mode without loss; none for the modes that no file has, or none that Pillow writes.
FORMATS = {
    "1": ("PNG", "TIFF", "GIF", "BMP", "PPM"),
    "L": ("PNG", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"),
    "P": ("PNG", "TIFF", "GIF", "BMP"),
    "RGB": ("PNG", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"),
    "RGBA": ("PNG", "TIFF", "JPEG2000", "TGA"),
    "LA": ("PNG", "TIFF", "JPEG2000", "TGA"),
    "PA": ("TIFF",),
    "CMYK": ("TIFF", "JPEG2000"),
    "YCbCr": ("TIFF",),
    "LAB": ("TIFF",),
    "RGBX": ("TIFF",),
    "I": ("PPM",),
    "F": ("TIFF", "PPM"),
    "I;16": ("PNG", "TIFF", "PPM", "JPEG2000"),
    "I;16B": ("PNG", "TIFF"),
    "I;16L": ("TIFF",),
    "I;16N": (),
    "HSV": (),
    "La": (),
    "RGBa": (),
}
# Tags of a TIFF file.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSET, SAMPLES, ROWS, BYTES, EXTRA, FORMAT = (
    *(256, 257, 258, 259, 262, 273, 277, 278, 279, 338, 339),
)


def in_mode(mode: str, grey: np.ndarray) -> Image.Image:
    """The uint8 picture in a mode, from its black to its white."""
    if mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        kind = {"I": "=i4", "I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
        return Image.frombytes(mode, grey.shape[::-1], (grey.astype(kind) * 257).astype(kind).tobytes())
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    image = Image.fromarray(grey)
    for step in {"La": ("LA", "La"), "P": ("P",), "PA": ("P", "PA")}.get(mode, ("RGB", mode)):
        image = image.convert(step)
    return image


def written(path: Path, image: Image.Image, file_format: str, **options: object) -> Path:
    image.save(path, file_format, **{"irreversible": False} if file_format == "JPEG2000" else {}, **options)
    return path


def tiff(path: Path, values: np.ndarray, tags: dict[int, int | Sequence[int]]) -> Path:
    """A little-endian file of one uncompressed strip ``values``, ``[height, width or bytes a row, ...]``."""
    whole = {
        WIDTH: values.shape[1],
        HEIGHT: values.shape[0],
        COMPRESSION: 1,
        PHOTOMETRIC: 1,
        OFFSET: 0,
        SAMPLES: 1,
        ROWS: values.shape[0],
        BYTES: values.nbytes,
        **tags,
    }
    lists = {tag: value for tag, value in whole.items() if not isinstance(value, int)}
    end = 8 + 2 + 12 * len(whole) + 4
    places, further = {}, b""
    for tag, value in lists.items():
        places[tag] = end + len(further)
        further += struct.pack(f"<{len(value)}I", *value)
    whole[OFFSET] = end + len(further)
    entries = b"".join(
        struct.pack("<HHII", tag, 4, len(lists.get(tag, [0])), places.get(tag, whole[tag])) for tag in sorted(whole)
    )
    header = struct.pack("<2sHIH", b"II", 42, 8, len(whole))
    path.write_bytes(header + entries + bytes(4) + further + values.tobytes())
    return path


def png(path: Path, values: np.ndarray, colours: int, transparent: Sequence[int]) -> Path:
    """A file of big-endian 16-bit ``values``, ``[height, width, ...]``, with the colour that stands for transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colours, 0, 0, 0)
    chunks = {b"IHDR": head, b"tRNS": struct.pack(f">{len(transparent)}H", *transparent), b"IDAT": zlib.compress(rows)}
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks.items(), (b"IEND", b"")]))
    return path


@pytest.fixture(autouse=True)
def silence(capfd, recwarn):
    """Nothing that Pillow has to say reaches the user."""
    warnings.simplefilter("always")
    yield
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("mode", Image.MODES)
def test_a_grey_ramp_keeps_its_values_in_every_mode(tmp_path, mode):
    grey = np.where(RAMP < 128, 0, 255).astype(np.uint8) if mode == "1" else RAMP
    image = in_mode(mode, grey)
    error = 2 if mode == "LAB" else 1  # whose 8 bits are other steps than sRGB's
    if mode != "I":  # which has a white in a file alone
        np.testing.assert_allclose(np.asarray(to_rgb(image), int), grey[..., None].repeat(3, 2), 0, error)
    for file_format in FORMATS[mode]:
        path = written(tmp_path / "picture", image, file_format)
        picture = read_rgb(path)
        assert picture.mode == "RGB"
        np.testing.assert_allclose(
            np.asarray(picture, int), grey[..., None].repeat(3, 2), 0, error, err_msg=file_format
        )


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_a_grey_ramp_keeps_its_values_but_for_what_compression_loses(tmp_path, mode, file_format):
    if (mode, file_format) == ("RGBA", "JPEG"):
        mode = "YCbCr"  # which JPEG has, and alpha not
    picture = read_rgb(written(tmp_path / "picture", in_mode(mode, RAMP), file_format))
    np.testing.assert_allclose(np.asarray(picture, int), RAMP[..., None].repeat(3, 2), atol=6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_colours_keep_their_values_in_every_mode_that_has_some(mode):
    colours = np.array([[[200, 60, 60], [60, 160, 70], [50, 70, 190], [220, 220, 90], [90, 30, 60]]], np.uint8)
    image = Image.fromarray(colours)
    for step in {"PA": ("P", "PA"), "RGBa": ("RGBA", "RGBa")}.get(mode, (mode,)):
        image = image.quantize(8) if step == "P" else image.convert(step)
    error = 12 if mode == "LAB" else 4  # a step of its 8 bits changes a blue's little red by as much
    np.testing.assert_allclose(np.asarray(to_rgb(image), int), colours, atol=error)


def test_numbers_of_12_bits_fill_the_range(tmp_path):
    values = np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))
    packed = np.stack(
        [values[:, ::2] >> 4, (values[:, ::2] & 15) << 4 | values[:, 1::2] >> 8, values[:, 1::2] & 255], 2
    )
    path = tiff(tmp_path / "a.tif", packed.astype(np.uint8).reshape(48, 96), {WIDTH: 64, BITS: 12})
    np.testing.assert_allclose(np.asarray(read_rgb(path), int)[..., 0], RAMP, atol=1)


@pytest.mark.parametrize(("kind", "white"), [(np.uint16, 65535), (np.float32, 1)])
def test_white_that_is_zero_is_white(tmp_path, kind, white):
    values = (RAMP.astype(float) * white / 255).astype(kind)
    tags = {BITS: 8 * values.itemsize, FORMAT: 3 if kind == np.float32 else 1, PHOTOMETRIC: 0}
    np.testing.assert_allclose(
        np.asarray(read_rgb(tiff(tmp_path / "a.tif", values, tags)), int)[..., 2], 255 - RAMP, 0, 1
    )


def test_signed_numbers_of_16_bits_fill_the_range(tmp_path):
    values = (RAMP.astype(float) * 32767 / 255).round().astype(np.int16)
    path = tiff(tmp_path / "a.tif", values, {BITS: 16, FORMAT: 2})
    np.testing.assert_allclose(np.asarray(read_rgb(path), int)[..., 1], RAMP, atol=1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.float32([[0, 0.5, 1.25]]), "its numbers are from 0 to 1.25; accepted are those from 0 to 1"),
        (np.float32([[-0.5, 1]]), "its numbers are from -0.5 to 1; accepted are those from 0 to 1"),
        (np.float32([[0, np.nan]]), "its numbers are from nan to nan; accepted are those from 0 to 1"),
        (np.int16([[-3, 9]]), "its numbers are from -3 to 9; accepted are those from 0 to 32767"),
        (np.int32([[0, 9]]), "none of its 32-bit whole numbers is known to be white; save it with 8 or 16 bits"),
    ],
)
def test_numbers_without_a_white_are_refused_by_name(tmp_path, values, reason):
    tags = {BITS: 8 * values.itemsize, FORMAT: 3 if values.dtype == np.float32 else 2}
    path = tiff(tmp_path / "a.tif", values, tags)
    with pytest.raises(UserError) as caught:
        read_rgb(path)
    assert str(caught.value) == f"{path} cannot be read: {reason}."


# Transparency


def glyph(mode: str) -> Image.Image:
    """Black, on the left opaque, in the middle half transparent, on the right wholly."""
    alpha = np.repeat(np.uint8([255, 128, 0]), 20)[None].repeat(40, 0)
    black = np.zeros_like(alpha)
    image = Image.fromarray(np.stack([black, black, black, alpha], 2))
    if mode == "PA":
        return Image.merge("PA", (image.convert("L").convert("P"), image.getchannel("A")))
    return (image.convert("LA") if mode == "La" else image).convert(mode)


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *(("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("RGBA", "TGA"), ("RGBA", "JPEG2000"), ("RGBA", "ICO")),
        *(("LA", "PNG"), ("LA", "TIFF"), ("PA", "TIFF"), ("PA", ""), ("La", ""), ("RGBa", "")),
    ],
)
def test_a_black_glyph_on_transparent_ground_is_composed_on_white(tmp_path, mode, file_format):
    image = glyph(mode)
    options = {"lossless": True} if file_format == "WEBP" else {"sizes": [(60, 40)]} if file_format == "ICO" else {}
    picture = read_rgb(written(tmp_path / "a", image, file_format, **options)) if file_format else to_rgb(image)
    expected = np.repeat([0, 127, 255], 20)[None, :, None]
    np.testing.assert_allclose(np.asarray(picture, int), np.broadcast_to(expected, (40, 60, 3)), atol=1)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_grey_with_either_kind_of_alpha_in_a_tiff_file_is_composed_on_white(tmp_path, premultiplied):
    pairs = np.uint8([[[100, 255], [50 if premultiplied else 100, 128], [0, 0]]]).repeat(4, 0)
    path = tiff(tmp_path / "a.tif", pairs, {BITS: (8, 8), SAMPLES: 2, EXTRA: 1 if premultiplied else 2})
    np.testing.assert_allclose(np.asarray(read_rgb(path), int)[0, :, 0], [100, 177, 255], atol=1)


def palette_image() -> Image.Image:
    """Colours 0 to 3, black, red, blue and white, in columns."""
    image = Image.fromarray(np.uint8([[0, 1, 2, 3]]).repeat(4, 0).repeat(4, 1), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255, 255, 255, 255])
    return image


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_becomes_white(tmp_path, file_format):
    path = written(tmp_path / "a", palette_image(), file_format, transparency=0)
    assert [read_rgb(path).getpixel((4 * i, 0)) for i in range(4)] == [
        *((255, 255, 255), (255, 0, 0), (0, 0, 255), (255, 255, 255)),
    ]


def test_palette_with_an_alpha_for_each_colour_is_composed_on_white(tmp_path):
    path = written(tmp_path / "a", palette_image(), "PNG", transparency=bytes([0, 128, 255, 255]))
    picture = np.asarray(read_rgb(path), int)[0, ::4]
    np.testing.assert_allclose(picture, [[255] * 3, [255, 127, 127], [0, 0, 255], [255] * 3], atol=1)


@pytest.mark.parametrize(
    ("mode", "transparent", "seen"),
    [("1", 0, [255, 255]), ("L", 40, [255, 200]), ("RGB", (40, 40, 40), [255, 200])],
)
def test_one_transparent_colour_of_a_png_file_becomes_white(tmp_path, mode, transparent, seen):
    image = Image.fromarray(np.uint8([[40, 200]]).repeat(8, 0).repeat(8, 1)).convert(mode, dither=Image.Dither.NONE)
    path = written(tmp_path / "a.png", image, "PNG", transparency=transparent)
    assert np.asarray(read_rgb(path))[0, ::8].tolist() == [[grey] * 3 for grey in seen]


def test_one_transparent_colour_of_16_bits_becomes_white(tmp_path):
    values = np.uint16([[0, 257 * 90, 40_000, 40_001]])
    assert np.asarray(read_rgb(png(tmp_path / "a.png", values, 0, [40_000])))[0, :, 0].tolist() == [0, 90, 255, 156]
    colours = values[..., None].repeat(3, 2)
    picture = read_rgb(png(tmp_path / "a.png", colours, 2, [257 * 90] * 3))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 255, 156, 156]


# Orientation


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_orientation(tmp_path, file_format, orientation):
    upright = np.uint8([[0, 80], [160, 240], [40, 200]]).repeat(32, 0).repeat(32, 1)
    stored = {  # of the EXIF standard: where the first row and the first column of what is stored are to be seen
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    picture = read_rgb(written(tmp_path / "a", image, file_format, exif=exif))
    assert picture.size == (64, 96)
    np.testing.assert_allclose(np.asarray(picture, int)[16::32, 16::32, 0], upright[16::32, 16::32], atol=6)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_cost_no_picture(tmp_path, file_format, exif):
    path = written(tmp_path / "a", in_mode("RGB", RAMP), file_format, exif=b"Exif\0\0" + exif)
    np.testing.assert_allclose(np.asarray(read_rgb(path), int), RAMP[..., None].repeat(3, 2), atol=6)


# What Pillow warns of


def test_a_large_picture_is_read_without_a_warning_and_a_huge_one_is_refused_by_name(tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", in_mode("L", RAMP), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size - 1)
    assert read_rgb(path).size == (64, 48)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size // 3)
    with pytest.raises(UserError, match=r"a\.png cannot be read: Image size \(3072 pixels\) exceeds limit"):
        read_rgb(path)


def test_oddly_written_files_are_read_without_a_warning(tmp_path):
    animation = PngImagePlugin.PngInfo()
    animation.add(b"acTL", bytes(8))  # an animation of no frames
    np.testing.assert_array_equal(
        np.asarray(read_rgb(written(tmp_path / "a.png", in_mode("L", RAMP), "PNG", pnginfo=animation)))[..., 0], RAMP
    )
    path = tiff(tmp_path / "a.tif", RAMP, {BITS: 8, 700: (1,) * 500_000})
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<HHI", 700, 4, 500_000))
    data[place + 8 : place + 12] = struct.pack("<I", 0x7FFFFFFF)  # a tag whose data lie behind the end
    path.write_bytes(data)
    np.testing.assert_array_equal(np.asarray(read_rgb(path))[..., 0], RAMP)


def test_what_pillow_logs_of_an_image_that_it_cannot_read_is_not_printed(tmp_path):
    path = tiff(tmp_path / "a.tif", RAMP, {BITS: 8, SAMPLES: 9})  # Pillow logs an error
    with pytest.raises(UserError, match=r"a\.tif is not an image that Pillow can read"):
        read_rgb(path)
