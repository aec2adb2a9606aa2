"""The paper's losses and gradients for samples sorted by label: two halves, mutual negatives.

For queries H, keys K and positives P, all 2 m-dimensional (a signal patch and a noise patch),

    loss_i = -log( e^{s_ii} / (e^{s_ii} + sum_{y_j != y_i} e^{s_ij}) )
    dL/dH_i = ( -(1 - p_ii) P_i + sum_{y_j != y_i} p_ij K_j ) / (n m tau),
    s_ij = <H_i, K_j> / (m tau)

by equation (8), because the similarity stops the gradient at its second argument (4). Rows are
sorted by label, so pairs of different labels are whole blocks, and a block of scores serves the
queries of its rows and of its columns: n^2 / 4 scores single-modal, n^2 / 2 multi-modal. The
signal patch is never an n-row array: between the labels its score depends on the query's label
alone, so it is subtracted from the score of the positive instead of added to the negatives'.

Numerics: everything in the inputs' dtype; any temperature is safe; a loss near 0 keeps its relative
accuracy. Repeated runs on one device are bit-identical.
Cost: 3/2 n^2 m flop single-modal, 3 n^2 m multi-modal; 2 k n m for k queries in one direction.
Memory: 2 scores for each of `chunk_rows` rows, beside the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.losses.torch_backend import softmax_passes
from mmcl_fast.losses.torch_backend.matmul import product
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.score_blocks import chunk_rows
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2


@dataclass(frozen=True)
class Halves:
    """Activations of one modality or view.

    Attributes:
        noise: act(<w_r, xi_i>) of the samples, those of label +1 first, [n, m].
        signal: act(<w_r, mu>) and act(-<w_r, mu>), the signal features of +1 and -1, [m, 2].
        split: Number of samples of label +1.
    """

    noise: Tensor
    signal: Tensor
    split: int

    def part(self, label: int) -> slice:
        """Rows of a label: 0 for +1, 1 for -1."""
        return slice(None, self.split) if label == 0 else slice(self.split, None)


@dataclass(frozen=True)
class HalvesGradient:
    """Gradient of the mean loss with respect to query features, divided by `weight`.

    Attributes:
        noise: In the order of the query, [n, m].
        signal: Summed over the samples of each label, [m, 2].
        weight: 1 / (n m tau).
    """

    noise: Tensor
    signal: Tensor
    weight: float


class _Queries:
    """Intermediate results of one direction of the loss, one entry per query.

    Attributes:
        losses: [n].
        one_minus_p: 1 - p_ii, [n].
        noise_gradient: sum_j p_ij K_j - (1 - p_ii) P_i, [n, m]; None if not requested.
    """

    def __init__(
        self, query: Halves, key: Halves, positive: Halves, *, with_gradient: bool, dots: Dots
    ) -> None:
        self.query, self.key, self.positive = query, key, positive
        self.positive_scores = _positive_scores(query, key, positive, dots)
        self.losses, self.one_minus_p = (
            torch.empty_like(self.positive_scores),
            torch.empty_like(self.positive_scores),
        )
        shape = query.noise.shape
        self.noise_gradient = self.positive_scores.new_empty(shape) if with_gradient else None

    def half(self, label: int) -> Half:
        """Queries of a label: 0 for +1, 1 for -1."""
        part = self.query.part(label)
        return Half(
            self.query.noise[part],
            self.positive.noise[part],
            self.positive_scores[part],
            self.losses[part],
            self.one_minus_p[part],
            None if self.noise_gradient is None else self.noise_gradient[part],
        )

    def gradient(self, weight: float) -> HalvesGradient | None:
        """The gradient, once both halves are complete."""
        if self.noise_gradient is None:
            return None
        by_label = torch.stack([self.one_minus_p[self.query.part(k)].sum() for k in (0, 1)])
        signal = (self.key.signal.flip(1) - self.positive.signal).mul_(by_label)
        return HalvesGradient(self.noise_gradient, signal, weight)


@dataclass(frozen=True)
class Half:
    """Queries of one label; the last three fields are outputs.

    Attributes:
        features: H, [k, m].
        positive: P, [k, m].
        positive_scores: <H_i, P_i> as `_positive_scores`, [k].
        losses: [k].
        one_minus_p: 1 - p_ii, [k].
        noise_gradient: sum_j p_ij K_j - (1 - p_ii) P_i, [k, m]; None if not requested.
    """

    features: Tensor
    positive: Tensor
    positive_scores: Tensor
    losses: Tensor
    one_minus_p: Tensor
    noise_gradient: Tensor | None

    def finish(self, side: RowStatistics) -> None:
        """Write losses and 1 - p_ii."""
        self.losses.copy_(side.losses())
        self.one_minus_p.copy_(side.positive_weight())


Dots = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class HalvesBackend:
    """Implementation of the losses of two halves, for a device and a dtype of features.

    Attributes:
        dots: <a_i, b_i> of rows, in the dtype of sums.
        contrast_labels: Writes the outputs of the queries of both labels, each the negatives of
            the other; scores are inner products times the third argument.
    """

    dots: Dots
    contrast_labels: Callable[[Half, Half, float], None]


def single_halves(
    samples: Halves,
    view: Halves,
    tau: float,
    *,
    want_gradient: bool = True,
    backend: HalvesBackend | None = None,
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """The single-modal loss (6): queries and keys are the samples, positives their views.

    Args:
        samples: Their features.
        view: Features of their augmented views, in the same order.
        tau: Temperature.
        want_gradient: False computes the loss alone.
        backend: Implementation; None: torch, in the dtype of the features.

    Returns: The mean loss, 0-d, and, if requested, the gradient with respect to `samples` as the
        query.
    """
    n, m = samples.noise.shape
    backend = backend or TORCH
    queries = _Queries(samples, samples, view, with_gradient=want_gradient, dots=backend.dots)
    backend.contrast_labels(queries.half(0), queries.half(1), 1.0 / (m * tau))
    gradients = (queries.gradient(1.0 / (n * m * tau)),)
    return queries.losses.mean(), tuple(g for g in gradients if g is not None)


def multi_halves(
    a: Halves,
    b: Halves,
    tau: float,
    *,
    want_gradient: bool = True,
    backend: HalvesBackend | None = None,
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """The multi-modal loss (9), both directions.

    Args:
        a: Features of modality A.
        b: Features of modality B, in the same order.
        tau: Temperature.
        want_gradient: False computes the loss alone.
        backend: As in `single_halves`.

    Returns: The sum of both directions' mean losses, 0-d, and the gradients with respect to `a` and
        `b`, each as the query, if requested.
    """
    n, m = a.noise.shape
    backend = backend or TORCH
    from_a = _Queries(a, b, b, with_gradient=want_gradient, dots=backend.dots)
    from_b = _Queries(b, a, a, with_gradient=want_gradient, dots=backend.dots)
    for label in (0, 1):
        backend.contrast_labels(from_a.half(label), from_b.half(1 - label), 1.0 / (m * tau))
    gradients = (q.gradient(1.0 / (n * m * tau)) for q in (from_a, from_b))
    loss = from_a.losses.mean() + from_b.losses.mean()
    return loss, tuple(g for g in gradients if g is not None)


def one_way_halves(
    query: Halves,
    key: Halves,
    positive: Halves,
    tau: float,
    *,
    blocks: Iterable[Halves],
    sample_count: int,
    want_gradient: bool = True,
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """One direction for a subset of the queries, against the keys of all samples.

    Args:
        query: Features of the subset.
        key: Features of the subset as keys; only the signal features are used.
        positive: Features of the queries' positives.
        tau: Temperature.
        blocks: Features of all samples as keys, block by block; sums are in this order.
        sample_count: Number of all samples, over which the loss is a mean.
        want_gradient: False computes the loss alone.

    Returns: The contribution of the queries to the mean loss, 0-d, and its gradient with respect to
        `query`, if requested.
    """
    m = query.noise.shape[1]
    queries = _Queries(query, key, positive, with_gradient=want_gradient, dots=_dots)
    halves = [_Rows(queries.half(label), 1.0 / (m * tau) / LOG2) for label in (0, 1)]
    for block in blocks:
        for label, rows in enumerate(halves):
            rows.add(block.noise[block.part(1 - label)])
    for rows in halves:
        rows.finish()
    gradient = queries.gradient(1.0 / (sample_count * m * tau))
    return queries.losses.sum() / sample_count, () if gradient is None else (gradient,)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def _positive_scores(query: Halves, key: Halves, positive: Halves, dots: Dots) -> Tensor:
    """<H_i, P_i> less the signal's part of <H_i, K_j> for j of the other label, [n]."""
    signal_part = (query.signal * positive.signal).sum(0)
    # With itself as key that part is the sum of relu(a)^q relu(-a)^q, which is 0 exactly.
    if query is not key:
        signal_part = signal_part - (query.signal * key.signal.flip(1)).sum(0)
    positive_scores = dots(query.noise, positive.noise)
    positive_scores[: query.split] += signal_part[0]
    positive_scores[query.split :] += signal_part[1]
    return positive_scores


