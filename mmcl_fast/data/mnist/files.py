"""The four files of MNIST: where they may lie, whether they are the genuine ones, what they hold.

MNIST: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998; licence CC BY-SA 3.0. The MD5 sums of the archives are those
that torchvision checks; the sums of the contents are of the same files, unpacked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmcl_fast.data.mnist.idx import MAX_VALUES, contents, md5_of, parse_idx
from mmcl_fast.errors import DataError

Checksums = Literal["mnist", "none"]
SIDE = 28  # pixels
LARGEST = 16 + 60_000 * SIDE * SIDE  # bytes of the largest published file, unpacked
CLASSES = 10
# The folder itself, and where torchvision keeps the files below its root.
FOLDERS = ("", "MNIST/raw")
HOW_TO_GET = (
    "get the four files with mmcl table1 --data DIR --download, or copy "
    "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz into DIR"
)


@dataclass(frozen=True)
class Published:
    """One file as published.

    Attributes:
        name: Name of the archive.
        size: Bytes of the archive.
        md5: MD5 of the archive.
        content_md5: MD5 of the unpacked file.
        ndim: Dimensions of its array.
    """

    name: str
    size: int
    md5: str
    content_md5: str
    ndim: int


FILES = MappingProxyType(
    {
        "train_images": Published(
            "train-images-idx3-ubyte.gz",
            9912422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
            3,
        ),
        "train_labels": Published(
            "train-labels-idx1-ubyte.gz",
            28881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
            1,
        ),
        "test_images": Published(
            "t10k-images-idx3-ubyte.gz",
            1648877,
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
            3,
        ),
        "test_labels": Published(
            "t10k-labels-idx1-ubyte.gz",
            4542,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
            1,
        ),
    }
)


@dataclass(frozen=True)
class Digits:
    """Images of digits and what they show; NumPy uint8, read-only.

    Attributes:
        train_images: [N, 28, 28], 0 is ground, 255 ink.
        train_labels: [N], 0 .. 9.
        test_images: [M, 28, 28].
        test_labels: [M].
        md5: Checksum of each unpacked file, by the names above.
    """

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]
    md5: dict[str, str]


def load_digits(folder: Path, checksums: Checksums = "mnist") -> Digits:
    """Read the four files.

    Args:
        folder: Holds them, or their torchvision layout (MNIST/raw); gzipped or unpacked, with the
            published names or with a dot before idx.
        checksums: "mnist": only the genuine files; "none": any IDX files of these names and of
            28 x 28 pixels (Fashion-MNIST, KMNIST, a test's own).

    Returns: The arrays.
    Raises: DataError: A file is missing, truncated, corrupt or another one; the message names it,
        the expected and the found checksum, and how to get the files.
    """
    places = {key: find_file(folder, file) for key, file in FILES.items()}
    missing = [FILES[key].name for key, place in places.items() if place is None]
    if missing:
        raise DataError(
            f"data: expected {', '.join(missing)} in {str(folder)!r}, got no such file; "
            f"{HOW_TO_GET}"
        )
    arrays, sums = {}, {}
    for key, place in places.items():
        assert place is not None
        arrays[key], sums[key] = _verified(place, FILES[key], checksums)
    digits = Digits(**arrays, md5=sums)
    _check_arrays(digits, places)
    return digits


def find_file(folder: Path, file: Published) -> Path | None:
    """Where a file lies: the published archive first, then the unpacked file."""
    unpacked = file.name.removesuffix(".gz")
    dotted = unpacked.replace("-idx", ".idx")
    names = (file.name, unpacked, f"{dotted}.gz", dotted)
    candidates = (folder / below / name for below in FOLDERS for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _verified(
    path: Path, file: Published, checksums: Checksums
) -> tuple[npt.NDArray[np.uint8], str]:
    try:
        data = contents(path, LARGEST if checksums == "mnist" else MAX_VALUES)
    except DataError as error:
        raise DataError(f"{error}{_wanted(path, file, checksums)}") from error
    found = md5_of(data)
    # The content decides: an archive packed anew holds the same digits.
    if checksums == "mnist" and found != file.content_md5:
        raise DataError(
            f"{path}: expected the content of {file.name} with MD5 {file.content_md5}, got {found}"
            f"{_wanted(path, file, checksums)}"
        )
    return parse_idx(data, file.ndim, path), found


def _wanted(path: Path, file: Published, checksums: Checksums) -> str:
    if checksums == "none":
        return ""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(
                stream, partial(hashlib.md5, usedforsecurity=False)
            ).hexdigest()
    except OSError:
        found = "unreadable"
    return (
        f" (archive: expected {file.size} bytes with MD5 {file.md5}, got {found}); remove it and "
        f"{HOW_TO_GET}"
    )


def _check_arrays(digits: Digits, places: dict[str, Path | None]) -> None:
    for part in ("train", "test"):
        images, labels = getattr(digits, f"{part}_images"), getattr(digits, f"{part}_labels")
        where = places[f"{part}_images"]
        if images.shape[1:] != (SIDE, SIDE):
            raise DataError(f"{where}: expected images of 28 x 28 pixels, got {images.shape}")
        if len(images) != len(labels):
            raise DataError(f"{where}: expected {len(labels)} images, got {len(images)}")
        if len(labels) == 0:
            raise DataError(f"{where}: expected at least one image, got 0")
        if labels.max() >= CLASSES:
            raise DataError(
                f"{places[f'{part}_labels']}: expected labels 0 .. 9, got {labels.max()}"
            )


__all__ = ["FILES", "HOW_TO_GET", "Checksums", "Digits", "Published", "find_file", "load_digits"]
