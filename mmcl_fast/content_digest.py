"""A file's SHA-256, kept in the file itself: readers notice any changed byte before they use it.

The writer puts `BLANK` into the metadata of the format, then `fill` hashes the file and overwrites
the zeros. The metadata section (a Parquet footer, a safetensors header) and all other bytes have a
digest each, so the metadata alone can be checked without reading the rest:

    mmcl-sha256:<64 hexadecimal digits of the section, its own 64 digits taken as zeros>
                <64 hexadecimal digits of all bytes outside of the section>

This finds damage. It is no signature: whoever changes a file on purpose can compute its digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmcl_fast.errors import DamagedFileError

MARK = b"mmcl-sha256:"
DIGITS = 64  # of a SHA-256 in hexadecimal
BLANK = MARK.decode() + 2 * DIGITS * "0"
CHUNK = 1 << 20
PARQUET_TAIL = 8  # length of the footer, and the magic number
SAFETENSORS_HEAD = 8  # length of the header
MAX_SECTION = 1 << 30  # a damaged length asks for no more memory


@dataclass(frozen=True)
class Section:
    """The bytes `start` .. `stop` of a file, which hold its metadata."""

    start: int
    stop: int


Find = Callable[[BinaryIO], Section]


def parquet_footer(stream: BinaryIO) -> Section:
    """Where the metadata of a Parquet file are: its end.

    Raises: ValueError: the length in the file is impossible.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - PARQUET_TAIL))
    tail = stream.read(PARQUET_TAIL)
    length = int.from_bytes(tail[:4], "little") + PARQUET_TAIL
    if tail[4:] != b"PAR1" or not PARQUET_TAIL < length <= min(size, MAX_SECTION):
        raise ValueError("no footer of Parquet")
    return Section(size - length, size)


def safetensors_header(stream: BinaryIO) -> Section:
    """Where the metadata of a safetensors file are: its start.

    Raises: ValueError: the length in the file is impossible.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    length = int.from_bytes(stream.read(SAFETENSORS_HEAD), "little") + SAFETENSORS_HEAD
    if not SAFETENSORS_HEAD < length <= min(size, MAX_SECTION):
        raise ValueError("no header of safetensors")
    return Section(0, length)


def fill(path: Path, find: Find) -> None:
    """Replace the blank digest in a file's metadata by the digest of its content."""
    with path.open("rb+") as stream:
        section = find(stream)
        content = read_section(stream, section)
        place = content.index(BLANK.encode())
        rest = _digest_outside(stream, section)
        first = place + len(MARK)
        content[first + DIGITS : first + 2 * DIGITS] = rest
        own = _digest_of(content)
        stream.seek(section.start + first)
        stream.write(own + rest)


def read_section(stream: BinaryIO, section: Section) -> bytearray:
    """The bytes of a section."""
    stream.seek(section.start)
    return bytearray(stream.read(section.stop - section.start))


def check(stream: BinaryIO, section: Section, content: bytes | bytearray, *, whole: bool) -> bool:
    """Compare a file with the digest in it.

    Args:
        stream: The file.
        section: Where its metadata are.
        content: The metadata, as `read_section` gives them.
        whole: Compare all of the file; else the metadata alone.

    Returns: False for a file without a digest, as version 0.1.0 wrote them.
    Raises: ValueError: the content is not what was written.
    """
    found = content.count(MARK)
    if found == 0:
        return False
    first = content.find(MARK) + len(MARK)
    own, rest = content[first : first + DIGITS], content[first + DIGITS : first + 2 * DIGITS]
    blanked = bytearray(content)
    blanked[first : first + DIGITS] = DIGITS * b"0"
    if found > 1 or _digest_of(blanked) != own:
        raise ValueError("the SHA-256 of its metadata is not the one in it")
    if whole and _digest_outside(stream, section) != rest:
        raise ValueError("the SHA-256 of its content is not the one in it")
    return True


def damaged(path: Path, reason: object, remedy: str) -> DamagedFileError:
    """The error for a file whose content is not what was written."""
    said = f"{type(reason).__name__}: {reason}" if isinstance(reason, KeyError) else f"{reason}"
    return DamagedFileError(
        f"{path.name}: expected an undamaged file, got a damaged one in {path.parent} ({said}); "
        f"{remedy}"
    )


def _digest_of(content: bytes | bytearray) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _digest_outside(stream: BinaryIO, section: Section) -> bytes:
    """Digest of all bytes of a file that are not in a section."""
    digest = hashlib.sha256()
    end = stream.seek(0, os.SEEK_END)
    for start, stop in ((0, section.start), (section.stop, end)):
        stream.seek(start)
        left = stop - start
        while left > 0 and (chunk := stream.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode()


__all__ = [
    "BLANK",
    "MARK",
    "Section",
    "check",
    "damaged",
    "fill",
    "parquet_footer",
    "read_section",
    "safetensors_header",
]
