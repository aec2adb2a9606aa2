"""The contrastive loss of variants and its gradient, in closed form.

A direction has queries H, keys K, positives P and weights p (8) of its softmax over N(i) and i:

    loss_i = -log p_ii,   dL/ds_ij = p_ij / n for j in N(i),   dL/ds_i+ = -(1 - p_ii) / n

With scores s = <u, v> c of features u, v (H itself, or H / |H|), the gradient with respect to the
query's u is c times the keys' v weighted by dL/ds; where keys carry a gradient theirs is c times
the queries' u weighted by the transpose. With cosines dL/dH = (g - u <u, g>) / |H| for g = dL/du.
The parameter t = log(1 / tau) has dL/dt = sum_ij dL/ds_ij s_ij, a sum of <u, dL/du> over queries.

Numerics: as `paper_loss.full_scores`; sums over scores are batched products of even sizes.
Cost per run: 4 n^2 (m + codes) flop a direction; memory O(n^2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.paper_loss.full_scores import Workspace, minus_log
from mmcl_fast.engines.variants.features import CodeProducts, SampleFeatures
from mmcl_fast.engines.variants.layout import Layout
from mmcl_fast.engines.variants.loss_gradient import GradientSum, LossGradient
from mmcl_fast.engines.variants.samples import StepSamples
from mmcl_fast.engines.variants.similarity import cosine_backward, inner_products


@dataclass(frozen=True)
class _Softmax:
    """Of one direction: losses [R, b], dL_i/ds_ij [R, b, b] and 1 - p_ii [R, b].

    The diagonal of `weights` is -(1 - p_ii) where the positive is a key, else 0.
    """

    losses: Tensor
    weights: Tensor
    one_minus_p: Tensor


class ContrastiveLoss:
    """The loss (6) or (9) with the options of a config.

    Args:
        cfg: Settings of the runs.
        layout: Of each modality.
        like: A tensor of the dtype and device of the runs.
        workspace: Memory that later steps use again.
    """

    def __init__(
        self, cfg: TrainConfig, layout: Layout, like: Tensor, workspace: Workspace
    ) -> None:
        self._cfg, self._workspace = cfg, workspace
        self._products = CodeProducts(layout, like)
        self._divisor = 1.0 if cfg.similarity == "cosine" else float(cfg.m)

    def evaluate(
        self,
        sides: Sequence[SampleFeatures],
        samples: StepSamples,
        inverse_tau: float | Tensor,
        *,
        want_gradient: bool,
    ) -> tuple[Tensor, LossGradient | None]:
        """Mean loss of each run, [R], and its gradient.

        Args:
            sides: Features of the samples and of their positives: the views, or the further
                modalities, whose pairs each have a loss.
            samples: Their codes and negatives.
            inverse_tau: 1 / tau, a number or [R, 1, 1].
            want_gradient: False computes the loss alone.
        """
        scale, losses = inverse_tau / self._divisor, []
        total = GradientSum(self._cfg, len(sides))
        for pair, (i, j) in enumerate(combinations(range(len(sides)), 2)):
            a, b = sides[i], sides[j]
            cross = self._products.of(a.table, b.table)
            negatives = samples.negatives[2 * pair : 2 * pair + 2]
            passes = self._passes(a, b, cross, negatives, scale)
            losses += [x.losses[:, : samples.count].mean(1) for x in passes]
            if not want_gradient:
                continue
            names = [total.buffer_of(k) for k in (i, j)]
            rows = (self._multi if self._cfg.is_multi else self._single)(a, b, passes, names)
            for k, x in zip((i, j), self._of_pair((a, b), rows, cross), strict=False):
                total.add(k, *x)
        loss = sum(losses[1:], start=losses[0])
        return loss, total.gradient(scale, samples.count) if want_gradient else None

    def _passes(
        self,
        a: SampleFeatures,
        b: SampleFeatures,
        cross: Tensor,
        negatives: Sequence[Tensor],
        scale: float | Tensor,
    ) -> list[_Softmax]:
        """The softmax of each direction between two modalities, or of samples and views."""
        if not self._cfg.is_multi:
            positive = self._paired_scores(a, b, cross, scale)
            scores = self._scores(a, a, cross, negatives[0], scale)
            return [self._softmax("ab", scores, positive)]
        to_b = self._softmax("ab", self._scores(a, b, cross, negatives[0], scale), None)
        to_a = self._softmax("ba", self._scores(b, a, cross.mT, negatives[1], scale), None)
        return [to_b, to_a]

    def _scores(
        self,
        query: SampleFeatures,
        key: SampleFeatures,
        cross: Tensor,
        bias: Tensor,
        scale: float | Tensor,
    ) -> Tensor:
        """Scores of all pairs plus a bias, [R, b, b]."""
        keys = self._workspace.empty("keys", tuple(key.rows.shape), bias)
        keys[:, : key.neurons] = key.noise
        keys[:, key.neurons :] = cross @ key.code_rows
        scores = self._workspace.empty("scores", tuple(bias.shape), bias)
        alpha = 1.0
        if isinstance(scale, float):
            alpha = scale
        else:
            keys.mul_(scale)
        return torch.baddbmm(bias, query.rows.mT, keys, alpha=alpha, out=scores)

    def _paired_scores(
        self, a: SampleFeatures, b: SampleFeatures, cross: Tensor, scale: float | Tensor
    ) -> Tensor:
        """Scores of the pairs (i, i), [R, b]."""
        found = inner_products(a, b.noise, b.code_rows, cross)
        return found.mul_(scale if isinstance(scale, float) else scale[:, :, 0])

    def _softmax(self, name: str, scores: Tensor, positive: Tensor | None) -> _Softmax:
        """The softmax of each row, whose positive is on the diagonal or else given."""
        diagonal = scores.diagonal(dim1=1, dim2=2)
        if positive is None:
            positive = diagonal.clone()
            is_key = True
        else:
            diagonal.copy_(positive)
            is_key = False
        out = self._workspace.empty(f"weights_{name}", tuple(scores.shape), scores)
        weights = torch.softmax(scores, 2, out=out)
        row_max, largest_weight = scores.amax(2), weights.amax(2)
        diagonal = weights.diagonal(dim1=1, dim2=2)
        p_positive = diagonal.clone()
        diagonal.zero_()
        one_minus_p = weights.sum(2)  # 1 - p_ii without cancellation
        losses = minus_log(p_positive, one_minus_p, row_max - positive, largest_weight)
        if is_key:
            torch.neg(one_minus_p, out=diagonal)
        return _Softmax(losses, weights, one_minus_p)

    def _multi(
        self, a: SampleFeatures, b: SampleFeatures, passes: Sequence[_Softmax], names: Sequence[str]
    ) -> list[Tensor]:
        """Gradients with respect to the rows of both modalities, in memory of given names."""
        ab, ba = (x.weights for x in passes)
        if self._cfg.trains_keys:
            ab = ab.add_(ba.mT)
            ba = ab.mT
        return [self._weighted(names[0], b.rows, ab.mT), self._weighted(names[1], a.rows, ba.mT)]

    def _single(
        self,
        x: SampleFeatures,
        view: SampleFeatures,
        passes: Sequence[_Softmax],
        names: Sequence[str],
    ) -> list[Tensor]:
        """Gradients with respect to the rows of the samples, and of the views if they carry one."""
        (found,) = passes
        weights, share = found.weights, found.one_minus_p.unsqueeze(1)
        if not self._cfg.trains_keys:
            rows = self._weighted(names[0], x.rows, weights.mT)
            return [rows.addcmul_(view.rows, share, value=-1)]
        out = self._workspace.empty("symmetric", tuple(weights.shape), weights)
        rows = self._weighted(names[0], x.rows, torch.add(weights, weights.mT, out=out))
        of_view = self._workspace.empty(names[1], tuple(rows.shape), rows)
        torch.mul(x.rows, share, out=of_view).neg_()
        return [rows.addcmul_(view.rows, share, value=-1), of_view]

    def _weighted(self, name: str, rows: Tensor, weights: Tensor) -> Tensor:
        out = self._workspace.empty(name, tuple(rows.shape), rows)
        return torch.bmm(rows, weights, out=out)

    def _of_pair(
        self, sides: Sequence[SampleFeatures], rows: Sequence[Tensor], cross: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Of each side the gradient with respect to its features, from that to its rows.

        Yields: Those of the noise patches and of the codes, and <u, dL/du>, [R, b], or None.
        """
        cfg = self._cfg
        needs_products = cfg.similarity == "cosine" or cfg.eta_tau is not None
        crosses = cross, cross.mT
        for k, (side, gradient) in enumerate(zip(sides, rows, strict=False)):
            other = sides[1 - k].table
            noise, codes = gradient[:, : side.neurons], gradient[:, side.neurons :]
            of_codes = other @ self._products.of(codes.mT, side.code_rows.mT)
            products = None
            if needs_products:
                products = inner_products(side, noise, codes, crosses[k])
                if cfg.similarity == "cosine":
                    of_codes -= cosine_backward(side, noise, products)
            yield noise, of_codes, products


__all__ = ["ContrastiveLoss"]
