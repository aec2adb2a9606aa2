"""InfoNCE in plain torch with bounded memory: chunks of query rows, gradient by hand.

    loss_i = log(e^{s_i+} + sum_{j in N(i)} e^{s_ij}) - s_i+,     s_ij = <q_i, k_j> / temperature

Scores exist for one chunk of query rows at a time, so memory is O((N + M) D) plus a workspace whose
size depends on M only. What autograd keeps is the gradient itself, [N, D] and [M, D].

Numerics contract. Scores, sums, loss and gradient accumulators are float32 (float64 for float64
input) whatever the input dtype; the gradient is rounded to the input's dtype once, at the end.
Every exponential is relative to the maximum of its own row or column, so no temperature overflows,
and the loss is `(top - s_i+) + log1p(...)`, so a loss near 0 keeps its relative accuracy. Terms
below 2^-100 (float64: 2^-960) of the largest are 0. Two runs on one device give the same bits.
Every product is in place or has `out=`: autocast leaves those alone, so it cannot lower precision.

Scores are in units of log 2. Measured on an AVX-512 Xeon with torch 2.13: `torch.exp` takes 0.3 ns
an element, but 4 to 42 ns where the result underflows, which masked scores and low temperatures
make common; `torch.exp2` takes 0.3 ns everywhere. A matrix product with subnormal factors runs at 1
instead of 150 GFLOP/s, hence that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mmcl_fast.torch_impl.scores import Chunk, Labels, Work, softmax_terms

Mode = Literal["one_way", "symmetric", "symmetric_stopped"]
Reduction = Literal["none", "mean", "sum"]


def info_nce_op(
    query: Tensor,
    key: Tensor,
    positive_key: Tensor | None,
    temperature: Tensor,
    labels: Labels | None,
    mode: Mode,
    reduction: Reduction,
) -> Tensor:
    """The operation behind `mmcl_fast.losses.info_nce`; arguments are taken as valid.

    Args:
        query: [N, D].
        key: [M, D]; its row i is the positive of query i unless `positive_key` is given.
        positive_key: [N, D] or None.
        temperature: 0-d, floating.
        labels: Labels of the query and of the key rows if only other labels are negatives.
        mode: "one_way"; "symmetric" (half the sum of both directions, M = N); or
            "symmetric_stopped", where each direction is differentiated in its query only.
        reduction: "none" | "mean" | "sum".

    Returns: A scalar, or [N] if `reduction` is "none"; float32, or float64 for float64 input.

    Numerics: See the module.

    Cost: In products of 2*N*M*D flop: 1 forward; with gradients 2 for the query alone, 3 for both
        or for "symmetric_stopped", 4 for "symmetric" (less the last chunk, whose scores are still
        held). Two-sided gradients under "none" recompute the scores in the backward pass.

    See: mmcl_fast.reference.info_nce (meaning).
    """
    inputs = (query, key, positive_key, temperature)
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    if wanted:
        loss: Tensor = _InfoNCE.apply(*inputs, _Plan(labels, mode, reduction))  # type: ignore[no-untyped-call]
        return loss
    with torch.no_grad():
        work = Work.of(*inputs, labels)
        rows, columns = _sweep(work, mode)
        return _reduce(_losses(rows, columns), reduction)


class _Plan(NamedTuple):
    labels: Labels | None
    mode: Mode
    reduction: Reduction


class _Side(NamedTuple):
    """Softmax statistics of one direction, one entry for each of its queries; in units of log 2."""

    positive: Tensor
    top: Tensor  # the largest of the positive and the negatives
    negatives: Tensor  # sum over negatives of 2^(score - top)

    @classmethod
    def empty(cls, like: Tensor) -> _Side:
        return cls(torch.empty_like(like), torch.empty_like(like), torch.empty_like(like))

    def losses(self) -> Tensor:
        lead = (self.positive - self.top) * math.log(2.0)
        return torch.log1p(self.negatives + torch.expm1(lead)) - lead

    def total(self) -> Tensor:
        return self.negatives + torch.exp2(self.positive - self.top)


@dataclass
class _Gradients:
    """Where a pass adds its gradients; None is not wanted."""

    query: Tensor | None = None
    key: Tensor | None = None
    positive_key: Tensor | None = None


def _sweep(
    work: Work,
    mode: Mode,
    gradients: _Gradients | None = None,
    weight: float = 1.0,
) -> tuple[_Side, _Side | None]:
    """One pass over the scores: statistics of both directions and, if given, gradients.

    The gradients are those of `weight` times the sum of all row losses (and, in mode
    "symmetric_stopped", of all column losses, which fill `gradients.key`).
    """
    n = len(work.query)
    rows = _Side.empty(work.key.new_empty(n))
    mixed = gradients is not None and gradients.key is not None
    columns = None if mode == "one_way" else _Columns(work, mixed=mixed)
    own = gradients
    if gradients is not None and columns is not None:
        own = _Gradients(query=gradients.query)
    for start in work.starts():
        chunk = work.chunk(start)
        part = _Side(*(x[start : chunk.stop] for x in rows))
        terms = _row_terms(work, chunk, part)
        if own is not None:
            total = part.total()
            terms.mul_((weight / total)[:, None])
            _add_gradients(work, own, chunk, terms, weight * part.negatives / total)
        if columns is not None:
            columns.add(work, chunk)
    if columns is None:
        return rows, None
    side = columns.finish(rows.positive)
    if gradients is not None and gradients.key is not None:
        columns.add_gradient(work, gradients.key, side, weight)
    return rows, side


def _row_terms(work: Work, chunk: Chunk, part: _Side) -> Tensor:
    """Fill the statistics of the chunk's rows; returns 2^(score - top)."""
    part.positive.copy_(chunk.positive)
    part.top.copy_(chunk.positive)
    if len(work.key):
        torch.maximum(chunk.positive, chunk.scores.amax(dim=1), out=part.top)
    terms = softmax_terms(chunk.scores, part.top[:, None], work.buffer(1, len(chunk.scores)))
    torch.sum(terms, dim=1, out=part.negatives)
    return terms


