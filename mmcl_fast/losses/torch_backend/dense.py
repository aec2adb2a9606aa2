"""Contrasts of so few pairs that all scores are stored: float32 on a CPU, by one native pass.

At these sizes the blocks of `score_blocks.py` cost more than the arithmetic. The products of
features are torch's; `csrc/core/contrast` makes losses and derivatives of them. Statistics and
losses are as exact as those of the blocks, and pairs of the same rows have one score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from mmcl_fast import _native
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested

# `python -m bench.cpu.choices` times both ways: above so many scores the blocks are as quick.
LIMIT = 2**18
_NAN = 0x7FF8 << 48  # bits from which on a float64 is not a number


def suits(contrast: Contrast) -> bool:
    """Whether all scores of a contrast are to be stored."""
    query, hard = contrast.query, contrast.hard
    if not query.is_cpu or query.dtype == torch.float64 or contrast.pairwise is not None:
        return False
    rows, columns = query.shape[0], (query if contrast.key is None else contrast.key).shape[0]
    if hard is not None:
        columns += hard.shape[1] * hard.shape[2]
    return 0 < rows * columns <= LIMIT


class DenseContrast(NamedTuple):
    """A contrast with its scores.

    Attributes:
        query: [N, D], float32.
        key: [M, D], float32.
        positive: [N, D] or None, the features of positives that are no keys.
        hard: [N, K, D] or None.
        contrast: The problem.
        native: Scores and statistics.
    """

    query: Tensor
    key: Tensor
    positive: Tensor | None
    hard: Tensor | None
    contrast: Contrast
    native: _native.DenseContrast

    @classmethod
    def of(cls, contrast: Contrast, weight: float | None) -> tuple[Tensor, DenseContrast]:
        """The loss of a contrast that `suits`, and what its gradients need.

        Autograd must not record, and autocast be off. The loss is no attribute, as a node of
        autograd that held its own result would never be freed.

        Args:
            contrast: The problem.
            weight: The loss is the sum of the row losses times this. None: the row losses [N], the
                mean of both directions if symmetric.
        """
        query = _float32(contrast.query)
        key = query if contrast.key is None else _float32(contrast.key)
        positive = hard = positive_products = hard_products = hard_counts = None
        if contrast.positive_key is not None:
            positive = _float32(contrast.positive_key)
            positive_products = torch.linalg.vecdot(query, positive).numpy()
        if contrast.hard is not None:
            hard = _float32(contrast.hard)
            hard_products = torch.bmm(hard, query[:, :, None])[:, :, 0].numpy()
            if contrast.hard_counts is not None:
                hard_counts = contrast.hard_counts.contiguous().numpy()
        labels, key_labels = contrast.labels or (None, None)
        loss = query.new_empty(query.shape[0] if weight is None else ())
        native = _native.DenseContrast(
            linear(query, key).numpy(),
            loss.numpy(),
            weight,
            contrast.form,
            1.0 / contrast.temperature.item(),
            0.0 if contrast.bias is None else contrast.bias.item(),
            contrast.smoothing,
            hard_products,
            hard_counts,
            None if contrast.positive is None else contrast.positive.contiguous().numpy(),
            positive_products,
            _codes(labels, 0),
            _codes(key_labels, query.shape[0]),
            contrast.extra,
            contrast.supervised,
            contrast.exclude_self,
            contrast.symmetric,
            contrast.key is None and not contrast.stopped,
        )
        return loss, cls(query, key, positive, hard, contrast, native)

    def gradients(self, requested: Requested, upstream: float | Tensor) -> Gradients:
        """Gradients of sum_i upstream_i loss_i.

        Args:
            requested: Inputs whose gradient is needed.
            upstream: [N], float32, contiguous; or a number for all rows. Gradients of temperature
                and bias are then sums over the rows.
        """
        contrast = self.contrast
        if contrast.stopped and contrast.symmetric:
            return self._both_stopped(requested, upstream)
        weights = self._weights(requested, upstream, rows=True, columns=contrast.symmetric)
        query = torch.mm(weights.scores, self.key) if requested.query else None
        key = torch.mm(weights.scores.t(), self.query) if requested.key else None
        if self.positive is None and self.hard is None:
            return Gradients(query, key, None, None, weights.temperature, weights.bias)
        positive_key = hard = None
        if self.positive is not None and weights.positive is not None:
            if query is not None:
                query.addcmul_(weights.positive[:, None], self.positive)
            if requested.positive_key:
                positive_key = weights.positive[:, None] * self.query
        if self.hard is not None and weights.hard is not None:
            if query is not None:
                query.add_(torch.bmm(weights.hard[:, None], self.hard)[:, 0])
            if requested.hard:
                hard = weights.hard[:, :, None] * self.query[:, None]
        return Gradients(query, key, positive_key, hard, weights.temperature, weights.bias)

    def _both_stopped(self, requested: Requested, upstream: float | Tensor) -> Gradients:
        """Each direction has the gradient of its own query."""
        query = key = temperature = None
        if requested.query or requested.temperature:
            weights = self._weights(requested, upstream, rows=True, columns=False)
            temperature = weights.temperature
            if requested.query:
                query = torch.mm(weights.scores, self.key)
        if requested.key or requested.temperature:
            weights = self._weights(requested, upstream, rows=False, columns=True)
            if temperature is not None and weights.temperature is not None:
                temperature = temperature + weights.temperature
            if requested.key:
                key = torch.mm(weights.scores.t(), self.query)
        return Gradients(query, key, temperature=temperature)

    def _weights(
        self, requested: Requested, upstream: float | Tensor, *, rows: bool, columns: bool
    ) -> _Weights:
        n, new = self.query.shape[0], self.query.new_empty
        scores = new(n, self.key.shape[0])
        hard = None if self.hard is None else new(n, self.hard.shape[1])
        positive = None if self.positive is None else new(n)
        # One weight for all rows: the sum over the rows is enough.
        each = (n,) if isinstance(upstream, Tensor) else ()
        temperature = new(each) if requested.temperature else None
        bias = new(each) if requested.bias else None
        self.native.weights(
            upstream.numpy() if isinstance(upstream, Tensor) else upstream,
            rows,
            columns,
            scores.numpy(),
            None if hard is None else hard.numpy(),
            None if positive is None else positive.numpy(),
            None if temperature is None else temperature.numpy(),
            None if bias is None else bias.numpy(),
        )
        return _Weights(scores, hard, positive, temperature, bias)


class _Weights(NamedTuple):
    """dL/d<q, k>, in the shapes of the products, and row by row dL/dT and dL/db."""

    scores: Tensor
    hard: Tensor | None
    positive: Tensor | None
    temperature: Tensor | None
    bias: Tensor | None


def _float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.float()


def _codes(labels: Tensor | None, first: int) -> np.ndarray | None:
    """Labels as int64, equal where they are equal; not-a-number differs from itself.

    Args:
        labels: [N], or None.
        first: Different numbers for the labels of queries and those of keys, at least N apart.
    """
    if labels is None:
        return None
    if not labels.is_floating_point():
        return labels.to(torch.int64).contiguous().numpy()
    values = labels.detach().double() + 0.0  # one zero
    unique = torch.arange(first, first + len(values)) + _NAN
    return torch.where(values.isnan(), unique, values.view(torch.int64)).numpy()


__all__ = ["LIMIT", "DenseContrast", "suits"]
