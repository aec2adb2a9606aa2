"""A loss and its gradients, by the implementation that runs them.

Implementations know one positive for each query and no smoothing: the parts that are linear in the
scores are added here (`class_means.py`, `label_smoothing.py`), before gradients are rounded to the
features' dtype.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mmcl_fast.losses.backends import module_of
from mmcl_fast.losses.class_means import ClassMeans
from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Requested
from mmcl_fast.losses.label_smoothing import smoothing_gradients, smoothing_losses
from mmcl_fast.losses.target_means import TargetMeans
from mmcl_fast.losses.torch_backend import dense

Reduction = Literal["none", "mean", "sum"]


class Task(NamedTuple):
    """A loss to compute: contrast, inputs whose gradient is needed, reduction and backend."""

    contrast: Contrast
    requested: Requested
    reduction: Reduction
    backend: str

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """The differentiable inputs, in the order of `Requested`."""
        c = self.contrast
        return c.query, c.key, c.positive_key, c.hard, c.temperature, c.bias

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Tensors without a gradient that a backward pass reads again.

        Those of inference mode, which autograd cannot save, are left out.
        """
        c = self.contrast
        pairs = () if c.pairwise is None else c.pairwise.given()
        tensors = c.positive, c.hard_counts, *(c.labels or ()), *pairs
        return tuple(x for x in tensors if x is not None and not x.is_inference())

    @property
    def weight(self) -> float:
        """Of each row's loss in the reduced loss."""
        return 1.0 / max(1, self.contrast.rows) if self.reduction == "mean" else 1.0

    @property
    def weight_of_sum(self) -> float | None:
        """The reduced loss is the sum of the row losses times this; None: it is the losses."""
        return None if self.reduction == "none" else self.weight

    @property
    def deferred(self) -> bool:
        """Whether gradients of several rows depend on one upstream value: computed in backward."""
        contrast = self.contrast
        two_sided = contrast.symmetric or contrast.key is None or self.requested.key
        rows = self.reduction == "none" and any(self.requested)
        return rows and two_sided and not contrast.stopped

    def reduced(self, losses: Tensor) -> Tensor:
        """The mean or sum of row losses [N], or the losses."""
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()


class Evaluation(NamedTuple):
    """A loss, reduced, with the gradients of it or the statistics for them.

    Gradients of a task with reduction "none" are those of the sum.
    """

    loss: Tensor
    gradients: Gradients | None
    statistics: tuple[Tensor, ...]


def stores_scores(contrast: Contrast, backend: str) -> bool:
    """Whether the problem is small enough for `torch_backend.dense`."""
    return backend == "torch" and dense.suits(contrast)


def evaluated(task: Task) -> Evaluation:
    """The loss, and gradients unless they are `Task.deferred` or not requested."""
    contrast, requested = task.contrast, task.requested
    weight = None if task.deferred or not any(requested) else task.weight
    with without_autocast(contrast.query.device):
        if stores_scores(contrast, task.backend):
            loss, stored = dense.DenseContrast.of(contrast, task.weight_of_sum)
            known = (
                None if weight is None else _row_by_row(stored, requested, weight, task.reduction)
            )
            return Evaluation(loss, known, ())
        if contrast.supervised:
            result = _supervised(contrast, requested, weight, task.backend)
        else:
            result = _smoothed(contrast, requested, weight, task.backend)
    return Evaluation(task.reduced(result.losses), result.gradients, result.statistics)


def _row_by_row(
    stored: dense.DenseContrast, requested: Requested, weight: float, reduction: Reduction
) -> Gradients:
    """Gradients in the shapes of `Gradients`, with the sums of `stored.gradients`."""
    rows = stored.query.new_full(stored.query.shape[:1], weight)
    if reduction == "none":
        return stored.gradients(requested, rows)
    known = stored.gradients(requested, weight)
    # Of a reduced loss the sum of the rows counts: it is in the first one.
    first = torch.zeros_like(rows)
    first[0] = 1.0
    temperature, bias = (None if x is None else first * x for x in (known.temperature, known.bias))
    return known._replace(temperature=temperature, bias=bias)


def weighted_gradients(
    contrast: Contrast,
    requested: Requested,
    statistics: tuple[Tensor, ...],
    upstream: Tensor,
    backend: str,
) -> Gradients:
    """Gradients of sum_i upstream_i loss_i.

    Args:
        contrast: As in the forward pass.
        requested: Inputs whose gradient is needed.
        statistics: Those of `evaluated`.
        upstream: [N], the weight of each loss.
        backend: Name of the implementation.
    """
    with without_autocast(contrast.query.device):
        if stores_scores(contrast, backend):
            _, stored = dense.DenseContrast.of(contrast, None)
            return stored.gradients(requested, upstream.to(contrast.dtype).contiguous())
        if contrast.supervised:
            return _supervised_gradients(_means(contrast), requested, statistics, upstream, backend)
        result = module_of(backend).contrast_backward(
            _plain(contrast), requested, statistics, upstream
        )
        if contrast.smoothing:
            result = result.plus(smoothing_gradients(contrast, requested, upstream))
        return result


def _smoothed(
    contrast: Contrast, requested: Requested, weight: float | None, backend: str
) -> Forward:
    result = module_of(backend).contrast_forward(_plain(contrast), requested, weight)
    if not contrast.smoothing:
        return result
    losses, known = result.losses + smoothing_losses(contrast), result.gradients
    if known is not None and weight is not None:
        rows = torch.full_like(losses, weight)
        known = known.plus(smoothing_gradients(contrast, requested, rows))
    return Forward(losses, known, result.statistics)


def _supervised(
    contrast: Contrast, requested: Requested, weight: float | None, backend: str
) -> Forward:
    means = _means(contrast)
    # A query without positives has no loss, so queries are weighted one by one.
    result = module_of(backend).contrast_forward(means.base(), means.requested(requested), None)
    losses = means.weighted(result.losses)
    total = None
    if weight is not None and any(requested):
        rows = torch.full_like(losses, weight)
        total = _supervised_gradients(means, requested, result.statistics, rows, backend)
    return Forward(losses, total, result.statistics)


def _supervised_gradients(
    means: ClassMeans | TargetMeans,
    requested: Requested,
    statistics: tuple[Tensor, ...],
    upstream: Tensor,
    backend: str,
) -> Gradients:
    result = module_of(backend).contrast_backward(
        means.base(), means.requested(requested), statistics, means.weighted(upstream)
    )
    return means.onto_keys(result, requested)


def _means(contrast: Contrast) -> ClassMeans | TargetMeans:
    return ClassMeans.of(contrast) if contrast.pairwise is None else TargetMeans.of(contrast)


def _plain(contrast: Contrast) -> Contrast:
    """The contrast without what is linear in the scores."""
    return replace(contrast, smoothing=0.0) if contrast.smoothing else contrast


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast; entered where it is on only, as entering takes time."""
    if torch._C._is_any_autocast_enabled() and torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


__all__ = [
    "Evaluation",
    "Reduction",
    "Task",
    "evaluated",
    "stores_scores",
    "weighted_gradients",
    "without_autocast",
]