def _contrast_labels(left: Half, right: Half, scale: float) -> None:
    """See `HalvesBackend.contrast_labels`; the scores of both directions are one product."""
    rows, columns = _Rows(left, scale / LOG2), _Columns(right, scale / LOG2)
    rows.add(right.features, columns)
    rows.finish()
    columns.finish()


class _Rows:
    """Queries along the rows of scores; negatives arrive in blocks.

    Sums and weighted keys are relative to the largest score so far, and rescaled when it rises.
    """

    def __init__(self, queries: Half, factor: float) -> None:
        self._queries, self._factor = queries, factor
        self._side = RowStatistics.start("softmax", queries.positive_scores * factor)
        self._side.include_positive()
        if queries.noise_gradient is not None:
            queries.noise_gradient.zero_()

    def add(self, keys: Tensor, columns: _Columns | None = None) -> None:
        """Add negatives [k, m]; `columns`: these as queries, with the rows as their negatives."""
        features, gradient = self._queries.features, self._queries.noise_gradient
        size = chunk_rows(len(features), len(keys))
        for start in range(0, len(features) if len(keys) else 0, size):
            part = slice(start, min(start + size, len(features)))
            query_chunk, row_max = features[part], self._side.max_score[part].clone()
            scores = product(query_chunk * self._factor, keys)
            terms = None if gradient is None else torch.empty_like(scores)
            rescaling = self._side.merge(
                part, row_max, softmax_passes.softmax_rows(scores, row_max, terms)
            )
            if gradient is not None and terms is not None:
                weighted_keys = product(terms, keys.T)
                torch.addcmul(weighted_keys, gradient[part], rescaling[:, None], out=gradient[part])
            if columns is not None:
                columns.add(query_chunk, scores)

    def finish(self) -> None:
        """Write the outputs, after all negatives."""
        self._queries.finish(self._side)
        if self._queries.noise_gradient is not None:
            self._queries.noise_gradient.mul_(self._side.scale()[:, None])
            _subtract_positive(self._queries)


