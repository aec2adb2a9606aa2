"""From the arguments of other libraries to those of ours."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.losses.validation import is_readable


def unit_rows(x: Tensor) -> Tensor:
    """The last axis of `x` over its Euclidean norm, in the dtype of `x`; a zero row stays zero.

    Computed in float32 (float64 for float64) and rounded once: a norm rounded to bfloat16 would
    scale its whole row by up to 0.2 %.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    return normalize(wide, dim=-1).to(x.dtype)


def check_features(name: str, features: object, *, rank: int = 2) -> None:
    """A floating tensor of this rank.

    Raises:
        TypeError: Not a tensor, or not a floating one.
        ValueError: Another rank.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(features).__name__}")
    if not features.is_floating_point():
        raise TypeError(f"{name}: expected a floating tensor, got {features.dtype}")
    if features.dim() != rank:
        raise ValueError(f"{name}: expected {rank} axes, got shape {list(features.shape)}")


def temperature_of(name: str, scale: float | Tensor, features: Tensor) -> float | Tensor:
    """1 / scale, the temperature of a loss whose logits are multiplied by `scale`.

    Args:
        name: Of the argument, for the message.
        scale: A number > 0, or a floating tensor of one element; its value is read on a CPU only.
        features: Whose device the temperature gets.

    Returns: A number, or a 0-d tensor through which `scale` is differentiated: float64 if `scale`
        or `features` are, else float32.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Several elements, or not > 0 and finite.
    """
    value = _value(name, scale)
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")
    if not isinstance(scale, Tensor):
        return 1 / float(scale)
    double = torch.float64 in (scale.dtype, features.dtype)
    wide = scale.to(features.device, torch.float64 if double else torch.float32)
    return wide.reshape(()).reciprocal()


def _value(name: str, scale: object) -> float | None:
    """Of a number or a tensor of one element; None where it cannot be read now."""
    if isinstance(scale, Tensor):
        if not scale.is_floating_point():
            raise TypeError(f"{name}: expected a floating tensor, got {scale.dtype}")
        if scale.numel() != 1:
            raise ValueError(f"{name}: expected one element, got shape {list(scale.shape)}")
        return scale.item() if is_readable(scale) else None
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(scale).__name__}")
    return float(scale)


__all__ = ["check_features", "temperature_of", "unit_rows"]