class _Columns:
    """Running softmax over the chunks, for the direction in which keys are the queries."""

    def __init__(self, work: Work, *, mixed: bool) -> None:
        # Above `masked`: a column that has met no negative yet must count none.
        self.top = torch.full_like(work.key[:, 0], work.masked / 2)
        self.negatives = torch.zeros_like(self.top)
        self.mixture = torch.zeros_like(work.key) if mixed else None  # sum of 2^(s - top) query_i

    def add(self, work: Work, chunk: Chunk) -> None:
        self._raise_top(chunk.scores.amax(dim=0))
        terms = softmax_terms(chunk.scores, self.top, work.buffer(1, len(chunk.scores)))
        self.negatives.add_(terms.sum(dim=0))
        if self.mixture is not None:
            self.mixture.addmm_(terms.T, chunk.query)

    def finish(self, positive: Tensor) -> _Side:
        self._raise_top(positive)
        return _Side(positive, self.top, self.negatives)

    def add_gradient(self, work: Work, out: Tensor, side: _Side, weight: float) -> None:
        assert self.mixture is not None
        scale = weight / side.total()
        out.addcmul_(self.mixture, (scale * math.log(2.0))[:, None])
        pull = scale * side.negatives / work.temperature
        out.addcmul_(work.query.to(out.dtype), pull[:, None], value=-1.0)

    def _raise_top(self, candidate: Tensor) -> None:
        top = torch.maximum(self.top, candidate)
        shrink = torch.exp2(self.top - top)
        self.negatives.mul_(shrink)
        if self.mixture is not None:
            self.mixture.mul_(shrink[:, None])
        self.top = top


def _add_gradients(
    work: Work, gradients: _Gradients, chunk: Chunk, weights: Tensor, pull: Tensor
) -> None:
    """Gradients through `weights` [c, M] = dL/ds of the negatives and -`pull` [c] = dL/ds+."""
    start, stop = chunk.start, chunk.stop
    if gradients.query is not None:
        part = gradients.query[start:stop]
        torch.mm(weights, work.key, out=part)
        part.addcmul_(work.positives(start, stop), pull[:, None], value=-1.0)
        part.div_(work.temperature)
    scaled = chunk.query * math.log(2.0)  # query / temperature
    if gradients.key is not None:
        gradients.key.addmm_(weights.T, scaled)
    own_positive = gradients.key if work.positive_key is None else gradients.positive_key
    if own_positive is not None:
        own_positive[start:stop].addcmul_(scaled, pull[:, None], value=-1.0)


def _weighted_sweep(
    work: Work,
    rows: _Side,
    columns: _Side | None,
    upstream: Tensor,
    gradients: _Gradients,
) -> None:
    """Gradients of sum_i upstream_i loss_i in all inputs, from the statistics of a first pass."""
    row_total = rows.total()
    row_scale = upstream / row_total
    pull = row_scale * rows.negatives
    column_scale = None
    if columns is not None:
        row_scale, pull = row_scale / 2, pull / 2
        column_scale = upstream / columns.total() / 2
        pull = pull + column_scale * columns.negatives
    # Backwards: the scores of the last chunk are still there from the first pass.
    for start in reversed(work.starts()):
        chunk = work.chunk(start)
        size, part = len(chunk.scores), slice(start, chunk.stop)
        weights = softmax_terms(chunk.scores, rows.top[part, None], work.buffer(1, size))
        weights.mul_(row_scale[part, None])
        if columns is not None and column_scale is not None:
            terms = softmax_terms(chunk.scores, columns.top, work.buffer(2, size))
            weights.addcmul_(terms, column_scale)
        _add_gradients(work, gradients, chunk, weights, pull[part])


