"""From the arguments of other libraries to those of ours."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from mmcl_fast.losses.backends import FLOAT_DTYPES
from mmcl_fast.losses.contrast import compute_dtype
from mmcl_fast.losses.validation import is_readable

# Their inverses are normal float32, too.
_LEAST, _MOST = 1 / torch.finfo(torch.float32).max, 1 / torch.finfo(torch.float32).tiny


def check_features(name: str, features: object, *, rank: int = 2) -> None:
    """A tensor of this rank in a supported dtype.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Another rank.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(features).__name__}")
    if features.dtype not in FLOAT_DTYPES:
        known = " | ".join(_short(dtype) for dtype in FLOAT_DTYPES)
        raise TypeError(f"{name}: expected dtype {known}, got {_short(features.dtype)}")
    if features.dim() != rank:
        raise ValueError(f"{name}: expected {rank} axes, got shape {list(features.shape)}")


def check_like(name: str, features: Tensor, owner: str, others: Tensor) -> None:
    """Dtype, device and number of features of `features` [.., D] are those of `others` [N, D].

    Dtypes may differ under autocast: what they become is for the loss to say.

    Args:
        name: Of the argument, for the message.
        features: Of which `check_features` has seen the rank.
        owner: Name of the argument `others`.
        others: A matrix.

    Raises:
        TypeError: Its dtype.
        ValueError: Its device or size.
    """
    if features.dtype != others.dtype and not _is_under_autocast(others.device):
        raise TypeError(
            f"{name}: expected the dtype of {owner}, {_short(others.dtype)}, "
            f"got {_short(features.dtype)}"
        )
    if features.device != others.device:
        raise ValueError(
            f"{name}: expected a tensor on {others.device} as {owner} is, got {features.device}"
        )
    if features.shape[-1] != others.shape[-1]:
        raise ValueError(
            f"{name}: expected {others.shape[-1]} features as in {owner}, got {features.shape[-1]}"
        )


def check_pairs(name: str, features: Tensor, owner: str, others: Tensor) -> None:
    """As `check_like`, and row i of `features` [N, D] belongs to row i of `others` [N, D].

    Raises:
        TypeError, ValueError: As for `check_like`; another number of rows.
    """
    check_like(name, features, owner, others)
    if features.shape[0] != others.shape[0]:
        raise ValueError(
            f"{name}: expected the {others.shape[0]} rows of {owner}, got {features.shape[0]}"
        )


def scale_of(name: str, scale: float | Tensor, features: Tensor) -> float | Tensor:
    """The factor of a loss's logits, and inverse temperature, that an argument gives.

    Args:
        name: Of the argument, for the message.
        scale: A number > 0, or a floating tensor of one element; its value is read on a CPU only.
        features: Whose device the result gets.

    Returns: A number, or a 0-d tensor through which `scale` is differentiated: float64 if `scale`
        or `features` are, else float32.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Several elements, or not > 0, finite and with an inverse in the normal range of
            float32.
    """
    value = _value(name, scale)
    if value is not None and not _LEAST <= value <= _MOST:
        limits = "" if not 0 < value < math.inf else " with an inverse that float32 can hold"
        raise ValueError(f"{name}: expected a finite number > 0{limits}, got {value}")
    if not isinstance(scale, Tensor):
        return float(scale)
    double = torch.float64 in (scale.dtype, features.dtype)
    dtype = torch.float64 if double else torch.float32
    if scale.dtype != dtype or scale.device != features.device:
        scale = scale.to(features.device, dtype)
    return scale.reshape(()) if scale.dim() else scale


def temperature_of(name: str, scale: float | Tensor, features: Tensor) -> float | Tensor:
    """1 / scale, the temperature of a loss whose logits are multiplied by `scale`.

    Arguments and errors are those of `scale_of`.

    Returns: A number, or a 0-d tensor through which `scale` is differentiated.
    """
    factor = scale_of(name, scale, features)
    return factor.reciprocal() if isinstance(factor, Tensor) else 1 / factor


def is_not_finite(name: str, scalar: float | Tensor) -> bool:
    """Whether a number, or a tensor of one element on a CPU, is NaN or infinite.

    Raises:
        TypeError: Neither a number nor a floating tensor.
    """
    if isinstance(scalar, Tensor) and scalar.numel() != 1:
        return False
    value = _value(name, scalar)
    # Not math.isfinite, which cannot be traced for a number that varies between calls.
    return value is not None and not -math.inf < value < math.inf


def with_key_bias(
    query: Tensor, key: Tensor, scale: float | Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows whose scores at temperature 1 are scale * <q_i, k_j> + bias_j.

    Each has one coordinate more: 1 in the queries, bias_j in the keys.

    Args:
        query: [N, D].
        key: [M, D].
        scale: A number > 0, or a floating tensor of one element.
        bias: [M].

    Returns: Queries [N, D + 1] and keys [M, D + 1], float64 if `query` is, else float32.

    Raises:
        TypeError, ValueError: `scale`, as for `temperature_of`.
    """
    value = _value("logit_scale", scale)
    if value is not None and not value > 0:
        raise ValueError(f"logit_scale: expected a finite number > 0, got {value}")
    wide = compute_dtype(query)
    factor = scale.to(query.device, wide).reshape(()) if isinstance(scale, Tensor) else scale
    scaled = query.to(wide) * factor
    last = bias.to(query.device, wide)[:, None]
    queries = torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1)
    return queries, torch.cat([key.to(wide), last], dim=1)


def _is_under_autocast(device: torch.device) -> bool:
    # Some kinds of device, such as meta, know no autocast, and asking of them is an error.
    known = torch.amp.is_autocast_available(device.type)
    return known and torch.is_autocast_enabled(device.type)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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


__all__ = [
    "check_features",
    "check_like",
    "check_pairs",
    "is_not_finite",
    "scale_of",
    "temperature_of",
    "with_key_bias",
]
