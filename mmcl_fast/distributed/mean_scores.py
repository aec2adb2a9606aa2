"""Mean scores that are part of a loss: of a row's positives, or of all its candidates.

    supervised       s_i+ is the mean score of P(i), the other rows of the label of i
    label smoothing  loss_i has a further term: the share times (s_i+ - mean score of i's positive
                     and negatives)

Both are sums over the keys of all ranks. They are added up tile by tile (`score_sums.py`), with the
softmax statistics on the first trip, their gradients on the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Payload
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.distributed.score_sums import SelectedPairs, scores
from mmcl_fast.losses.contrast import Gradients, Requested
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2


@dataclass
class MeanScores(ABC):
    """The part of this rank's row losses that is linear in the scores.

    Attributes:
        problem: Of this rank.
        totals: For each direction the sums of its queries' scores so far, [n] in float64.
        count: Scores in each query's sum, [n] in float64; one for both directions, as the two rows
            of a pair have one label.
        linear: The linear part of each row's loss, [n] in float64, the mean of both directions; set
            by `losses`.
    """

    problem: LocalProblem
    totals: list[Tensor]
    count: Tensor
    linear: Tensor

    @classmethod
    def start(cls, problem: LocalProblem) -> MeanScores | None:
        """The sums over this rank's own keys; None for a loss without mean scores."""
        kind = _kind(problem)
        if kind is None:
            return None
        local = problem.contrast
        none = local.query.new_zeros(len(local.query), dtype=torch.float64)
        means = kind(problem, [none] * (2 if local.symmetric else 1), none, none)
        of_keys = means.add(problem.keys, means.pairs(problem.payload, diagonal=True))
        if of_keys is not None:
            means.totals[1] = of_keys
        return means

    @classmethod
    def of(cls, problem: LocalProblem, saved: tuple[Tensor, ...]) -> MeanScores | None:
        """From `saved()`."""
        kind = _kind(problem)
        return None if kind is None else kind(problem, [], *saved)

    def saved(self) -> tuple[Tensor, Tensor]:
        """What the gradients need, see `of`."""
        return self.count, self.linear

    def add(self, key: Tensor, pairs: SelectedPairs) -> Tensor | None:
        """Add the scores of selected pairs of this rank's queries and some keys.

        Returns: If symmetric, these keys' sums over this rank's queries, which belong to the rank
            of the keys.
        """
        local = self.problem.contrast
        total, count = pairs.scores(local.query, key, local.temperature)
        self.totals[0] = self.totals[0] + total
        self.count = self.count + count
        if not local.symmetric:
            return None
        return pairs.mirrored.scores(key, local.query, local.temperature)[0]

    def gradients(
        self,
        key: Tensor,
        pairs: SelectedPairs,
        requested: Requested,
        rows: Tensor,
        columns: Tensor | None,
    ) -> Gradients:
        """Through selected pairs of this rank's queries and some keys.

        Args:
            key: [M, D].
            pairs: Those that `add` was given for these keys.
            requested: Of query and key.
            rows: `weights` of the queries, [n].
            columns: Those of the keys, [M], if they are queries of the other direction.
        """
        local = self.problem.contrast
        of_query = of_key = None
        if requested.query:
            other = None if local.stopped else columns
            of_query = self._scaled(pairs.query_gradient(key, rows, other))
        if requested.key:
            # In the mirrored tile the keys are the queries.
            own = rows.new_zeros(len(key)) if columns is None else columns
            other = None if local.stopped else rows
            of_key = self._scaled(pairs.mirrored.query_gradient(local.query, own, other))
        return Gradients(query=of_query, key=of_key)

    def own_gradients(self, requested: Requested, row_weight: Tensor) -> Gradients:
        """Through this rank's own rows, and that of the temperature: all pairs of its queries.

        Args:
            requested: The inputs whose gradient is needed.
            row_weight: `row_weight` of the losses, [n].
        """
        rows = self.weights(row_weight)
        columns = rows if self.problem.contrast.symmetric else None
        pairs = self.pairs(self.problem.payload, diagonal=True)
        found = self.gradients(self.problem.keys, pairs, requested, rows, columns)
        if requested.temperature:
            # Scores are proportional to 1 / temperature.
            share = -(row_weight * self.linear) / self.problem.contrast.temperature.double()
            found = found._replace(temperature=share.to(self.problem.contrast.dtype))
        return found

    def row_weight(self, weight: float) -> Tensor:
        """The weight of each row loss, [n] in float64."""
        return torch.full_like(self.count, weight)

    def _scaled(self, x: Tensor) -> Tensor:
        local = self.problem.contrast
        return (x / local.temperature.double()).to(local.dtype)

    @abstractmethod
    def pairs(self, payload: Payload, *, diagonal: bool = False) -> SelectedPairs:
        """The pairs of this rank's queries and the keys of a payload whose scores are summed.

        Args:
            payload: Of another rank, or with `diagonal` of this one.
            diagonal: See `SelectedPairs`.
        """

    @abstractmethod
    def losses(self, sides: list[RowStatistics]) -> list[Tensor]:
        """Row losses of each direction, after all scores were added."""

    @abstractmethod
    def weights(self, row_weight: Tensor) -> Tensor:
        """dL/ds_ij of every selected pair through the losses of query i, [n]."""


