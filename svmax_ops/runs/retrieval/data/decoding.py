"""An image file as the eye sees it: upright, on white ground, from black to white in 8 bits of red, green and blue."""

from __future__ import annotations

import logging
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from svmax_ops.runs.errors import UserError

# What Pillow raises for a damaged file, by its format.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError),
    *(struct.error, KeyError, TypeError, IndexError),
)
_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # modes with more than 8 bits, which convert() would cut off
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_I_OF_16_BITS = ("PNG", "PPM")  # formats whose 16 bits Pillow reads, or once read, into mode I
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the latter two

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints its errors; they are raised as well


def read_rgb(path: Path) -> Image.Image:
    """The picture in the file, as ``to_rgb`` makes it; of several pages or frames the first.

    Raises:
        UserError: the file is missing, damaged or no image, or its white is not known; names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large, or oddly written: either it can be read, or a sentence says no
            with Image.open(path) as image:
                image.load()
                return to_rgb(image)
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that Pillow can read.") from error
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(f"{path} cannot be read: {reason}.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB: upright by its EXIF orientation, what is transparent composed on white.

    Wide numbers are scaled by the range that the file has for them, the same for every picture: 12 or 16 bits, or 0 to
    1 for floating point. A picture's own extremes would make a dark one as bright as any.

    Args:
        image: of any mode, loaded.
    Raises:
        ValueError: wide numbers outside that range, or whole numbers of 32 bits, for which files have none.
    """
    orientation = _orientation(image)
    if image.mode in _WIDE:
        image = _in_8_bits(image)
    image = _with_8_bit_transparency(image)
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if orientation == 1:
        return image
    bare = Image.new("RGB", image.size)  # without the file's metadata, which exif_transpose would have to rewrite
    bare.paste(image)
    bare.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(bare)


def _orientation(image: Image.Image) -> int:
    """1, upright, to 8, by the EXIF standard."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever damaged metadata lead to: the pixels are whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey picture of wide numbers in mode L, or LA where one of them stands for transparent."""
    values = np.asarray(image)
    white = _white(image)
    lowest, highest = values.min(), values.max()
    if not 0 <= lowest <= highest <= white:  # nor NaN
        raise ValueError(f"its numbers are from {lowest:g} to {highest:g}; accepted are those from 0 to {white}")
    grey = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # which Pillow does for 8 bits alone
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    opaque = values != image.info["transparency"]
    return Image.fromarray(np.stack([grey, np.uint8(255) * opaque], axis=-1))


def _white(image: Image.Image) -> int:
    """The number that stands for white.

    Raises:
        ValueError: the file does not say it.
    """
    if image.mode == "F":
        return 1
    bits, signed = (32 if image.mode == "I" and image.format not in _I_OF_16_BITS else 16), False
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (bits,))[0]
        signed = image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    if bits > 16:
        raise ValueError(f"none of its {bits}-bit whole numbers is known to be white; save it with 8 or 16 bits")
    return 2 ** (bits - signed) - 1


def _with_8_bit_transparency(image: Image.Image) -> Image.Image:
    """Pillow reads a PNG of three times 16 bits in 8, but leaves its transparent colour in 16."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(part >> 8 for part in colour)
    return image
