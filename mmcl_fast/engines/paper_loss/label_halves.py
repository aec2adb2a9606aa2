"""The paper's losses over two label halves, each the negatives of the other, with their gradients.

For queries H, keys K and positives P, all 2 m-dimensional (a signal patch and a noise patch),

    loss_i = -log( e^{s_ii} / (e^{s_ii} + sum_{y_j != y_i} e^{s_ij}) )
    dL/dH_i = ( -(1 - p_ii) P_i + sum_{y_j != y_i} p_ij K_j ) / (n m tau),
    s_ij = <H_i, K_j> / (m tau)

by equation (8), because the similarity stops the gradient at its second argument (4). Rows are
sorted by label, so that the pairs that count are whole blocks, and a block of scores serves the
queries on both of its sides: n^2 / 4 scores single-modal, n^2 / 2 multi-modal. The signal patch is
never an n-row array: between the labels its score depends on the query's label alone, so it is
taken from the query's positive instead of being added to its negatives.

Numerics: everything in the inputs' dtype; any temperature is safe; a loss near 0 keeps its relative
accuracy. Two runs on one device give the same bits.
Cost: 3/2 n^2 m flop single-modal, 3 n^2 m multi-modal; for k queries alone one way 2 k n m.
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
        split: How many samples have label +1.
    """

    noise: Tensor
    signal: Tensor
    split: int

    def part(self, label: int) -> slice:
        """The samples of a label, 0 for +1 and 1 for -1."""
        return slice(None, self.split) if label == 0 else slice(self.split, None)


@dataclass(frozen=True)
class HalvesGradient:
    """Gradient of the mean loss with respect to query features: `weight` times these.

    Attributes:
        noise: In the order of the query, [n, m].
        signal: Summed over the samples of each label, [m, 2].
        weight: 1 / (n m tau).
    """

    noise: Tensor
    signal: Tensor
    weight: float


class _Queries:
    """A direction of the loss while it is computed, one entry for each query.

    Attributes:
        losses: [n].
        miss: 1 - p_ii, [n].
        pull: sum_j p_ij K_j - (1 - p_ii) P_i, [n, m]; None where no gradient is wanted.
    """

    def __init__(
        self, query: Halves, key: Halves, positive: Halves, *, gradient: bool, dots: Dots
    ) -> None:
        self.query, self.key, self.positive = query, key, positive
        self.matched = _matched(query, key, positive, dots)
        self.losses, self.miss = torch.empty_like(self.matched), torch.empty_like(self.matched)
        shape = query.noise.shape
        self.pull = self.matched.new_empty(shape) if gradient else None

    def half(self, label: int) -> Half:
        """The queries of a label, 0 for +1 and 1 for -1."""
        part = self.query.part(label)
        return Half(
            self.query.noise[part],
            self.positive.noise[part],
            self.matched[part],
            self.losses[part],
            self.miss[part],
            None if self.pull is None else self.pull[part],
        )

    def gradient(self, weight: float) -> HalvesGradient | None:
        """After all halves have met their negatives."""
        if self.pull is None:
            return None
        by_label = torch.stack([self.miss[self.query.part(k)].sum() for k in (0, 1)])
        signal = (self.key.signal.flip(1) - self.positive.signal).mul_(by_label)
        return HalvesGradient(self.pull, signal, weight)


@dataclass(frozen=True)
class Half:
    """Queries of one label; what is asked of them is written into the last three.

    Attributes:
        features: H, [k, m].
        positive: P, [k, m].
        matched: <H_i, P_i>, [k].
        losses: [k].
        miss: 1 - p_ii, [k].
        pull: sum_j p_ij K_j - (1 - p_ii) P_i, [k, m]; None where no gradient is wanted.
    """

    features: Tensor
    positive: Tensor
    matched: Tensor
    losses: Tensor
    miss: Tensor
    pull: Tensor | None

    def finish(self, side: RowStatistics) -> None:
        """Losses, and how far the positives are from 1."""
        self.losses.copy_(side.losses())
        self.miss.copy_(side.positive_weight())


