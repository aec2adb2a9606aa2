"""`Table1Config`: every choice of the ColoredMNIST protocol, validated; free of torch and NumPy.

The paper gives data and numbers but no encoder, optimiser, temperature, augmentation or readout;
the defaults are the interpretation of `docs/table1.md`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from mmcl_fast.data.mnist.colour_rule import ColourRule, check_choices
from mmcl_fast.errors import ConfigError
from mmcl_fast.stream_tags import MAX_EPOCH

ArmName = Literal["multi", "single", "single_full", "two_head", "supervised"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
SETS = ("train", "id", "rand", "rev")
# Accuracies printed in the paper's Table 1, in percent; its test set is the reversed one.
# Which images and classes they count is not stated.
PAPER: MappingProxyType[str, dict[str, float]] = MappingProxyType(
    {"multi": {"train": 87.77, "rev": 82.13}, "single": {"train": 88.43, "rev": 12.68}}
)


@dataclass(frozen=True, kw_only=True)
class Views:
    """SimCLR's augmentations for the second and first view of the single-modal arm."""

    min_area: float = 0.08
    """Smallest share of the image's area in a crop; the largest is 1. > 0 to 1; 1: no crop."""
    flip: float = 0.0
    """Probability of a horizontal flip. 0 to 1."""
    jitter: float = 0.0
    """Strength s of SimCLR's colour jitter (0.8 s, 0.8 s, 0.8 s, hue 0.2 s). 0: none, to 1.25."""
    grey: float = 0.0
    """Probability of a grey view. 0 to 1."""

    def __post_init__(self) -> None:
        for name, high in (("min_area", 1.0), ("flip", 1.0), ("jitter", 1.25), ("grey", 1.0)):
            value = getattr(self, name)
            if not 0.0 <= value <= high or (name == "min_area" and value == 0.0):
                low = "(0" if name == "min_area" else "[0"
                raise ConfigError(f"{name}: expected a number in {low}, {high:g}], got {value!r}")


# SimCLR's whole set at the strength that its authors use for small images (CIFAR-10: s = 0.5).
FULL_VIEWS = Views(flip=0.5, jitter=0.5, grey=0.2)


@dataclass(frozen=True, kw_only=True)
class Table1Config:
    """Settings of the experiment, validated.

    Raises: ConfigError: a value is out of its range.
    """

    colours: ColourRule = field(default_factory=ColourRule)
    """How labels and colours are drawn."""
    views: Views = field(default_factory=Views)
    """Augmentations of the single-modal arm."""
    images: int = 20_000
    """Training images, drawn at random. 1 to 60000 (50000 with test_from split)."""
    test_from: Literal["official", "split"] = "official"
    """Test images: the official file, or the last sixth of the training file."""
    pixels: Literal["all", "every_second"] = "all"
    """28 x 28 pixels, or every second row and column."""
    caption: Literal["label", "digit"] = "label"
    """Digit entry of the caption: the noisy label, or the true digit."""
    same_caption: Literal["negative", "ignored"] = "negative"
    """Pairs of equal captions in a batch: negatives like any other, or left out."""
    encoder: Literal["cnn", "mlp"] = "cnn"
    """Three convolutions of stride 2 and a linear map, or two hidden layers."""
    hidden: int = 390
    """Width of each layer of the MLP. At least 1."""
    epochs: int = 5
    """Epochs of training. At least 1."""
    batch: int = 256
    """Images of a minibatch; a last short one is dropped. At least 2."""
    learning_rate: float = 1e-3
    """Adam's step size. > 0."""
    multi_temperature: float = 0.1
    """Temperature of the multi-modal InfoNCE. > 0."""
    single_temperature: float = 0.5
    """Temperature of NT-Xent. > 0."""
    probe_l2: float = 0.01
    """Penalty of the linear probe: mean cross-entropy + probe_l2 |W|^2. >= 0."""
    few_labels: int = 500
    """Labelled images of the small probe; the first ones. At least 2, at most images."""
    few_l2: float = 5e-4
    """Penalty of the small probe. >= 0."""
    few_epochs: int = 5
    """Epochs of the short linear probe on features of length 1, by Adam from 0. At least 1."""
    probe_iterations: int = 200
    """Most L-BFGS iterations of a probe. At least 1."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name, low, high in (
            ("images", 1, 60_000),
            ("hidden", 1, 65_536),
            ("epochs", 1, MAX_EPOCH),
            ("batch", 2, 60_000),
            ("few_labels", 2, 60_000),
            ("few_epochs", 1, MAX_EPOCH),
            ("probe_iterations", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: expected an integer in {low} .. {high}, got {value}")
        for name in ("learning_rate", "multi_temperature", "single_temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: expected a finite number > 0, got {value!r}")
        for name in ("probe_l2", "few_l2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}: expected a finite number >= 0, got {value!r}")
        for name in ("batch", "few_labels"):
            if getattr(self, name) > self.images:
                raise ConfigError(
                    f"{name}: expected at most images = {self.images}, got {getattr(self, name)}"
                )

    @property
    def side(self) -> int:
        """Pixels along a side of an image."""
        return 28 if self.pixels == "all" else 14

    @property
    def steps(self) -> int:
        """Optimiser steps of one arm."""
        return self.epochs * (self.images // self.batch)

    def replace(self, **changes: Any) -> Table1Config:
        """A changed copy, validated; names of `colours` and `views` work too."""
        names = {f.name for f in dataclasses.fields(self)}
        for group in ("colours", "views"):
            inner = getattr(self, group)
            inner_changes = {
                k: changes.pop(k) for k in list(changes) if k not in names and hasattr(inner, k)
            }
            if inner_changes:
                changes[group] = dataclasses.replace(inner, **inner_changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, flat."""
        flat: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            flat |= value if isinstance(value, Mapping) else {name: value}
        return flat


def setting_names() -> list[str]:
    """Every setting, those of the parts included."""
    return list(Table1Config().to_dict())


def quick(cfg: Table1Config) -> Table1Config:
    """At most 6000 images and 3 epochs; its numbers are not those of the table."""
    return cfg.replace(images=min(cfg.images, 6_000), epochs=min(cfg.epochs, 3))


__all__ = [
    "ARMS",
    "FULL_VIEWS",
    "PAPER",
    "SETS",
    "ArmName",
    "Table1Config",
    "Views",
    "quick",
    "setting_names",
]
