"""The calls of sentence-transformers 6.2 (`sentence_transformers.losses`); needs that package.

Import this module by its name: `mmcl_fast.losses.compat` does not, as it loads transformers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from sentence_transformers.sentence_transformer import losses as theirs
from sentence_transformers.util import all_gather_with_grad, cos_sim, dot_score, get_rank
from torch import Tensor

from mmcl_fast.losses.compat.inputs import check_features, check_pairs, temperature_of
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import nt_xent
from mmcl_fast.losses.unit_rows import unit_rows


class MultipleNegativesRankingLoss(theirs.MultipleNegativesRankingLoss):  # type: ignore[misc]
    """`sentence_transformers.losses.MultipleNegativesRankingLoss`: `info_nce` of the embeddings.

    Constructor and inputs, (anchor, positive), (anchor, positive, negative) or more negatives, are
    theirs, and so are the modules that wrap it, `MatryoshkaLoss` among them.

    Differs: float32 result under autocast and for half-precision embeddings; no score is stored.
    Refused: `similarity_fct` other than `cos_sim` and `dot_score`; "doc_to_doc" without
    "doc_to_query"; a `hardness_strength` > 0, whose penalty changes scores and not their gradients.

    Args:
        model: As for theirs, and so are `scale` and `gather_across_devices`.
        scale: The inverse temperature, > 0.
        similarity_fct: `cos_sim` | `dot_score` of `sentence_transformers.util`.
        gather_across_devices: The rows of all processes are candidates.
        directions: ("query_to_doc", ...): "doc_to_query", "query_to_query", "doc_to_doc".
        partition_mode: "joint": one softmax over all directions. "per_direction": the mean of one
            softmax each.
        hardness_mode: Without effect at `hardness_strength` 0.
        hardness_strength: 0.0.

    Raises:
        ValueError: What is refused; their own checks.

    See: mmcl_fast.losses.info_nce.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.similarity_fct not in (cos_sim, dot_score):
            raise ValueError(
                f"similarity_fct: expected cos_sim | dot_score, got {self.similarity_fct!r}"
            )
        if "doc_to_doc" in self.directions and "doc_to_query" not in self.directions:
            raise ValueError(
                f'directions: expected "doc_to_query" beside "doc_to_doc", got {self.directions!r}'
            )
        if self.hardness_mode is not None and self.hardness_strength > 0:
            raise ValueError(
                f"hardness_strength: expected 0.0, got {self.hardness_strength}: a penalty that "
                "changes scores and not their gradients is not built"
            )

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | None
    ) -> Tensor:
        """The loss of anchors, positives and negatives, each [B, D]; `labels` have no effect.

        Raises:
            TypeError, ValueError: Fewer than two of them, or as for `info_nce`.
        """
        if len(embeddings) < 2:
            raise ValueError(f"embeddings: expected at least 2 columns, got {len(embeddings)}")
        for k, column in enumerate(embeddings):
            check_features(f"embeddings[{k}]", column)
            check_pairs(f"embeddings[{k}]", column, "embeddings[0]", embeddings[0])
        if self.similarity_fct is cos_sim:
            embeddings = [unit_rows(column) for column in embeddings]
        temperature = temperature_of("scale", self.scale, embeddings[0])
        rows, first = embeddings, 0
        if self.gather_across_devices:
            rows = [all_gather_with_grad(column) for column in embeddings]
            first = get_rank() * len(embeddings[0])
        alone = len(rows[0]) == len(embeddings[0]) and len(rows) == 2
        return self._loss(rows, embeddings[:2], first, temperature, alone=alone)

    def _loss(
        self,
        rows: list[Tensor],
        own: list[Tensor],
        first: int,
        temperature: float | Tensor,
        *,
        alone: bool,
    ) -> Tensor:
        """The loss of this process.

        Args:
            rows: Anchors and documents of all processes.
            own: Anchors and positives of this one.
            first: Row at which they are in `rows`.
            temperature: Of the scores.
            alone: There is one process, and there are no negatives of single queries.
        """
        asked = set(self.directions)
        per_direction = self.partition_mode == "per_direction"
        if alone and len(asked) == 2 and per_direction:
            return info_nce(*own, temperature=temperature, symmetric=True)
        if alone and len(asked) == 4:
            of_anchors, of_positives = nt_xent(
                *own, temperature=temperature, reduction="none"
            ).chunk(2)
            return torch.logaddexp(of_anchors, of_positives).mean()
        # One softmax of both has a sum over rows in its logarithm; else means are quicker.
        joint = "doc_to_query" in asked and not per_direction
        reduction: Literal["none", "mean"] = "none" if joint else "mean"
        of_anchors = _of_anchors(rows, (own[0], first), temperature, reduction, asked)
        if "doc_to_query" not in asked:
            return of_anchors
        of_positives = _of_positives(rows, (own[1], first), temperature, reduction, asked)
        if per_direction:
            return (of_anchors + of_positives) / 2
        # Both have the positive's score subtracted, so their sums of exponentials add up.
        return torch.logaddexp(of_anchors, of_positives).mean()

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())


