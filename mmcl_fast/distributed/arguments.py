"""Checks of a distributed loss's own arguments; what they have in common is in `validation`."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from mmcl_fast.losses.dispatch import scalar
from mmcl_fast.losses.validation import (
    check_bias,
    check_features,
    check_like_query,
    check_temperature,
    is_readable,
)


def check_pairs(name: str, first: Tensor, other: str, second: Tensor) -> None:
    """Pairs [n, D], n >= 1, in one dtype and on one device.

    Raises:
        TypeError, ValueError: They are not.
    """
    check_features(name, first)
    check_like_query(other, second, first, name)
    if len(second) != len(first):
        raise ValueError(f"{other}: expected the {len(first)} rows of {name}, got {len(second)}")
    check_some_rows(name, first)


def check_some_rows(name: str, rows: Tensor) -> None:
    """At least one row, as a rank without rows has no loss to return.

    Raises:
        ValueError: There is none.
    """
    if not len(rows):
        raise ValueError(f"{name}: expected at least 1 row on every rank, got 0")


def zero_dim(x: float | Tensor) -> float | Tensor:
    """A parameter of shape [1], as FSDP2 shards them, without its axis; all else as it is."""
    return x.reshape(()) if isinstance(x, Tensor) and x.shape == (1,) else x


def temperature_of(temperature: float | Tensor, like: Tensor) -> Tensor:
    """The temperature of a loss of `like`, 0-d.

    Raises:
        TypeError, ValueError: As for `check_temperature`.
    """
    temperature = zero_dim(temperature)
    check_temperature(temperature, like.device)
    return scalar(temperature, like)


def bias_of(bias: float | Tensor, like: Tensor) -> Tensor:
    """The bias of a loss of `like`, 0-d.

    Raises:
        TypeError, ValueError: As for `check_bias`.
    """
    bias = zero_dim(bias)
    check_bias(bias, like.device)
    return scalar(bias, like)


def temperature_of_scale(scale: float | Tensor, like: Tensor) -> Tensor:
    """1 / scale, 0-d, in at least the compute dtype of `like`.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Not of one element, on another device, or (read on a CPU only) out of range.
    """
    scale = zero_dim(scale)
    _check_scale(scale, like.device)
    # Widened first: the inverse of a bfloat16 scale is not rounded to bfloat16.
    wide = scalar(scale, like)
    return (wide if wide.dtype == torch.float64 else wide.to(scalar(1.0, like).dtype)).reciprocal()


def _check_scale(scale: object, device: torch.device) -> None:
    if isinstance(scale, Tensor):
        if not scale.is_floating_point():
            raise TypeError(f"scale: expected a floating tensor, got {scale.dtype}")
        if scale.dim():
            raise ValueError(
                f"scale: expected a tensor of shape [] or [1], got {list(scale.shape)}"
            )
        if scale.device != device:
            raise ValueError(
                f"scale: expected a tensor on {device} as the features are, got {scale.device}"
            )
        if not is_readable(scale):
            return
        scale = scale.item()
    elif isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"scale: expected a number or a tensor, got {type(scale).__name__}")
    try:
        value = float(scale)
    except OverflowError:  # an integer of a few hundred digits
        value = math.inf
    float32 = torch.finfo(torch.float32)
    if not 1 / float32.max <= value <= 1 / float32.tiny:
        raise ValueError(
            "scale: expected a number > 0 whose inverse is in the normal range of float32, "
            f"got {value}"
        )


__all__ = [
    "bias_of",
    "check_pairs",
    "check_some_rows",
    "temperature_of",
    "temperature_of_scale",
    "zero_dim",
]