class PositiveMeans(MeanScores):
    """The mean of a row's positives (supervised); a row without any has loss 0, no gradient."""

    def pairs(self, payload: Payload, *, diagonal: bool = False) -> SelectedPairs:
        """See `MeanScores`."""
        return SelectedPairs(self.problem.labels(payload), same=True, diagonal=diagonal)

    def losses(self, sides: list[RowStatistics]) -> list[Tensor]:
        """See `MeanScores`."""
        (side,) = sides
        self.linear = -self.totals[0] / self.count.clamp(min=1)
        side.positive_score = (-self.linear / LOG2).to(side.positive_score.dtype)
        return [torch.where(self.count > 0, side.losses(), 0.0)]

    def row_weight(self, weight: float) -> Tensor:
        """See `MeanScores`."""
        return (self.count > 0).double() * weight

    def weights(self, row_weight: Tensor) -> Tensor:
        """See `MeanScores`; twice, as s_ij is in the losses of i and j, with the same weight."""
        return -2 * row_weight / self.count.clamp(min=1)


class CandidateMeans(MeanScores):
    """The mean of a query's positive and negatives (label smoothing); sums are of the negatives."""

    def pairs(self, payload: Payload, *, diagonal: bool = False) -> SelectedPairs:
        """See `MeanScores`."""
        return SelectedPairs(self.problem.labels(payload), diagonal=diagonal)

    def losses(self, sides: list[RowStatistics]) -> list[Tensor]:
        """See `MeanScores`."""
        local, share = self.problem.contrast, self.problem.label_smoothing
        positive = scores(local.query, self.problem.keys, local.temperature)
        if local.hard is not None:
            total = local.hard.sum(dim=1, dtype=torch.float64)
            self.totals[0] = self.totals[0] + scores(local.query, total, local.temperature)
            self.count = self.count + local.hard.shape[1]
        terms = [share * (positive - (x + positive) / (self.count + 1)) for x in self.totals]
        self.linear = torch.stack(terms).mean(dim=0)
        return [
            side.losses() + term.to(local.dtype) for side, term in zip(sides, terms, strict=True)
        ]

    def weights(self, row_weight: Tensor) -> Tensor:
        """See `MeanScores`."""
        directions = 2 if self.problem.contrast.symmetric else 1
        return -self.problem.label_smoothing / directions * row_weight / (self.count + 1)

    def own_gradients(self, requested: Requested, row_weight: Tensor) -> Gradients:
        """See `MeanScores`; with those of the positives and the hard negatives."""
        found = super().own_gradients(requested, row_weight)
        local = self.problem.contrast
        positive = self.problem.label_smoothing * row_weight * self.count / (self.count + 1)
        if local.stopped and local.symmetric:
            positive = positive / 2  # each direction differentiates one side only
        query, key = (
            None if grad is None else grad + self._scaled(positive[:, None] * other.double())
            for grad, other in ((found.query, self.problem.keys), (found.key, local.query))
        )
        found = found._replace(query=query, key=key)
        if local.hard is None:
            return found
        weights = self.weights(row_weight).double()[:, None]
        if query is not None:
            total = local.hard.sum(dim=1, dtype=torch.float64)
            found = found._replace(query=query + self._scaled(weights * total))
        if requested.hard:
            one = self._scaled(weights * local.query.double())
            found = found._replace(hard=one[:, None].expand(local.hard.shape))
        return found


def _kind(problem: LocalProblem) -> type[MeanScores] | None:
    if problem.classes is not None:
        return PositiveMeans
    return CandidateMeans if problem.label_smoothing else None


__all__ = ["MeanScores"]