class _Columns:
    """Queries along the columns of scores [negatives, queries]; negatives arrive in chunks."""

    def __init__(self, queries: Half, factor: float) -> None:
        self._queries = queries
        self._side = RowStatistics.start("softmax", queries.positive_scores * factor)
        gradient = queries.noise_gradient
        self._weighted_keys = None if gradient is None else gradient.new_zeros(gradient.T.shape)

    def add(self, keys: Tensor, scores: Tensor) -> None:
        """Add negatives [c, m] with their scores [c, queries]; overwrites the scores."""
        row_max = self._side.max_score.clone()
        terms = None if self._weighted_keys is None else scores
        rescaling = self._side.merge(
            slice(None), row_max, softmax_passes.softmax_columns(scores, row_max, terms)
        )
        if self._weighted_keys is not None:
            self._weighted_keys.mul_(rescaling).add_(product(keys.T, scores.T))

    def finish(self) -> None:
        """Write the outputs, after all negatives."""
        rescaling = self._side.include_positive()
        self._queries.finish(self._side)
        if self._weighted_keys is not None and self._queries.noise_gradient is not None:
            self._queries.noise_gradient.copy_(
                self._weighted_keys.mul_(rescaling * self._side.scale()).T
            )
            _subtract_positive(self._queries)


def _subtract_positive(queries: Half) -> None:
    if queries.noise_gradient is not None:
        queries.noise_gradient.addcmul_(queries.positive, queries.one_minus_p[:, None], value=-1)


TORCH = HalvesBackend(dots=_dots, contrast_labels=_contrast_labels)

__all__ = [
    "Half",
    "Halves",
    "HalvesBackend",
    "HalvesGradient",
    "multi_halves",
    "one_way_halves",
    "single_halves",
]
