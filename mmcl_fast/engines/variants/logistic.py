"""The supervised twin: the logistic loss of the same network with fixed second-layer signs.

    f_i = (2 / (m tau)) sum_r a_r hbar_r(x_i),   a_r = +1 for r < m/2, else -1
    L = mean_i log(1 + e^(-t_i f_i)),    dL/df_i = -t_i p_i / n,    p_i = 1 / (1 + e^(t_i f_i))

Numerics: sums of neurons in the dtype of the run; p_i and 1 - p_i by a softmax of two, whose
rounding does not depend on the batch (`paper_loss.full_scores`); a loss near 0 keeps its digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.engines.paper_loss.full_scores import minus_log
from mmcl_fast.engines.variants.features import SampleFeatures
from mmcl_fast.engines.variants.loss_gradient import LossGradient
from mmcl_fast.engines.variants.modality import ModalityGradient
from mmcl_fast.engines.variants.samples import StepSamples


def logistic_loss(
    x: SampleFeatures, samples: StepSamples, inverse_tau: float, *, want_gradient: bool
) -> tuple[Tensor, LossGradient | None]:
    """Mean logistic loss of each run, [R], and its gradient.

    Args:
        x: Features of the samples; m is even.
        samples: Their targets.
        inverse_tau: 1 / tau.
        want_gradient: False computes the loss alone.
    """
    targets = samples.targets
    assert targets is not None
    half, weight = x.neurons // 2, inverse_tau / (x.neurons // 2)
    of_codes = _signed_sum(x.table, half).unsqueeze(2)  # [R, codes, 1]
    outputs = _signed_sum(x.noise, half).add_((x.codes * of_codes).sum(1))
    margins = outputs.mul_(targets).mul_(weight)
    pairs = torch.softmax(torch.stack([torch.zeros_like(margins), margins], dim=2), dim=2)
    wrong, right = pairs.unbind(2)
    largest = pairs.amax(2)
    losses = minus_log(right, wrong, margins.clamp_max(0.0).neg(), largest)
    loss = losses[:, : samples.count].mean(1)
    if not want_gradient:
        return loss, None
    share = (wrong * targets).neg_().unsqueeze(1)  # [R, 1, b]
    codes = (x.codes * share).sum(2).unsqueeze(1)  # [R, 1, codes]
    signs = x.noise.new_ones(x.neurons, 1)
    signs[half:] = -1.0
    modality = ModalityGradient(signs * share, signs * codes)
    return loss, LossGradient((modality,), weight / samples.count)


def _signed_sum(rows: Tensor, half: int) -> Tensor:
    """The sum of the first half of the neurons less that of the second, [R, m, b] to [R, b]."""
    return rows[:, :half].sum(1).sub_(rows[:, half:].sum(1))


__all__ = ["logistic_loss"]