Dots = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Arithmetic:
    """How two halves meet: a matter of the device and of the features' dtype.

    Attributes:
        dots: <a_i, b_i> of rows, in the dtype of sums.
        meet: Fills in queries of both labels, each the negatives of the other, scores times a
            factor.
    """

    dots: Dots
    meet: Callable[[Half, Half, float], None]


def single_halves(
    own: Halves,
    view: Halves,
    tau: float,
    *,
    want_gradient: bool = True,
    by: Arithmetic | None = None,
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """The single-modal loss (6): queries and keys are the samples, positives their views.

    Args:
        own: Features of the samples.
        view: Features of their augmented views, in the same order.
        tau: Temperature.
        want_gradient: False computes the loss alone.
        by: Who computes; None: torch, in the features' dtype.

    Returns: The mean loss, 0-d, and the gradient with respect to `own` as the query, if wanted.
    """
    n, m = own.noise.shape
    by = by or TORCH
    queries = _Queries(own, own, view, gradient=want_gradient, dots=by.dots)
    by.meet(queries.half(0), queries.half(1), 1.0 / (m * tau))
    gradients = (queries.gradient(1.0 / (n * m * tau)),)
    return queries.losses.mean(), tuple(g for g in gradients if g is not None)


def multi_halves(
    a: Halves, b: Halves, tau: float, *, want_gradient: bool = True, by: Arithmetic | None = None
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """The multi-modal loss (9), both directions.

    Args:
        a: Features of modality A.
        b: Features of modality B, in the same order.
        tau: Temperature.
        want_gradient: False computes the loss alone.
        by: As in `single_halves`.

    Returns: The sum of both directions' mean losses, 0-d, and the gradients with respect to `a` and
        `b`, each as the query, if wanted.
    """
    n, m = a.noise.shape
    by = by or TORCH
    ours = _Queries(a, b, b, gradient=want_gradient, dots=by.dots)
    theirs = _Queries(b, a, a, gradient=want_gradient, dots=by.dots)
    for label in (0, 1):
        by.meet(ours.half(label), theirs.half(1 - label), 1.0 / (m * tau))
    gradients = (q.gradient(1.0 / (n * m * tau)) for q in (ours, theirs))
    loss = ours.losses.mean() + theirs.losses.mean()
    return loss, tuple(g for g in gradients if g is not None)


def one_way_halves(
    query: Halves,
    key: Halves,
    positive: Halves,
    tau: float,
    *,
    blocks: Iterable[Halves],
    total: int,
    want_gradient: bool = True,
) -> tuple[Tensor, tuple[HalvesGradient, ...]]:
    """One direction for some of the queries, against the keys of all samples.

    Args:
        query: Features of those samples.
        key: Features of the same samples as keys; of these, signal features alone are used.
        positive: Features of the queries' positives.
        tau: Temperature.
        blocks: Features of all samples as keys, in parts that are taken one after another; the
            order is that of the sums.
        total: Samples in all, over which the loss is a mean.
        want_gradient: False computes the loss alone.

    Returns: These queries' share of the mean loss, 0-d, and its gradient with respect to `query`,
        if wanted.
    """
    m = query.noise.shape[1]
    queries = _Queries(query, key, positive, gradient=want_gradient, dots=_dots)
    halves = [_Rows(queries.half(label), 1.0 / (m * tau) / LOG2) for label in (0, 1)]
    for block in blocks:
        for label, rows in enumerate(halves):
            rows.add(block.noise[block.part(1 - label)])
    for rows in halves:
        rows.finish()
    gradient = queries.gradient(1.0 / (total * m * tau))
    return queries.losses.sum() / total, () if gradient is None else (gradient,)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def _matched(query: Halves, key: Halves, positive: Halves, dots: Dots) -> Tensor:
    """<H_i, P_i> less the signal's part of <H_i, K_j> for j of the other label, [n]."""
    ours = (query.signal * positive.signal).sum(0)
    # With itself as key that part is the sum of relu(a)^q relu(-a)^q, which is 0 exactly.
    if query is not key:
        ours = ours - (query.signal * key.signal.flip(1)).sum(0)
    matched = dots(query.noise, positive.noise)
    matched[: query.split] += ours[0]
    matched[query.split :] += ours[1]
    return matched


def _meet(left: Half, right: Half, scale: float) -> None:
    """Queries of both labels, each the negatives of the other: one product gives both's scores."""
    rows, columns = _Rows(left, scale / LOG2), _Columns(right, scale / LOG2)
    rows.add(right.features, columns)
    rows.finish()
    columns.finish()


class _Rows:
    """Queries that meet a block of negatives at once, and one block after another.

    Sums and mixtures are relative to the largest score so far, and rescaled whenever it rises.
    """

    def __init__(self, queries: Half, factor: float) -> None:
        self._queries, self._factor = queries, factor
        self._side = RowStatistics.start("softmax", queries.matched * factor)
        self._side.include_positive()
        if queries.pull is not None:
            queries.pull.zero_()

    def add(self, keys: Tensor, columns: _Columns | None = None) -> None:
        """Some negatives [k, m]; `columns`: their queries, for which these rows are negatives."""
        features, pull = self._queries.features, self._queries.pull
        size = chunk_rows(len(features), len(keys))
        for start in range(0, len(features) if len(keys) else 0, size):
            part = slice(start, min(start + size, len(features)))
            own, top = features[part], self._side.max_score[part].clone()
            scores = product(own * self._factor, keys)
            terms = None if pull is None else torch.empty_like(scores)
            shrink = self._side.merge(part, top, softmax_passes.softmax_rows(scores, top, terms))
            if pull is not None and terms is not None:
                mixture = product(terms, keys.T)
                torch.addcmul(mixture, pull[part], shrink[:, None], out=pull[part])
            if columns is not None:
                columns.add(own, scores)

    def finish(self) -> None:
        """After all negatives."""
        self._queries.finish(self._side)
        if self._queries.pull is not None:
            self._queries.pull.mul_(self._side.scale()[:, None])
            _less_positive(self._queries)


class _Columns:
    """Queries that meet negatives chunk by chunk, by scores [negatives, queries]."""

    def __init__(self, queries: Half, factor: float) -> None:
        self._queries = queries
        self._side = RowStatistics.start("softmax", queries.matched * factor)
        pull = queries.pull
        self._mixture = None if pull is None else pull.new_zeros(pull.T.shape)

    def add(self, keys: Tensor, scores: Tensor) -> None:
        """Some negatives [c, m] and their scores [c, queries], which are overwritten."""
        top = self._side.max_score.clone()
        wanted = None if self._mixture is None else scores
        shrink = self._side.merge(
            slice(None), top, softmax_passes.softmax_columns(scores, top, wanted)
        )
        if self._mixture is not None:
            self._mixture.mul_(shrink).add_(product(keys.T, scores.T))

    def finish(self) -> None:
        """After all negatives."""
        raised = self._side.include_positive()
        self._queries.finish(self._side)
        if self._mixture is not None and self._queries.pull is not None:
            self._queries.pull.copy_(self._mixture.mul_(raised * self._side.scale()).T)
            _less_positive(self._queries)


def _less_positive(queries: Half) -> None:
    if queries.pull is not None:
        queries.pull.addcmul_(queries.positive, queries.miss[:, None], value=-1)


TORCH = Arithmetic(dots=_dots, meet=_meet)

__all__ = [
    "Arithmetic",
    "Half",
    "Halves",
    "HalvesGradient",
    "multi_halves",
    "one_way_halves",
    "single_halves",
]
