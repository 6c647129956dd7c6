"""Arrays of bytes in IDX form, as MNIST and Fashion-MNIST are published, plain or compressed by gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from svmax_ops.runs.errors import UserError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of so many ``dimensions`` in an IDX file: two zero bytes, the type, the number of dimensions,
    each size as a big-endian int32, then the bytes, the last index fastest.

    Raises:
        UserError: the file cannot be read, is of another kind, or is longer or shorter than its sizes say; names it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return _read(file, dimensions)
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        reason = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
        raise UserError(f"{path} cannot be read: {reason}.") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or no IDX file of {dimensions} dimension(s): {error}.") from error


def _read(file: BinaryIO, dimensions: int) -> np.ndarray:
    header = file.read(4 + 4 * dimensions)
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if header[:4] != expected:
        raise ValueError(f"it begins with {header[:4].hex(' ') or 'nothing'} instead of {expected.hex(' ')}")
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"it ends after {len(header)} bytes, in the header")
    sizes = struct.unpack(f">{dimensions}i", header[4:])
    if min(sizes) < 1:
        raise ValueError(f"its sizes are {_times(sizes)}")
    data = file.read()
    if len(data) != math.prod(sizes):
        raise ValueError(f"{_times(sizes)} values are announced, {len(data)} are there")
    return np.frombuffer(data, np.uint8).reshape(sizes)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
