"""Checks of what a user says of single pairs, rows and keys: positives, exclusions, weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import compute_dtype
from mmcl_fast.losses.pairwise import BlockFunction, PairFunction, Pairwise, check_shares
from mmcl_fast.losses.validation import is_readable

Pairs = Tensor | PairFunction


def are_several(positive: object) -> bool:
    """Whether `positive` lists several keys a query: two axes."""
    return isinstance(positive, Tensor) and positive.dim() == 2


def checked_pairs(  # noqa: PLR0913 - the options that pairs exclude
    query: Tensor,
    key: Tensor,
    *,
    positive: Tensor | None,
    positive_mask: Pairs | None,
    targets: Pairs | None,
    exclude_mask: Pairs | None,
    positive_key: object,
    symmetric: bool,
    exclude_self: bool,
    negatives: str,
    label_smoothing: float,
) -> Pairwise:
    """The pairs of queries [N, D] and keys [M, D], from arguments that may be functions.

    Args:
        query: [N, D].
        key: [M, D].
        positive: [N, P], or None; the others are as for `info_nce`.
        positive_mask: As above.
        targets: As above.
        exclude_mask: As above.
        positive_key: As above.
        symmetric: As above.
        exclude_self: As above.
        negatives: As above.
        label_smoothing: As above.

    Raises:
        TypeError: No tensor and no function, or a dtype.
        ValueError: Sizes, devices, values (read on a CPU only), or a combination.
    """
    given = {"positive": positive, "positive_mask": positive_mask, "targets": targets}
    names = [name for name, x in given.items() if x is not None]
    if len(names) > 1:
        raise ValueError(f"{names[1]}: expected None beside {names[0]}, got both")
    if label_smoothing:
        argument = names[0] if names else "exclude_mask"
        raise ValueError(f"label_smoothing: expected 0.0 with {argument}, got {label_smoothing}")
    excluded = None if exclude_mask is None else _mask("exclude_mask", exclude_mask, query, key)
    if not names:
        return Pairwise(None, excluded)
    name = names[0]
    if positive_key is not None:
        raise ValueError(f"positive_key: expected None beside {name}, got a tensor")
    if negatives != "all":
        raise ValueError(
            f'negatives: expected "all" with {name} (exclude_mask leaves pairs out), '
            f"got {negatives!r}"
        )
    if symmetric:
        _check_both_directions(name, query, key, exclude_self=exclude_self)
    if positive is not None:
        return Pairwise(_row_numbers(positive, query, key), excluded)
    if positive_mask is not None:
        return Pairwise(_mask("positive_mask", positive_mask, query, key), excluded)
    return Pairwise(_shares(targets, query, key), excluded)


def _check_both_directions(name: str, query: Tensor, key: Tensor, *, exclude_self: bool) -> None:
    if name != "positive_mask":
        raise ValueError(
            f"{name}: expected None with symmetric=True (positive_mask tells the positives of both "
            "directions), got one"
        )
    if exclude_self:
        raise ValueError("exclude_self: expected False with symmetric=True, got True")
    if key.shape[0] != query.shape[0]:
        raise ValueError(
            f"key: expected the {query.shape[0]} rows of query with symmetric=True, "
            f"got {key.shape[0]} rows"
        )


def check_weight(weight: object, query: Tensor, *, reduction: str) -> None:
    """A finite number >= 0 for each query [N, D], whose sum is finite and > 0 if it divides.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Size, device or values (read on a CPU only).
    """
    weight = _check_numbers("weight", weight, query, "query")
    if not is_readable(weight) or not weight.shape[0]:
        return
    counted = weight.detach().to(compute_dtype(query))
    valid = (counted >= 0) & counted.isfinite()
    if not bool(valid.all()):
        bad = weight.detach()[~valid][0].item()
        raise ValueError(
            f"weight: expected finite numbers >= 0 in {_name(counted.dtype)}, got {bad}"
        )
    if reduction == "mean" and not 0.0 < (total := counted.sum().item()) < math.inf:
        raise ValueError(
            f'weight: expected a finite sum > 0 in {_name(counted.dtype)} with reduction="mean", '
            f"got {total}"
        )


def check_key_bias(key_bias: object, key: Tensor, *, symmetric: bool) -> None:
    """A number for each key [M, D], finite in the dtype of scores.

    Raises:
        TypeError: Not a tensor, or its dtype.
        ValueError: Size, device, values (read on a CPU only), or given with `symmetric`.
    """
    numbers = _check_numbers("key_bias", key_bias, key, "key")
    if symmetric:
        raise ValueError(
            "key_bias: expected None with symmetric=True (average two calls, each with the biases "
            "of its keys), got a tensor"
        )
    if not is_readable(numbers):
        return
    numbers = numbers.detach()
    finite = numbers.to(compute_dtype(key)).isfinite()
    if not bool(finite.all()):
        bad = numbers[~finite][0].item()
        raise ValueError(
            f"key_bias: expected finite numbers (exclude_mask leaves keys out), got {bad}"
        )


def _check_numbers(name: str, x: object, rows: Tensor, owner: str) -> Tensor:
    """A floating number for each of some rows."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating tensor, got {_name(x.dtype)}")
    if x.shape != rows.shape[:1]:
        raise ValueError(
            f"{name}: expected shape [{rows.shape[0]}], one number a {owner}, got {list(x.shape)}"
        )
    _check_device(name, x, rows)
    return x


