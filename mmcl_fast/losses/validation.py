"""What the losses accept. Every refusal names the argument, what was expected and what was got."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real

import torch
from torch import Tensor

from mmcl_fast.backends import FLOAT_DTYPES

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "negatives": ("all", "other_label"),
    "stop_gradient": (None, "key"),
    "reduction": ("mean", "sum", "none"),
}


def check_options(*, symmetric: bool, **options: str | None) -> None:
    """Each option is one of its known values.

    Raises:
        TypeError: `symmetric` is no bool.
        ValueError: An option is none of its values; the message lists them.
    """
    if not isinstance(symmetric, bool):
        raise TypeError(f"symmetric: expected a bool, got {type(symmetric).__name__}")
    for name, value in options.items():
        known = _CHOICES[name]
        if not (value is None or isinstance(value, str)) or value not in known:
            listed = " | ".join(repr(choice) for choice in known)
            raise ValueError(f"{name}: expected {listed}, got {value!r}")


def check_tensors(
    query: Tensor,
    key: Tensor,
    positive_key: Tensor | None,
    *,
    symmetric: bool,
    reduction: str,
) -> None:
    """Kinds, dtypes, devices and sizes of the feature tensors, and what `symmetric` needs.

    Raises:
        TypeError: Not a tensor, or a dtype that is not supported or not that of `query`.
        ValueError: Rank, sizes, devices or combinations.
    """
    _check_matrix("query", query)
    if query.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"query: expected dtype {_names(FLOAT_DTYPES)}, got {_names([query.dtype])}"
        )
    for name, tensor in {"key": key, "positive_key": positive_key}.items():
        if tensor is not None or name == "key":
            _check_like_query(name, tensor, query)
    n, m = len(query), len(key)
    if symmetric and positive_key is not None:
        raise ValueError("positive_key: expected None with symmetric=True, got a tensor")
    if symmetric and m != n:
        raise ValueError(f"key: expected the {n} rows of query with symmetric=True, got {m} rows")
    if positive_key is None and m < n:
        raise ValueError(
            f"key: expected at least the {n} rows of query, whose positives they are "
            f"(or give positive_key), got {m} rows"
        )
    if positive_key is not None and len(positive_key) != n:
        raise ValueError(f"positive_key: expected the {n} rows of query, got {len(positive_key)}")
    if reduction == "mean" and n == 0:
        raise ValueError('query: expected at least 1 row with reduction="mean", got 0')


def check_temperature(temperature: object, device: torch.device | None) -> None:
    """A number > 0 that float32 can hold, or such a 0-d tensor (read on a CPU only).

    Args:
        temperature: What the user gave.
        device: The device a tensor must be on; None: any.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Not 0-d, on another device, or out of range.
    """
    if isinstance(temperature, Tensor):
        if not temperature.is_floating_point():
            raise TypeError(
                f"temperature: expected a floating tensor, got {_names([temperature.dtype])}"
            )
        if temperature.dim() != 0:
            raise ValueError(
                f"temperature: expected a 0-d tensor, got shape {list(temperature.shape)}"
            )
        if device is not None and temperature.device != device:
            raise ValueError(
                f"temperature: expected a tensor on {device} as query is, got {temperature.device}"
            )
        if temperature.device.type != "cpu":
            return
        value = float(temperature.detach())
    elif isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise TypeError(
            f"temperature: expected a number or a 0-d tensor, got {type(temperature).__name__}"
        )
    else:
        value = float(temperature)
    float32 = torch.finfo(torch.float32)
    if not float32.tiny <= value <= float32.max:
        raise ValueError(
            f"temperature: expected a number > 0 in the normal range of float32, got {value}"
        )


def check_labels(
    query: Tensor,
    key: Tensor,
    labels: Tensor | None,
    key_labels: Tensor | None,
    *,
    negatives: str,
) -> tuple[Tensor, Tensor] | None:
    """Labels of the rows of `query` and of `key`, or None where every label may be a negative.

    Raises:
        TypeError: Not a tensor, complex, or two dtypes.
        ValueError: A missing one, a wrong length, or another device.
    """
    if labels is None:
        if key_labels is not None:
            raise ValueError("key_labels: expected None without labels, got a tensor")
        if negatives == "other_label":
            raise ValueError('labels: expected a tensor with negatives="other_label", got None')
        return None
    _check_label_tensor("labels", labels, query, "query")
    if key_labels is not None:
        _check_label_tensor("key_labels", key_labels, key, "key")
        if key_labels.dtype != labels.dtype:
            raise TypeError(
                f"key_labels: expected the dtype of labels, {_names([labels.dtype])}, "
                f"got {_names([key_labels.dtype])}"
            )
    if negatives != "other_label":
        return None
    if key_labels is None:
        if len(key) != len(query):
            raise ValueError(
                f"key_labels: expected a tensor, as key has {len(key)} rows and query "
                f"{len(query)}, got None"
            )
        key_labels = labels
    return labels, key_labels


def _names(dtypes: Collection[torch.dtype]) -> str:
    return " | ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _check_matrix(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dim() != 2:
        raise ValueError(f"{name}: expected [rows, features], got shape {list(tensor.shape)}")


def _check_like_query(name: str, tensor: Tensor | None, query: Tensor) -> None:
    _check_matrix(name, tensor)
    assert tensor is not None
    if tensor.dtype != query.dtype:
        raise TypeError(
            f"{name}: expected the dtype of query, {_names([query.dtype])}, "
            f"got {_names([tensor.dtype])}"
        )
    if tensor.device != query.device:
        raise ValueError(f"{name}: expected a tensor on {query.device}, got {tensor.device}")
    if tensor.shape[1] != query.shape[1]:
        raise ValueError(
            f"{name}: expected {query.shape[1]} features as in query, got {tensor.shape[1]}"
        )


def _check_label_tensor(name: str, labels: object, rows: Tensor, owner: str) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(labels).__name__}")
    if labels.is_complex():
        raise TypeError(f"{name}: expected real labels, got {_names([labels.dtype])}")
    if labels.dim() != 1 or len(labels) != len(rows):
        raise ValueError(
            f"{name}: expected shape [{len(rows)}], one label a row of {owner}, "
            f"got {list(labels.shape)}"
        )
    if labels.device != rows.device:
        raise ValueError(f"{name}: expected a tensor on {rows.device}, got {labels.device}")


__all__ = ["check_labels", "check_options", "check_temperature", "check_tensors"]
