"""The calls of pytorch-metric-learning 2.9 (`pytorch_metric_learning.losses`); needs that package.

Import this module by its name: `mmcl_fast.losses.compat` has other losses of the same names.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.reducers import AvgNonZeroReducer
from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmcl_fast.losses.compat.inputs import check_features, check_like
from mmcl_fast.losses.compat.module import keep_temperature, without_axes
from mmcl_fast.losses.contrast import Contrast, compute_dtype
from mmcl_fast.losses.dispatch import run, scalar
from mmcl_fast.losses.family import sup_con
from mmcl_fast.losses.unit_rows import unit_rows


class _Batch(NamedTuple):
    """Rows as the scores take them, [N, D] and [M, D], their labels, and the scores' temperature.

    `is_one`: the rows are one batch, of which no row is a pair with itself.
    """

    rows: Tensor
    labels: Tensor
    others: Tensor
    other_labels: Tensor
    temperature: float | Tensor
    is_one: bool


class _PairLoss(BaseMetricLossFunction):  # type: ignore[misc]
    """A loss of cosine or dot products, of labelled rows or of pairs listed by a miner.

    Reducers, regularisers and the wrappers of pytorch-metric-learning act on it as on theirs.
    """

    def __init__(self, temperature: float | Tensor, backend: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keep_temperature(self, temperature)
        distance = self.distance
        if type(distance) not in (CosineSimilarity, DotProductSimilarity) or (
            distance.p != 2 or distance.power != 1
        ):
            raise ValueError(
                "distance: expected CosineSimilarity | DotProductSimilarity with p=2 and power=1, "
                f"got {type(distance).__name__} with p={distance.p} and power={distance.power}"
            )
        self.backend = backend
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    def get_default_distance(self) -> CosineSimilarity:
        return CosineSimilarity()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        check_features("embeddings", embeddings)
        check_features("ref_emb", ref_emb)
        check_like("ref_emb", ref_emb, "embeddings", embeddings)
        rows, others = self._rows(embeddings, ref_emb)
        temperature = without_axes(self.temperature)
        if indices_tuple is None:
            if labels is None or ref_labels is None:
                raise ValueError("labels: expected a tensor without indices_tuple, got None")
            kinds = _comparable(labels, ref_labels)
            is_one = ref_labels is labels
            found = self._of_labels(_Batch(rows, kinds[0], others, kinds[1], temperature, is_one))
        else:
            pairs = convert_to_pairs(indices_tuple, labels, ref_labels)
            scores = _scores(rows, others) / temperature
            found = None if all(len(x) <= 1 for x in pairs) else self._of_pairs(scores, pairs)
        if found is None:
            nothing: dict[str, dict[str, Any]] = self.zero_losses()
            return nothing
        return {"loss": found}

    def _rows(self, embeddings: Tensor, ref_emb: Tensor) -> tuple[Tensor, Tensor]:
        """Rows whose products are the distance's, in one dtype; one tensor twice for one batch."""
        dtype = torch.promote_types(embeddings.dtype, ref_emb.dtype)
        rows = embeddings.to(dtype)
        others = rows if ref_emb is embeddings else ref_emb.to(dtype)
        if not self.distance.normalize_embeddings:
            return rows, others
        unit = unit_rows(rows)
        return unit, unit if others is rows else unit_rows(others)

    def _of_labels(self, batch: _Batch) -> dict[str, Any] | None:
        raise NotImplementedError

    def _of_pairs(self, scores: Tensor, pairs: tuple[Tensor, ...]) -> dict[str, Any] | None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        value = self.temperature
        shown = "<tensor>" if isinstance(value, Tensor) else value
        return f"temperature={shown}, backend={self.backend!r}"


