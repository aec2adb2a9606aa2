"""IDX files, the format of MNIST: raw or gzipped, every length checked before it is believed.

Format (http://yann.lecun.com/exdb/mnist/): two zero bytes, a byte for the type, a byte for the
number of dimensions, the dimensions as big-endian 32-bit integers, then the values in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmcl_fast.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08
MAX_VALUES = 2**31  # far above any file of digits; a corrupt header may ask for more than memory


def read_idx(path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """The values of an IDX file of unsigned bytes.

    Args:
        path: The file; gzip is recognised by its first bytes, not by its name.
        ndim: How many dimensions it must have, 1 .. 255.

    Returns: uint8 array of the shape in the header, read-only.
    Raises: DataError: Not readable, not gzip where it starts like gzip, another magic number,
        fewer or more values than the header says. The message names file, expected and got.
    """
    return parse_idx(contents(path), ndim, path)


def contents(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped. Raises: DataError."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror}") from error
    if not packed.startswith(GZIP_MAGIC):
        return packed
    try:
        return gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: expected a whole gzip archive, got {error}") from error


def parse_idx(data: bytes, ndim: int, path: Path) -> npt.NDArray[np.uint8]:
    """The values of IDX bytes; `path` is what messages call them. Raises: DataError."""
    magic = bytes((0, 0, UNSIGNED_BYTES, ndim))
    if data[:4] != magic:
        raise DataError(f"{path}: expected IDX magic {magic.hex()}, got {data[:4].hex() or 'none'}")
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(f"{path}: expected a header of {start} bytes, got a file of {len(data)}")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    count = math.prod(shape)
    if count > MAX_VALUES:
        raise DataError(f"{path}: expected at most {MAX_VALUES} values, got a header of {shape}")
    if len(data) - start != count:
        raise DataError(f"{path}: expected {count} values for {shape}, got {len(data) - start}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def md5_of(data: bytes) -> str:
    """MD5 in hexadecimal: the published checksum of these files, no protection against malice."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


__all__ = ["contents", "md5_of", "parse_idx", "read_idx"]
