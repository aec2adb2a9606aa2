"""Peer of model variants: eager PyTorch autograd on the weights, by the equations of the reference.

Written without waste as far as weight space allows: signals are few vectors whose products with the
weights are repeated by sign, views of a stopped gradient are computed outside of it, updates are in
place. Independent of the engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.discrete import draw_targets
from mmcl_fast.data.signal_noise.signals import SampleSet, signal_patches
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, draw_minibatches


@dataclass(frozen=True)
class _Samples:
    """Samples of one kind.

    Attributes:
        axes: Signals, [A, d].
        signs: Of each signal patch, coefficients of its vectors, [n, k].
        places: Which of the axes each signal patch has.
        noise: Noise patches, [n, d].
    """

    axes: Tensor
    signs: list[Tensor]
    places: list[slice]
    noise: Tensor

    def features(self, weights: Tensor, q: int, pick: Tensor | slice) -> Tensor:
        """The loss's features, [n, P m]."""
        of_axes = self.axes @ weights.T
        signals = [s[pick] @ of_axes[at] for s, at in zip(self.signs, self.places, strict=True)]
        patches = [*signals, self.noise[pick] @ weights.T]
        return torch.cat([reference.activation(z, q) for z in patches], dim=1)


def variant_losses(cfg: TrainConfig, data: SignalNoiseData) -> Tensor:
    """Losses before each of `cfg.epochs` epochs, [epochs]; gd, or sgd over minibatches.

    Args:
        cfg: Settings: full-batch gradient descent or minibatches, fixed views.
        data: Of one run, on the CPU.
    """
    kinds: list[SampleSet] = ["a", "b"] if cfg.is_multi else ["a", "view"]
    if cfg.objective == "logistic":
        kinds = kinds[:1]
    samples = [_samples(data, kind) for kind in kinds]
    weights = [w.clone().requires_grad_() for w in (data.weights, data.weights_b) if w is not None]
    log_inverse_tau = torch.tensor(1 / cfg.tau_value, dtype=data.weights.dtype).log()
    log_inverse_tau.requires_grad_(cfg.eta_tau is not None)
    everything = slice(None)
    losses = []
    for epoch in range(cfg.epochs):
        parts: Sequence[Tensor | slice] = [everything]
        if cfg.optimizer == "sgd":
            with torch.no_grad():
                full = _loss(cfg, data, samples, weights, log_inverse_tau, everything, epoch)
            losses.append(full)
            parts = draw_minibatches(cfg, epoch)
        for pick in parts:
            loss = _loss(cfg, data, samples, weights, log_inverse_tau, pick, epoch)
            learned = [log_inverse_tau] if cfg.eta_tau else []
            gradients = torch.autograd.grad(loss, [*weights, *learned])
            with torch.no_grad():
                for w, step in zip(weights, gradients, strict=False):
                    w.sub_(step, alpha=cfg.eta)
                if cfg.eta_tau:
                    log_inverse_tau.sub_(gradients[-1], alpha=cfg.eta_tau)
        if cfg.optimizer != "sgd":
            losses.append(loss.detach())
    return torch.stack(losses)


def _loss(
    cfg: TrainConfig,
    data: SignalNoiseData,
    samples: Sequence[_Samples],
    weights: Sequence[Tensor],
    log_inverse_tau: Tensor,
    pick: Tensor | slice,
    epoch: int,
) -> Tensor:
    h = samples[0].features(weights[0], cfg.q, pick)
    if cfg.objective == "logistic":
        told = draw_targets(cfg, data.labels, epoch) if _redrawn(cfg) else data.targets
        assert told is not None
        embedding = h.unflatten(1, (-1, cfg.m)).sum(1)
        return reference.logistic_loss(embedding, told[pick], cfg.tau_value)
    stops = cfg.stop_gradient == "key"
    with torch.set_grad_enabled(torch.is_grad_enabled() and not (stops and not cfg.is_multi)):
        g = samples[1].features(weights[-1], cfg.q, pick)
    own = data.labels[pick]
    partner = own if data.positive_labels is None else data.positive_labels[pick]
    directions = [(h, g, g, own, partner), (g, h, h, partner, own)]
    if not cfg.is_multi:
        directions = [(h, h, g, own, own)]
    scale = log_inverse_tau.exp() if cfg.similarity == "cosine" else log_inverse_tau.exp() / cfg.m
    losses = [
        reference.direction_loss(
            query,
            key,
            positive,
            reference.negative_pairs(y, of_keys, every_label=cfg.negatives == "all"),
            scale=scale,
            cosine=cfg.similarity == "cosine",
            stops_keys=stops,
        )
        for query, key, positive, y, of_keys in directions
    ]
    return losses[0] if len(losses) == 1 else losses[0] + losses[1]


def _redrawn(cfg: TrainConfig) -> bool:
    return cfg.label_noise_draw == "per_epoch"


def _samples(data: SignalNoiseData, kind: SampleSet) -> _Samples:
    patches = signal_patches(data, kind)
    noise = {"a": data.noise, "b": data.noise_b, "view": data.augmented}[kind]
    assert noise is not None
    places, first = [], 0
    for patch in patches:
        places.append(slice(first, first + len(patch.vectors)))
        first += len(patch.vectors)
    axes = torch.cat([patch.vectors for patch in patches])
    return _Samples(axes, [patch.signs for patch in patches], places, noise)


__all__ = ["variant_losses"]