def _row_numbers(positive: Tensor, query: Tensor, key: Tensor) -> Tensor:
    if positive.dtype != torch.int64:
        raise TypeError(f"positive: expected dtype int64, got {_name(positive.dtype)}")
    if positive.shape[0] != query.shape[0]:
        raise ValueError(
            f"positive: expected shape [{query.shape[0]}] or [{query.shape[0]}, P], rows of key "
            f"for each query, got {list(positive.shape)}"
        )
    _check_device("positive", positive, query)
    if not key.shape[0]:
        raise ValueError("key: expected at least 1 row with positive, got 0")
    if positive.numel() and is_readable(positive):
        low, high = int(positive.min()), int(positive.max())
        if low < -1 or high >= key.shape[0]:
            bad = low if low < -1 else high
            raise ValueError(
                f"positive: expected rows of key, 0 .. {key.shape[0] - 1}, or -1 for none, "
                f"got {bad}"
            )
    return positive


def _mask(name: str, pairs: object, query: Tensor, key: Tensor) -> Pairs:
    if not isinstance(pairs, Tensor):
        return _function(name, pairs)
    if pairs.dtype != torch.bool:
        raise TypeError(f"{name}: expected dtype bool, got {_name(pairs.dtype)}")
    _check_matrix(name, pairs, query, key)
    return pairs


def _shares(pairs: object, query: Tensor, key: Tensor) -> Pairs:
    if not isinstance(pairs, Tensor):
        return _function("targets", pairs, floating=True)
    if not pairs.is_floating_point():
        raise TypeError(f"targets: expected a floating tensor, got {_name(pairs.dtype)}")
    _check_matrix("targets", pairs, query, key)
    if pairs.requires_grad:
        raise ValueError(
            "targets: expected no gradient, as it would take all scores (detach them), "
            "got a tensor that requires one"
        )
    if is_readable(pairs):
        check_shares("targets", pairs)
    return pairs


def _function(name: str, pairs: object, *, floating: bool = False) -> BlockFunction:
    if not callable(pairs):
        raise TypeError(
            f"{name}: expected a tensor or a function of blocks, got {type(pairs).__name__}"
        )
    return BlockFunction(name, pairs, floating)


def _check_matrix(name: str, pairs: Tensor, query: Tensor, key: Tensor) -> None:
    shape = [query.shape[0], key.shape[0]]
    if list(pairs.shape) != shape:
        raise ValueError(
            f"{name}: expected shape {shape}, a value for each query and key, "
            f"got {list(pairs.shape)}"
        )
    _check_device(name, pairs, query)


def _check_device(name: str, x: Tensor, query: Tensor) -> None:
    if x.device != query.device:
        raise ValueError(f"{name}: expected a tensor on {query.device}, got {x.device}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = ["Pairs", "are_several", "check_key_bias", "check_weight", "checked_pairs"]
