"""The loss of a contrast with several positives in both directions, and weights of its rows."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.dispatch import run
from mmcl_fast.losses.evaluation import Reduction


def run_weighted(
    contrast: Contrast, weight: Tensor | None, reduction: Reduction, backend: str
) -> Tensor:
    """The loss of a contrast whose rows are weighted.

    Args:
        contrast: The problem.
        weight: [N], or None: every row counts once.
        reduction: "sum" of weighted losses, "mean", that over the sum of weights, or "none".
        backend: As for `run`.
    """
    if weight is None:
        return _both_directions(contrast, reduction, backend)
    rows = _both_directions(contrast, "none", backend)
    weight = weight.to(rows.dtype)
    weighted = rows * weight
    if reduction == "none":
        return weighted
    return weighted.sum() / weight.sum() if reduction == "mean" else weighted.sum()


def _both_directions(contrast: Contrast, reduction: Reduction, backend: str) -> Tensor:
    """Targets over several keys differ between the directions, so each is a loss of its own."""
    if not (contrast.symmetric and contrast.supervised):
        return run(contrast, reduction, backend)
    assert contrast.key is not None
    assert contrast.pairwise is not None
    rows = replace(contrast, symmetric=False)
    columns = replace(
        rows, query=contrast.key, key=contrast.query, pairwise=contrast.pairwise.mirrored()
    )
    return (run(rows, reduction, backend) + run(columns, reduction, backend)) / 2


__all__ = ["run_weighted"]