def _losses(rows: _Side, columns: _Side | None) -> Tensor:
    return rows.losses() if columns is None else (rows.losses() + columns.losses()) / 2


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _temperature_gradient(work: Work, gradients: _Gradients, *, both: bool) -> Tensor:
    """Per row: scores scale with 1/temperature, so this is -<q, dL/dq> / temperature.

    `both`: the columns' gradient is in `gradients.key` alone and must be added.
    """
    assert gradients.query is not None
    through = (work.query.to(work.key.dtype) * gradients.query).sum(dim=1)
    if both:
        assert gradients.key is not None
        through = through + (work.key * gradients.key).sum(dim=1)
    return -through / work.temperature


class _InfoNCE(torch.autograd.Function):
    """Gradient in the forward pass where it can be: one pass is enough, or upstream is one number.

    Otherwise (both sides wanted, unreduced) in the backward pass, from the statistics.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        positive_key: Tensor | None,
        temperature: Tensor,
        plan: _Plan,
    ) -> Tensor:
        labels, mode, reduction = plan
        ctx.dtypes = [
            None if x is None else x.dtype for x in (query, key, positive_key, temperature)
        ]
        ctx.mode, ctx.labels = mode, labels
        two_sided = mode == "symmetric" or (mode == "one_way" and ctx.needs_input_grad[1])
        ctx.later = two_sided and reduction == "none"
        work = Work.of(query, key, positive_key, temperature, labels)
        if ctx.later:
            rows, columns = _sweep(work, mode)
            sides = (*rows, *(columns or ()))
            ctx.save_for_backward(query, key, positive_key, temperature, *sides)
            return _losses(rows, columns)
        gradients = _allocate(work, ctx.needs_input_grad, mode)
        weight = 1.0 / len(query) if reduction == "mean" else 1.0
        if mode == "symmetric":
            rows, columns = _sweep(work, mode)
            upstream = rows.top.new_full(rows.top.shape, weight)
            _weighted_sweep(work, rows, columns, upstream, gradients)
        else:
            halved = weight / 2 if mode == "symmetric_stopped" else weight
            rows, columns = _sweep(work, mode, gradients, halved)
        ctx.save_for_backward(*_found(work, gradients, ctx.needs_input_grad, mode))
        return _reduce(_losses(rows, columns), reduction)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            results = _results(ctx, upstream)
        if torch.is_grad_enabled():
            # create_graph=True. `once_differentiable` would let a gradient penalty pass as a
            # constant here, as it looks at `upstream` alone.
            anchor = torch.zeros((), requires_grad=True)
            results = [x if x is None else _Once.apply(x, anchor) for x in results]  # type: ignore[no-untyped-call]
        return tuple(results)


class _Once(torch.autograd.Function):
    """A gradient that says so when it is differentiated again."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "info_nce: expected one differentiation, got a second; "
            "mmcl_fast.reference.info_nce.info_nce can be differentiated again"
        )


def _results(ctx: Any, upstream: Tensor) -> list[Tensor | None]:
    """Gradients of the inputs of `_InfoNCE`, in their dtypes."""
    found = ctx.saved_tensors
    if ctx.later:
        query, key, positive_key, temperature, *sides = found
        rows = _Side(*sides[:3])
        columns = _Side(*sides[3:]) if sides[3:] else None
        work = Work.of(query, key, positive_key, temperature, ctx.labels)
        gradients = _allocate(work, ctx.needs_input_grad, ctx.mode)
        _weighted_sweep(work, rows, columns, upstream, gradients)
        found = _found(work, gradients, ctx.needs_input_grad, ctx.mode)
        upstream = rows.top.new_ones(())
    results: list[Tensor | None] = [None] * 5
    for index, value in enumerate(found):
        if value is not None:
            scale = upstream if value.dim() < 2 or upstream.dim() == 0 else upstream[:, None]
            result = value * scale
            # The temperature's gradient is kept per row until the upstream is known.
            result = result.sum() if index == 3 else result
            results[index] = result.to(ctx.dtypes[index])
    return results


def _allocate(work: Work, needed: tuple[bool, ...], mode: Mode) -> _Gradients:
    query, key, positive_key, temperature = needed[:4]
    # The temperature's gradient is read off the query's, and in the stopped mode off both.
    key = key or (temperature and mode == "symmetric_stopped")
    return _Gradients(
        query=torch.zeros_like(work.query, dtype=work.key.dtype) if query or temperature else None,
        key=torch.zeros_like(work.key) if key else None,
        positive_key=torch.zeros_like(work.query, dtype=work.key.dtype) if positive_key else None,
    )


def _found(
    work: Work, gradients: _Gradients, needed: tuple[bool, ...], mode: Mode
) -> list[Tensor | None]:
    """The wanted gradients in the order of the inputs."""
    found: list[Tensor | None] = [gradients.query, gradients.key, gradients.positive_key, None]
    found = [x if wanted else None for x, wanted in zip(found, needed, strict=False)]
    if needed[3]:
        found[3] = _temperature_gradient(work, gradients, both=mode == "symmetric_stopped")
    return found


__all__ = ["info_nce_op"]
