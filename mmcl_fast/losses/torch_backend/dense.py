"""Contrasts of so few pairs that all scores are stored: float32 on a CPU, by one native pass.

At these sizes the blocks of `score_blocks.py` cost more than the arithmetic. The products of
features are torch's; `csrc/core/contrast` makes losses and derivatives of them. Statistics and
losses are as exact as those of the blocks, and pairs of the same rows have one score.
"""

from __future__ import annotations

from typing import NamedTuple

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
    if not query.is_cpu or query.dtype == torch.float64:
        return False
    if contrast.pairwise is not None and contrast.pairwise.targets is not None:
        return False
    if contrast.normalised and query.dtype != torch.float32:
        return False  # unit rows are rounded to the features' dtype
    if not query.shape[1]:
        return False  # tensors of no element have address 0, as absent ones
    rows = contrast.rows
    columns = rows if contrast.key is None else contrast.key.shape[0]
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
        norms: [N] or None: of the queries before they were divided by them.
        native: Statistics, and addresses of `arrays`.
        arrays: Scores and what else `native` reads, kept alive.
    """

    query: Tensor
    key: Tensor
    positive: Tensor | None
    hard: Tensor | None
    contrast: Contrast
    norms: Tensor | None
    native: _native.DenseContrast
    arrays: tuple[Tensor | None, ...]

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
        query, norms = _queries(contrast)
        key = query if contrast.key is None else _float32(contrast.key)
        positive = hard = hard_products = hard_counts = None
        if contrast.positive_key is not None:
            query, positive = query.contiguous(), _float32(contrast.positive_key).contiguous()
        if contrast.hard is not None and contrast.hard.shape[1]:
            hard = _float32(contrast.hard)
            hard_products = torch.bmm(hard, query[:, :, None])[:, :, 0].contiguous()
            hard_counts = _contiguous(contrast.hard_counts)
        n, m = query.shape[0], key.shape[0]
        labels = key_labels = None
        if contrast.labels is not None:
            labels, key_labels = _codes(*contrast.labels)
        excluded = None
        if contrast.pairwise is not None:
            pairs = slice(0, n), slice(0, m - contrast.extra)
            excluded = _contiguous(contrast.pairwise.excluded_block(*pairs, query.device))
        scores = linear(query, key)
        loss = query.new_empty(n if weight is None else ())
        positive_columns = _contiguous(contrast.positive)
        factor = contrast.temperature.item()
        native = _native.DenseContrast(
            (n, m, 0 if hard is None else hard.shape[1], query.shape[1]),
            scores.data_ptr(),
            loss.data_ptr(),
            weight,
            contrast.form,
            factor if contrast.inverse else 1.0 / factor,
            0.0 if contrast.bias is None else contrast.bias.item(),
            contrast.smoothing,
            _address(hard_products),
            _address(hard_counts),
            _address(positive_columns),
            0 if positive is None else query.data_ptr(),
            _address(positive),
            _address(labels),
            _address(key_labels) or _address(labels),  # of no keys none is read
            _address(excluded),
            contrast.extra,
            contrast.supervised,
            contrast.exclude_self,
            contrast.symmetric,
            contrast.key is None and not contrast.stopped,
        )
        arrays = scores, hard_products, hard_counts, positive_columns, labels, key_labels
        return loss, cls(query, key, positive, hard, contrast, norms, native, arrays)

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
        if self.norms is not None and query is not None:
            _native.unit_rows_gradient(
                self.query.data_ptr(), self.norms.data_ptr(), query.data_ptr(), *query.shape
            )
        if self.positive is None and contrast.hard is None:
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
        elif requested.hard:  # of no hard negative
            assert contrast.hard is not None
            hard = torch.zeros_like(contrast.hard, dtype=torch.float32)
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
        each = isinstance(upstream, Tensor)
        temperature = new(n if each else ()) if requested.temperature else None
        bias = new(n if each else ()) if requested.bias else None
        # dT/ds = -T^2 of a scale s = 1 / T.
        factor = -(self.contrast.temperature.item() ** -2) if self.contrast.inverse else 1.0
        self.native.weights(
            0.0 if isinstance(upstream, Tensor) else upstream,
            upstream.data_ptr() if isinstance(upstream, Tensor) else 0,
            rows,
            columns,
            scores.data_ptr(),
            _address(hard),
            _address(positive),
            _address(temperature),
            factor,
            _address(bias),
        )
        if each and temperature is not None and factor != 1.0:
            temperature *= factor
        return _Weights(scores, hard, positive, temperature, bias)


class _Weights(NamedTuple):
    """dL/d<q, k>, in the shapes of the products, and row by row dL/dT and dL/db."""

    scores: Tensor
    hard: Tensor | None
    positive: Tensor | None
    temperature: Tensor | None
    bias: Tensor | None


def _queries(contrast: Contrast) -> tuple[Tensor, Tensor | None]:
    """All queries in float32, and their norms if they were divided by them."""
    query = _float32(contrast.query)
    if contrast.second is None:
        return query, None
    query = torch.cat([query, _float32(contrast.second)])
    if not contrast.normalised:
        return query, None
    norms = query.new_empty(query.shape[0])
    _native.unit_rows(query.data_ptr(), query.data_ptr(), norms.data_ptr(), *query.shape)
    return query, norms


def _float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.float()


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _codes(labels: Tensor, key_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as int64, equal where they are equal; not-a-number differs from itself."""
    if not labels.is_floating_point():
        of_queries = labels.to(torch.int64).contiguous()
        same = key_labels is labels
        return of_queries, of_queries if same else key_labels.to(torch.int64).contiguous()
    return _bits(labels, 0), _bits(key_labels, labels.shape[0])


def _bits(labels: Tensor, first: int) -> Tensor:
    """The bits of labels as float64; each that is not a number has a number of its own.

    Args:
        labels: [N], floating.
        first: Different numbers for the labels of queries and those of keys, at least N apart.
    """
    values = labels.detach().double() + 0.0  # one zero
    unique = torch.arange(first, first + len(values), device=values.device) + _NAN
    return torch.where(values.isnan(), unique, values.view(torch.int64))


__all__ = ["LIMIT", "DenseContrast", "suits"]
