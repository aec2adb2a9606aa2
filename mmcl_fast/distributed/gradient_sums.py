"""Sums of gradients of which some are not wanted."""

from __future__ import annotations

from torch import Tensor

from mmcl_fast.losses.contrast import Gradients


def added(first: Gradients, second: Gradients) -> Gradients:
    """Sums of the gradients of features, and of the temperature's over all rows."""
    return first._replace(
        query=plus(first.query, second.query),
        key=plus(first.key, second.key),
        hard=plus(first.hard, second.hard),
        temperature=plus(_temperature_sum(first), _temperature_sum(second)),
    )


def plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Their sum; the other one where one is None."""
    if first is None or second is None:
        return first if second is None else second
    return first + second


def _temperature_sum(gradients: Gradients) -> Tensor | None:
    """The gradient of the temperature, summed over rows."""
    return None if gradients.temperature is None else gradients.temperature.sum()


__all__ = ["added", "plus"]
