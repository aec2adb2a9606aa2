"""A tiny stand-in for MNIST in its format: ten fixed patterns with noise, easy to tell apart."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

NAMES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


def idx_bytes(values: np.ndarray) -> bytes:
    """IDX bytes of a uint8 array, written independently of the reader."""
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def make_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [count, 28, 28] and labels [count]; the ten patterns are the same for every seed."""
    patterns = np.random.default_rng(7).random((10, 7, 7)) < 0.5
    patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    shade = rng.integers(120, 256, (count, 28, 28))
    ink = rng.random((count, 28, 28)) < 0.9
    return (patterns[labels] * shade * ink).astype(np.uint8), labels.astype(np.uint8)


def write_digits(folder: Path, train: int = 600, test: int = 200) -> Path:
    """The four gzipped files, as MNIST is distributed."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count, seed in (("train", train, 1), ("test", test, 2)):
        images, labels = make_digits(count, seed)
        for key, values in ((f"{part}_images", images), (f"{part}_labels", labels)):
            (folder / NAMES[key]).write_bytes(gzip.compress(idx_bytes(values), mtime=0))
    return folder
