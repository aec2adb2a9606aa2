"""The images of a seed: training images and the three test sets, and the classes of their files."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmcl_fast.data.mnist.colored_mnist import (
    CLASSES,
    ColouredDigits,
    Kind,
    coloured_digits,
    subset,
)
from mmcl_fast.data.mnist.files import Digits
from mmcl_fast.errors import DataError
from mmcl_fast.experiments.table1.protocol import Table1Config


class _Part(NamedTuple):
    images: npt.NDArray[np.uint8]
    digits: npt.NDArray[np.uint8]


def make_sets(digits: Digits, cfg: Table1Config, seed: int) -> dict[str, ColouredDigits]:
    """The training images and the three test sets of a seed, on the CPU, by their names in SETS.

    Raises: DataError: fewer images than asked for, or none to score 0 against 1.
    """
    training, test = _parts(digits, cfg)
    available = len(training.digits)
    if cfg.images > available:
        raise DataError(
            f"images: expected at most the {available} training images, got {cfg.images}"
        )
    step = 1 if cfg.pixels == "all" else 2
    tint = partial(coloured_digits, rule=cfg.colours, seed=seed)
    sets = {
        "train": tint(
            digits.train_images[:, ::step, ::step],
            digits.train_labels,
            "train",
            part="train",
            index=subset(available, cfg.images, seed=seed),
        )
    }
    kinds: tuple[Kind, ...] = ("id", "rand", "rev")
    small = test.images[:, ::step, ::step]
    sets |= {kind: tint(small, test.digits, kind, part="test") for kind in kinds}
    _check_labels(sets, cfg, seed)
    return sets


def digit_shares(
    digits: Digits, cfg: Table1Config
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Share of each true class, [10], among the images that training ones and test ones are of."""
    training, test = _parts(digits, cfg)
    shares = [np.bincount(p.digits, minlength=CLASSES) / len(p.digits) for p in (training, test)]
    return shares[0], shares[1]


def _parts(digits: Digits, cfg: Table1Config) -> tuple[_Part, _Part]:
    """Images to draw training images from, and test images."""
    whole = _Part(digits.train_images, digits.train_labels)
    if cfg.test_from == "official":
        return whole, _Part(digits.test_images, digits.test_labels)
    split = len(whole.digits) - len(whole.digits) // 6
    return _Part(*(a[:split] for a in whole)), _Part(*(a[split:] for a in whole))


def _check_labels(sets: dict[str, ColouredDigits], cfg: Table1Config, seed: int) -> None:
    """Accuracies 0 against 1, and those on the tied classes, need images to count."""
    for kind, data in sets.items():
        for label in (0, 1):
            if not (data.labels == label).any():
                raise DataError(
                    f"images: expected some labelled {label} in every set, got none among the "
                    f"{len(data)} of {kind}, seed {seed}"
                )
    few = sets["train"].labels[: cfg.few_labels]
    if cfg.colours.tied == "first_two" and not (few < 2).any():
        raise DataError(
            f"few_labels: expected images labelled 0 or 1 among the first {cfg.few_labels}, got "
            f"none, seed {seed}"
        )


__all__ = ["digit_shares", "make_sets"]
