"""IDX files, the format of MNIST: raw or gzipped, every length checked before it is believed.

Format (http://yann.lecun.com/exdb/mnist/): two zero bytes, a byte for the type, a byte for the
number of dimensions, the dimensions as big-endian 32-bit integers, then the values in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mmcl_fast.errors import DataError
from mmcl_fast.files import open_regular

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08
MAX_VALUES = 2**31  # far above any file of digits; a corrupt header may ask for more than memory
CHUNK = 1 << 20
SLACK = 1 << 20  # bytes beyond what the header says that are read, to say what is wrong


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


def contents(path: Path, most: int = MAX_VALUES) -> bytes:
    """The bytes of a file, unpacked if it is gzipped.

    Args:
        path: The file.
        most: Largest number of bytes, unpacked. No more than its header asks for are unpacked,
            either: a few kilobytes of gzip can hold gigabytes.

    Raises: DataError: not readable, not gzip where it starts like gzip, or too large.
    """
    try:
        with open_regular(path) as stream:
            packed = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            stream.seek(0)
            return _bounded(gzip.GzipFile(fileobj=stream) if packed else stream, path, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: expected a whole gzip archive, got {error}") from error
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable file, got {error.strerror or error}"
        ) from error


def _bounded(stream: io.BufferedIOBase | BinaryIO, path: Path, most: int) -> bytes:
    """All bytes of a stream, unless there are more than its IDX header says, or than `most`."""
    head = stream.read(4)
    ndim = head[3] if head[:3] == bytes((0, 0, UNSIGNED_BYTES)) and len(head) == 4 else 0
    head += stream.read(4 * ndim)
    stated = 0
    if ndim and len(head) == 4 + 4 * ndim:
        stated = len(head) + math.prod(struct.unpack(f">{ndim}I", head[4:]))
    limit = min(stated + SLACK, most)
    found = bytearray(head)
    while len(found) <= limit and (chunk := stream.read(CHUNK)):
        found += chunk
    if len(found) > limit:
        raise DataError(f"{path}: expected an IDX file of at most {limit} bytes, got more")
    return bytes(found)


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
