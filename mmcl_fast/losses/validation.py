"""Checks of the losses' arguments; messages name the argument, the expected and the given value."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Real

import torch
from torch import Tensor

from mmcl_fast.losses.backends import FLOAT_DTYPES

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "negatives": ("all", "other_label"),
    "stop_gradient": (None, "key"),
    "reduction": ("mean", "sum", "none"),
}


# The normal range of float32.
_LEAST, _MOST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


def check_not_traced() -> None:
    """`torch.jit.trace` is not active: it would record the values of one call.

    Raises:
        RuntimeError: It is.
    """
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError(
            "mmcl_fast losses: expected no torch.jit.trace, which would record the values of one "
            "call instead of the loss; torch.export and torch.compile are supported"
        )


def check_options(**options: object) -> None:
    """Each option is one of its known values, and the others are bools.

    Raises:
        TypeError: One that is a switch is no bool.
        ValueError: An option is none of its values; the message lists them.
    """
    for name, value in options.items():
        if name not in _CHOICES:
            if not isinstance(value, bool):
                raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
            continue
        known = _CHOICES[name]
        if not (value is None or isinstance(value, str)) or value not in known:
            listed = " | ".join(repr(choice) for choice in known)
            raise ValueError(f"{name}: expected {listed}, got {value!r}")


def check_tensors(query: Tensor, key: Tensor, *, reduction: str) -> None:
    """Kinds, dtypes, devices and sizes of query [N, D] and key [M, D].

    Raises:
        TypeError: Not a tensor, or a dtype that is not supported or not that of `query`.
        ValueError: Rank, sizes or devices.
    """
    check_features("query", query)
    if key is not query:
        check_like_query("key", key, query)
    if reduction == "mean" and query.shape[0] == 0:
        raise ValueError('query: expected at least 1 row with reduction="mean", got 0')


def check_positives(
    query: Tensor,
    key: Tensor,
    *,
    positive: Tensor | None,
    positive_key: Tensor | None,
    symmetric: bool,
    exclude_self: bool,
) -> None:
    """Where the positives are, and what that leaves of the other options.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Sizes, devices, indices (read on a CPU only) or combinations.
    """
    n, m = query.shape[0], key.shape[0]
    given = {"positive": positive, "positive_key": positive_key}
    for name, tensor in given.items():
        if symmetric and tensor is not None:
            raise ValueError(f"{name}: expected None with symmetric=True, got a tensor")
    if positive is not None and positive_key is not None:
        raise ValueError("positive: expected None beside positive_key, got a tensor")
    if symmetric and m != n:
        raise ValueError(f"key: expected the {n} rows of query with symmetric=True, got {m} rows")
    if exclude_self and positive is None and positive_key is None:
        raise ValueError(
            "exclude_self: expected False without positive, positive_mask, targets or "
            "positive_key, as row i of key is then the positive of query i, got True"
        )
    if positive is not None:
        _check_rows("positive", positive, query, m)
    elif positive_key is not None:
        check_like_query("positive_key", positive_key, query)
        if positive_key.shape[0] != n:
            raise ValueError(
                f"positive_key: expected the {n} rows of query, got {positive_key.shape[0]}"
            )
    elif m < n:
        raise ValueError(
            f"key: expected at least the {n} rows of query, whose positives they are "
            f"(or give positive, positive_mask, targets or positive_key), got {m} rows"
        )


def check_more_negatives(
    query: Tensor, extra: Tensor | None, hard: Tensor | None, *, symmetric: bool
) -> None:
    """Shared negatives [K, D] and those of each query [N, K, D].

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Rank, sizes or devices, or given with `symmetric`.
    """
    for name, tensor in {"extra_negatives": extra, "hard_negatives": hard}.items():
        if symmetric and tensor is not None:
            raise ValueError(
                f"{name}: expected None with symmetric=True (whose direction would they be in? "
                "average two calls, each with its own), got a tensor"
            )
    if extra is not None:
        check_like_query("extra_negatives", extra, query)
    if hard is not None:
        _check_tensor("hard_negatives", hard)
        if hard.dim() != 3 or hard.shape[0] != query.shape[0]:
            raise ValueError(
                f"hard_negatives: expected [{query.shape[0]}, negatives, features], "
                f"got shape {list(hard.shape)}"
            )
        _check_kind_of_query("hard_negatives", hard, query)


def check_hard_counts(hard: Tensor | None, counts: object) -> None:
    """The number of each query's hard negatives [N, K, D]: [N], in 0 .. K (read on a CPU only).

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Size, device or values, or given without hard negatives.
    """
    if counts is None:
        return
    if hard is None:
        raise ValueError("hard_negative_counts: expected None without hard_negatives, got a tensor")
    most = hard.shape[1]
    numbers = _check_indices("hard_negative_counts", counts, hard, "one number a query")
    if numbers.shape[0] and is_readable(numbers):
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high > most:
            bad = low if low < 0 else high
            raise ValueError(f"hard_negative_counts: expected numbers in 0 .. {most}, got {bad}")


def check_smoothing(share: object) -> None:
    """A number in 0 .. 1.

    Raises:
        TypeError: No number.
        ValueError: Out of range.
    """
    if type(share) is not float and (isinstance(share, bool) or not isinstance(share, Real)):
        raise TypeError(f"label_smoothing: expected a number, got {type(share).__name__}")
    if not 0.0 <= float(share) <= 1.0:
        raise ValueError(f"label_smoothing: expected a number in 0 .. 1, got {share}")


def check_bias(bias: object, device: torch.device) -> None:
    """A finite number, or a floating tensor of one element (read on a CPU only).

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Several elements, on another device, or not finite.
    """
    value = _number("bias", bias, device)
    if value is not None and not -math.inf < value < math.inf:  # a compiler knows no isfinite
        raise ValueError(f"bias: expected a finite number, got {value}")


def check_temperature(temperature: object, device: torch.device | None) -> None:
    """A number > 0 that float32 can hold, or such a tensor of one element (read on a CPU).

    Args:
        temperature: What the user gave.
        device: The device a tensor must be on; None: any.

    Raises:
        TypeError: Neither a number nor a floating tensor.
        ValueError: Several elements, on another device, or out of range.
    """
    value = _number("temperature", temperature, device)
    if value is None:
        return
    if not _LEAST <= value <= _MOST:
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
        if key.shape[0] != query.shape[0]:
            raise ValueError(
                f"key_labels: expected a tensor, as key has {key.shape[0]} rows and query "
                f"{query.shape[0]}, got None"
            )
        key_labels = labels
    return labels, key_labels


def _names(dtypes: Collection[torch.dtype]) -> str:
    return " | ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_features(name: str, tensor: object) -> None:
    """A matrix [rows, features] in a supported dtype.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Its rank.
    """
    matrix = _check_tensor(name, tensor)
    if matrix.dim() != 2:
        raise ValueError(f"{name}: expected [rows, features], got shape {list(matrix.shape)}")
    if matrix.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name}: expected dtype {_names(FLOAT_DTYPES)}, got {_names([matrix.dtype])}"
        )


def check_like_query(name: str, tensor: object, query: Tensor, owner: str = "query") -> None:
    """A matrix of the features, dtype and device of `query`.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Rank, features or device.
    """
    matrix = _check_tensor(name, tensor)
    if matrix.dim() != 2:
        raise ValueError(f"{name}: expected [rows, features], got shape {list(matrix.shape)}")
    _check_kind_of_query(name, matrix, query, owner)


def is_readable(tensor: Tensor) -> bool:
    """Whether a check may look at values: on a CPU, and neither traced nor transformed."""
    if not tensor.is_cpu or torch.compiler.is_compiling():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _check_tensor(name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    return tensor


def _check_kind_of_query(name: str, x: Tensor, query: Tensor, owner: str = "query") -> None:
    if x.dtype != query.dtype:
        raise TypeError(
            f"{name}: expected the dtype of {owner}, {_names([query.dtype])}, "
            f"got {_names([x.dtype])}"
        )
    if x.device != query.device:
        raise ValueError(f"{name}: expected a tensor on {query.device}, got {x.device}")
    if x.shape[-1] != query.shape[1]:
        raise ValueError(
            f"{name}: expected {query.shape[1]} features as in {owner}, got {x.shape[-1]}"
        )


def _check_rows(name: str, index: object, query: Tensor, count: int) -> None:
    """One row number below `count` for each query."""
    rows = _check_indices(name, index, query, "one row of key a query")
    if rows.shape[0] and is_readable(rows):
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= count:
            bad = low if low < 0 else high
            raise ValueError(f"{name}: expected rows of key, 0 .. {count - 1}, got {bad}")


def _check_indices(name: str, index: object, query: Tensor, meaning: str) -> Tensor:
    """An integer for each row of `query`, which is any tensor [N, ...]."""
    numbers = _check_tensor(name, index)
    if numbers.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype int64, got {_names([numbers.dtype])}")
    if numbers.shape != query.shape[:1]:
        raise ValueError(
            f"{name}: expected shape [{query.shape[0]}], {meaning}, got {list(numbers.shape)}"
        )
    if numbers.device != query.device:
        raise ValueError(f"{name}: expected a tensor on {query.device}, got {numbers.device}")
    return numbers


def _number(name: str, x: object, device: torch.device | None) -> float | None:
    """The value of a number or a tensor of one element; None where it cannot be read now."""
    if type(x) is float:
        return x
    if not isinstance(x, Tensor):
        if isinstance(x, bool) or not isinstance(x, Real):
            raise TypeError(
                f"{name}: expected a number or a tensor of one element, got {type(x).__name__}"
            )
        try:
            return float(x)
        except OverflowError:  # an integer of a few hundred digits
            return math.inf
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating tensor, got {_names([x.dtype])}")
    if x.dim() and x.shape != (1,):
        raise ValueError(f"{name}: expected a tensor of one element, got shape {list(x.shape)}")
    if device is not None and x.device != device:
        raise ValueError(f"{name}: expected a tensor on {device} as query is, got {x.device}")
    return float(x.item()) if is_readable(x) else None


def _check_label_tensor(name: str, labels: object, rows: Tensor, owner: str) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(labels).__name__}")
    if labels.is_complex():
        raise TypeError(f"{name}: expected real labels, got {_names([labels.dtype])}")
    if labels.dim() != 1 or labels.shape[0] != rows.shape[0]:
        raise ValueError(
            f"{name}: expected shape [{rows.shape[0]}], one label a row of {owner}, "
            f"got {list(labels.shape)}"
        )
    if labels.device != rows.device:
        raise ValueError(f"{name}: expected a tensor on {rows.device}, got {labels.device}")


__all__ = [
    "check_bias",
    "check_features",
    "check_hard_counts",
    "check_labels",
    "check_like_query",
    "check_more_negatives",
    "check_not_traced",
    "check_options",
    "check_positives",
    "check_smoothing",
    "check_temperature",
    "check_tensors",
    "is_readable",
]
