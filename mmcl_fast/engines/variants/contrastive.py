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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.paper_loss.full_scores import Workspace, minus_log
from mmcl_fast.engines.variants.features import CodeProducts, SampleFeatures
from mmcl_fast.engines.variants.layout import Layout
from mmcl_fast.engines.variants.modality import ModalityGradient
from mmcl_fast.engines.variants.samples import StepSamples
from mmcl_fast.engines.variants.similarity import cosine_backward, inner_products


@dataclass(frozen=True)
class LossGradient:
    """Gradient of the mean loss, divided by `weight`.

    Attributes:
        modalities: With respect to the features of each modality.
        weight: A number, or of each run, [R, 1, 1].
        log_inverse_tau: dL/dt, not divided, [R]; None where tau is fixed.
    """

    modalities: tuple[ModalityGradient, ...]
    weight: float | Tensor
    log_inverse_tau: Tensor | None = None


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
            sides: Features of the samples and of their positives: the views, or modality B.
            samples: Their codes and negatives.
            inverse_tau: 1 / tau, a number or [R, 1, 1].
            want_gradient: False computes the loss alone.
        """
        scale = inverse_tau / self._divisor
        a, b = sides
        cross = self._products.of(a.table, b.table)
        if self._cfg.is_multi:
            passes = [
                self._softmax("ab", self._scores(a, b, cross, samples.negatives[0], scale), None),
                self._softmax(
                    "ba", self._scores(b, a, cross.mT, samples.negatives[1], scale), None
                ),
            ]
        else:
            positive = self._paired_scores(a, b, cross, scale)
            scores = self._scores(a, a, cross, samples.negatives[0], scale)
            passes = [self._softmax("ab", scores, positive)]
        losses = [x.losses[:, : samples.count].mean(1) for x in passes]
        loss = sum(losses[1:], start=losses[0])
        if not want_gradient:
            return loss, None
        gradients = (self._multi if self._cfg.is_multi else self._single)(a, b, passes)
        return loss, self._gradient(sides, gradients, cross, scale, samples.count)

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
        self, a: SampleFeatures, b: SampleFeatures, passes: Sequence[_Softmax]
    ) -> list[Tensor]:
        """Gradients with respect to the rows of both modalities."""
        ab, ba = (x.weights for x in passes)
        if self._cfg.trains_keys:
            ab = ab.add_(ba.mT)
            ba = ab.mT
        return [self._weighted("a", b.rows, ab.mT), self._weighted("b", a.rows, ba.mT)]

    def _single(
        self, x: SampleFeatures, view: SampleFeatures, passes: Sequence[_Softmax]
    ) -> list[Tensor]:
        """Gradients with respect to the rows of the samples, and of the views if they carry one."""
        (found,) = passes
        weights, share = found.weights, found.one_minus_p.unsqueeze(1)
        if not self._cfg.trains_keys:
            rows = self._weighted("a", x.rows, weights.mT)
            return [rows.addcmul_(view.rows, share, value=-1)]
        out = self._workspace.empty("symmetric", tuple(weights.shape), weights)
        rows = self._weighted("a", x.rows, torch.add(weights, weights.mT, out=out))
        of_view = self._workspace.empty("gradient_view", tuple(rows.shape), rows)
        torch.mul(x.rows, share, out=of_view).neg_()
        return [rows.addcmul_(view.rows, share, value=-1), of_view]

    def _weighted(self, name: str, rows: Tensor, weights: Tensor) -> Tensor:
        out = self._workspace.empty(f"gradient_{name}", tuple(rows.shape), rows)
        return torch.bmm(rows, weights, out=out)

    def _gradient(
        self,
        sides: Sequence[SampleFeatures],
        rows: Sequence[Tensor],
        cross: Tensor,
        scale: float | Tensor,
        count: int,
    ) -> LossGradient:
        """The gradient with respect to features and tau from those with respect to rows."""
        cfg = self._cfg
        needs_products = cfg.similarity == "cosine" or cfg.eta_tau is not None
        found, total = [], None
        crosses = cross, cross.mT
        for k, (side, gradient) in enumerate(zip(sides, rows, strict=False)):
            other = sides[1 - k].table
            noise, codes = gradient[:, : side.neurons], gradient[:, side.neurons :]
            of_codes = other @ self._products.of(codes.mT, side.code_rows.mT)
            if needs_products:
                products = inner_products(side, noise, codes, crosses[k])
                total = products.sum(1) if total is None else total + products.sum(1)
                if cfg.similarity == "cosine":
                    of_codes -= cosine_backward(side, noise, products)
            found.append((noise, of_codes))
        if cfg.is_multi:
            modalities = tuple(ModalityGradient(*x) for x in found)
        else:
            (noise, codes), *of_view = found
            for _, more in of_view:
                codes += more
            views = of_view[0][0] if of_view else None
            modalities = (ModalityGradient(noise, codes, views),)
        of_tau = None
        if cfg.eta_tau is not None and total is not None and not isinstance(scale, float):
            # Where keys are trained every score is in the products of both its sides.
            of_tau = total * (scale[:, 0, 0] / (count * (1 + cfg.trains_keys)))
        return LossGradient(modalities, scale / count, of_tau)


__all__ = ["ContrastiveLoss", "LossGradient"]