class CachedMultipleNegativesRankingLoss(
    theirs.CachedMultipleNegativesRankingLoss  # type: ignore[misc]
):
    """`sentence_transformers.losses.CachedMultipleNegativesRankingLoss` around the loss above.

    Encoders run in mini-batches, as in theirs; the loss is computed of the whole batch at once,
    whose scores are stored nowhere, so `mini_batch_size` does not divide it. What differs and what
    is refused is the same.

    See: mmcl_fast.losses.info_nce.
    """

    loss: MultipleNegativesRankingLoss

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.loss.get_config_dict() | {"similarity_fct": self.loss.similarity_fct}
        self.loss = MultipleNegativesRankingLoss(self.model, **options)

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        labels: Tensor | None = None,
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """The loss of embeddings that come in mini-batches; detached after its backward pass."""
        columns = [torch.cat(parts) for parts in reps]
        loss: Tensor = self.loss.compute_loss_from_embeddings(columns, labels)
        if not with_backward:
            return loss
        loss.backward()
        return loss.detach()


def _of_anchors(
    rows: list[Tensor],
    own: tuple[Tensor, int],
    temperature: float | Tensor,
    reduction: Literal["none", "mean"],
    asked: set[str],
) -> Tensor:
    """-log softmax of each anchor's positive among all documents, and the other anchors."""
    documents, (anchors, first) = torch.cat(rows[1:]), own
    at = _places(rows, own)
    if "query_to_query" not in asked:
        is_first = first == 0  # row i of the documents is then the positive of anchor i
        return info_nce(
            anchors,
            documents,
            positive=None if is_first else at,
            temperature=temperature,
            reduction=reduction,
        )
    no_anchor = at.new_full((len(documents),), -1)
    return info_nce(
        anchors,
        torch.cat([documents, rows[0]]),
        positive=at,
        labels=at,
        key_labels=torch.cat([no_anchor, _every(rows)]),
        negatives="other_label",
        temperature=temperature,
        reduction=reduction,
    )


def _of_positives(
    rows: list[Tensor],
    own: tuple[Tensor, int],
    temperature: float | Tensor,
    reduction: Literal["none", "mean"],
    asked: set[str],
) -> Tensor:
    """-log softmax of each positive's anchor among all anchors, and other anchors' documents."""
    at, positives = _places(rows, own), own[0]
    if "doc_to_doc" not in asked:
        return info_nce(
            positives, rows[0], positive=at, temperature=temperature, reduction=reduction
        )
    return info_nce(
        positives,
        torch.cat(rows),
        positive=at,
        labels=at,
        key_labels=_every(rows).repeat(len(rows)),
        negatives="other_label",
        temperature=temperature,
        reduction=reduction,
    )


def _every(rows: list[Tensor]) -> Tensor:
    return torch.arange(len(rows[0]), device=rows[0].device)


def _places(rows: list[Tensor], own: tuple[Tensor, int]) -> Tensor:
    """Where this process's rows are among those of all."""
    return _every(rows)[own[1] : own[1] + len(own[0])]


__all__ = ["CachedMultipleNegativesRankingLoss", "MultipleNegativesRankingLoss"]