class NTXentLoss(_PairLoss):
    """`pytorch_metric_learning.losses.NTXentLoss`, in memory O(P D) of its P positive pairs.

    Each pair (a, p) of equal label is a row of its own, against the rows of other labels:

    loss_ap = -log( e^{s_ap} / (e^{s_ap} + sum_{n: label differs} e^{s_an}) )

    Call, `forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)`, and the keyword
    arguments of the constructor (distance, reducer, embedding_regularizer, ...) are theirs.

    Differs: float32 result for float16 and bfloat16 embeddings; quadratic, not cubic, in time. With
    `indices_tuple`, from a miner or `CrossBatchMemory`, exactly its pairs count, as often as they
    are in it; all N x M scores are then stored, as large as the lists of pairs can be.

    Args:
        temperature: Dimensionless, > 0.
        backend: As for `mmcl_fast.losses.info_nce`.
        kwargs: Theirs.

    Raises:
        ValueError: A distance other than `CosineSimilarity` and `DotProductSimilarity`, with p = 2
            and power = 1.

    See: mmcl_fast.losses.nt_xent.
    """

    def __init__(
        self, temperature: float | Tensor = 0.07, *, backend: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(temperature, backend, **kwargs)

    def _of_labels(self, batch: _Batch) -> dict[str, Any] | None:
        anchors, positives, count = _positive_pairs(batch)
        negatives = len(batch.rows) * len(batch.others) - int(count.sum())
        if not len(anchors) or not negatives or (len(anchors) == negatives == 1):
            return None
        rest = _log_sum_of_other_labels(batch, self.backend)
        rest = torch.where(count < len(batch.others), rest, -torch.inf)
        chosen = batch.rows[anchors].to(rest.dtype) * batch.others[positives].to(rest.dtype)
        scores = chosen.sum(dim=1) / batch.temperature
        return _of_positive_pairs(scores.to(rest.dtype), rest[anchors], anchors, positives)

    def _of_pairs(self, scores: Tensor, pairs: tuple[Tensor, ...]) -> dict[str, Any] | None:
        anchors, positives, of_negatives, negatives = pairs
        if not len(anchors) or not len(of_negatives):
            return None
        listed = scores[of_negatives, negatives]
        rest = _log_sum_by_row(listed, of_negatives, len(scores))
        return _of_positive_pairs(scores[anchors, positives], rest[anchors], anchors, positives)


class SupConLoss(_PairLoss):
    """`pytorch_metric_learning.losses.SupConLoss`: `sup_con` of each row, reduced by their reducer.

    Its default is the mean over the rows whose loss is positive. As in theirs, a batch without any
    negative pair, or without any positive one, has loss 0 (`sup_con` itself is positive without
    negatives: each positive then competes with the others).

    Call, constructor, `indices_tuple` and what differs are as for `NTXentLoss`. A row whose loss is
    below the rounding of its scores may be 0 in one library and not in the other, and so counts in
    one mean and not in the other.

    Args:
        temperature: Dimensionless, > 0.
        backend: As for `mmcl_fast.losses.sup_con`.
        kwargs: Theirs.

    Raises:
        ValueError: As for `NTXentLoss`.

    See: mmcl_fast.losses.sup_con.
    """

    def __init__(
        self, temperature: float | Tensor = 0.1, *, backend: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(temperature, backend, **kwargs)

    def get_default_reducer(self) -> AvgNonZeroReducer:
        """The mean over the rows whose loss is positive."""
        return AvgNonZeroReducer()

    def _of_labels(self, batch: _Batch) -> dict[str, Any] | None:
        count = _equal_labels(batch)
        own = batch.is_one * min(len(batch.rows), len(batch.others))
        positives, keys = int(count.sum()) - own, len(batch.others)
        negatives = len(batch.rows) * keys - int(count.sum())
        if not positives or not negatives or (positives == negatives == 1):
            return None
        same = batch.is_one and batch.others is batch.rows
        losses = sup_con(
            batch.rows,
            batch.labels,
            key=None if same else batch.others,
            key_labels=None if same else batch.other_labels,
            exclude_self=batch.is_one and not same,
            temperature=batch.temperature,
            reduction="none",
            backend=self.backend,
        )
        return _of_rows(losses)

    def _of_pairs(self, scores: Tensor, pairs: tuple[Tensor, ...]) -> dict[str, Any] | None:
        anchors, positives, of_negatives, negatives = pairs
        is_positive, is_negative = (
            torch.zeros_like(scores, dtype=torch.bool).index_put(
                at, torch.ones((), dtype=torch.bool, device=scores.device)
            )
            for at in ((anchors, positives), (of_negatives, negatives))
        )
        if not is_positive.any() or not is_negative.any():
            return None
        if (is_positive & is_negative).any():
            raise ValueError(
                "indices_tuple: expected no pair that is both positive and negative, got one"
            )
        counts = is_positive.sum(dim=1)
        candidates = scores.masked_fill(~(is_positive | is_negative), -torch.inf)
        log_sum = candidates[counts > 0].logsumexp(dim=1)
        mean = (scores * is_positive).sum(dim=1)[counts > 0] / counts[counts > 0]
        losses = scores.new_zeros(len(scores)).index_put((counts > 0,), log_sum - mean)
        return _of_rows(losses)


def _of_positive_pairs(
    scores: Tensor, rest: Tensor, anchors: Tensor, positives: Tensor
) -> dict[str, Any]:
    losses = -logsigmoid(scores - rest)
    return {"losses": losses, "indices": (anchors, positives), "reduction_type": "pos_pair"}


def _of_rows(losses: Tensor) -> dict[str, Any]:
    every = torch.arange(len(losses), device=losses.device)
    return {"losses": losses, "indices": every, "reduction_type": "element"}


def _scores(rows: Tensor, others: Tensor) -> Tensor:
    """[N, M], float32, or float64 for float64 rows."""
    wide = compute_dtype(rows)
    return rows.to(wide) @ others.to(wide).T


def _comparable(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of either side in one dtype that can be sorted."""
    dtype = torch.promote_types(labels.dtype, others.dtype)
    if dtype == torch.bool:
        dtype = torch.uint8
    return labels.to(dtype), others.to(labels.device, dtype)


def _sorted_span(batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The order of the other rows by label; for each row where its label begins there and ends."""
    ordered, order = batch.other_labels.sort(stable=True)
    labels = batch.labels.contiguous()
    return (
        order,
        torch.searchsorted(ordered, labels),
        torch.searchsorted(ordered, labels, right=True),
    )


def _equal_labels(batch: _Batch) -> Tensor:
    """For each row, how many of the others have its label, itself included; [N]."""
    _, begin, end = _sorted_span(batch)
    return end - begin


def _positive_pairs(batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Both members of each pair of equal label, in the order of rows; and `_equal_labels`."""
    order, begin, end = _sorted_span(batch)
    count = end - begin
    rows = torch.arange(len(count), device=count.device)
    anchors = rows.repeat_interleave(count)
    before = count.cumsum(0) - count
    place = torch.arange(len(anchors), device=count.device) - before[anchors]
    positives = order[begin[anchors] + place]
    if batch.is_one:
        kept = anchors != positives
        anchors, positives = anchors[kept], positives[kept]
    return anchors, positives, count


def _log_sum_of_other_labels(batch: _Batch, backend: str) -> Tensor:
    """Log of the sum of e^s over the rows of another label; 0 where there are none."""
    contrast = Contrast(
        query=batch.rows,
        key=batch.others,
        temperature=scalar(batch.temperature, batch.rows),
        positive_key=torch.zeros_like(batch.rows),
        labels=(batch.labels, batch.other_labels),
        form="decoupled",
    )
    return run(contrast, "none", backend)


def _log_sum_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Log of the sum of e^value over the values of each row; -inf where there are none."""
    lowest = values.new_full((count,), -torch.inf)
    top = lowest.scatter_reduce(0, rows, values.detach(), "amax")
    shifted = (values - top[rows]).exp()
    return values.new_zeros(count).index_add(0, rows, shifted).log() + top.nan_to_num(neginf=0.0)


__all__ = ["NTXentLoss", "SupConLoss"]
