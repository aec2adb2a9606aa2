"""Peer implementations of model variants in weight space: eager PyTorch.

`textbook_variant_losses` puts the equations of `mmcl_fast.reference` into PyTorch as they stand,
signal patches as n rows. `eager_variant_losses` saves what can be saved inside weight space: signal
patches are few vectors, masks are added, what carries no gradient is computed outside of it.

    loss_i = logsumexp({s_i+} and {s_ij, j in N(i)}) - s_i+
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.signals import SampleSet, signal_patches
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData


@dataclass(frozen=True)
class _Samples:
    """Vectors that one kind of samples has: signals and noise patches, and the signs of signals."""

    rows: Tensor
    signs: list[Tensor]

    def patches(self, w: Tensor, q: int) -> list[Tensor]:
        """Activations of all patches, [n, m] each."""
        z = self.rows @ w.T
        n = len(self.signs[0])
        found, first = [z[:n]], n
        for signs in self.signs:
            stop = first + signs.shape[1]
            found.append(signs @ z[first:stop])
            first = stop
        return [torch.relu(x) ** q if q > 1 else torch.relu(x) for x in found]


LossOf = Callable[[list[Tensor], Tensor], Tensor]


def textbook_variant_losses(cfg: TrainConfig, data: SignalNoiseData) -> Tensor:
    """Losses before each of `cfg.epochs` updates by autograd of the reference, [epochs]."""
    return _descend(cfg, data, _textbook_loss(cfg, data))


def eager_variant_losses(cfg: TrainConfig, data: SignalNoiseData) -> Tensor:
    """The same without waste, still eager autograd, [epochs]."""
    return _descend(cfg, data, _loss(cfg, data))


def _descend(cfg: TrainConfig, data: SignalNoiseData, loss_of: LossOf) -> Tensor:
    given = (data.weights, data.weights_b, data.weights_c)
    weights = [w.clone().requires_grad_() for w in given if w is not None]
    log_inverse_tau = torch.tensor(1.0 / cfg.tau_value, dtype=data.weights.dtype).log()
    parameters, rates = list(weights), [cfg.eta] * len(weights)
    if cfg.eta_tau is not None:
        parameters.append(log_inverse_tau.requires_grad_())
        rates.append(cfg.eta_tau)
    losses = []
    for _ in range(cfg.epochs):
        loss = loss_of(weights, log_inverse_tau)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for x, g, rate in zip(parameters, gradients, rates, strict=True):
                x.sub_(g, alpha=rate)
        losses.append(loss.detach())
    return torch.stack(losses)


def _textbook_loss(cfg: TrainConfig, data: SignalNoiseData) -> LossOf:
    """The loss as a function of the weights and log(1 / tau)."""
    kinds: dict[SampleSet, Tensor | None] = {"a": data.noise}
    if cfg.objective == "contrastive":
        kinds |= _others(cfg, data)
    rows = [
        [*(patch.rows() for patch in signal_patches(data, kind)), noise]
        for kind, noise in kinds.items()
        if noise is not None
    ]
    every_label = cfg.negatives == "all"
    masks = [
        reference.negative_pairs(of_query, of_key, every_label=every_label)
        for of_query, of_key in _labels_of_directions(cfg, data)
    ]

    def patches(of: list[Tensor], w: Tensor) -> list[Tensor]:
        return [reference.activation(x @ w.T, cfg.q) for x in of]

    def loss(weights: list[Tensor], log_inverse_tau: Tensor) -> Tensor:
        if cfg.objective == "logistic":
            targets = data.labels if data.targets is None else data.targets
            embedding = torch.stack(patches(rows[0], weights[0])).sum(0)
            return reference.logistic_loss(embedding, targets, cfg.tau_value)
        # The view has the weights of modality A.
        of_rows = weights if cfg.is_multi else [weights[0], weights[0]]
        sides = [torch.cat(patches(of, w), dim=1) for of, w in zip(rows, of_rows, strict=True)]
        scale = log_inverse_tau.exp() if cfg.eta_tau is not None else 1.0 / cfg.tau_value
        directions = [(sides[0], sides[0], sides[1])]
        if cfg.is_multi:
            directions = [(h, g, g) for h, g in permutations(sides, 2)]
        losses = [
            reference.direction_loss(
                *direction,
                mask,
                scale=scale if cfg.similarity == "cosine" else scale / cfg.m,
                cosine=cfg.similarity == "cosine",
                stops_keys=cfg.stop_gradient == "key",
            )
            for direction, mask in zip(directions, masks, strict=True)
        ]
        return torch.stack(losses).sum()

    return loss


def _loss(cfg: TrainConfig, data: SignalNoiseData) -> LossOf:
    """The loss as a function of the weights and log(1 / tau)."""
    a = _samples(data, "a", data.noise)
    if cfg.objective == "logistic":
        targets = data.labels if data.targets is None else data.targets
        factor = targets * (2.0 / (cfg.m * cfg.tau_value))
        second = reference.second_layer(cfg.m, data.weights)

        def logistic(weights: list[Tensor], _: Tensor) -> Tensor:
            output = sum(a.patches(weights[0], cfg.q)) @ second
            return F.softplus(-factor * output).mean()

        return logistic
    others = [_samples(data, kind, noise) for kind, noise in _others(cfg, data).items()]
    masks = [_bias(cfg, *labels) for labels in _labels_of_directions(cfg, data)]

    def contrastive(weights: list[Tensor], log_inverse_tau: Tensor) -> Tensor:
        learned = cfg.eta_tau is not None
        scale: Tensor | float = log_inverse_tau.exp() if learned else 1.0 / cfg.tau_value
        h = _features(cfg, a, weights[0])
        # Of one modality the view is a constant where keys are.
        stopped = not cfg.is_multi and cfg.stop_gradient == "key"
        with torch.no_grad() if stopped else nullcontext():
            # The view has the weights of modality A.
            of_others = weights[1:] if cfg.is_multi else weights
            further = [_features(cfg, x, w) for x, w in zip(others, of_others, strict=True)]
        scale = scale if cfg.similarity == "cosine" else scale / cfg.m
        if not cfg.is_multi:
            return _direction(cfg, (h, h, further[0]), masks[0], scale)
        directions = zip(permutations([h, *further], 2), masks, strict=True)
        losses = [_direction(cfg, (x, y, y), mask, scale) for (x, y), mask in directions]
        return sum(losses[1:], start=losses[0])

    return contrastive


def _others(cfg: TrainConfig, data: SignalNoiseData) -> dict[SampleSet, Tensor | None]:
    """Noise patches of the further modalities, or of the views."""
    if not cfg.is_multi:
        return {"view": data.augmented}
    return {"b": data.noise_b} if data.noise_c is None else {"b": data.noise_b, "c": data.noise_c}


def _labels_of_directions(cfg: TrainConfig, data: SignalNoiseData) -> list[tuple[Tensor, ...]]:
    """Labels of the queries and of the keys of each direction of the loss."""
    if not cfg.is_multi:
        return [(data.labels, data.labels)]
    partners = data.positive_labels, data.positive_labels_c
    labels = [data.labels, *(data.labels if x is None else x for x in partners)]
    return list(permutations(labels[: len(cfg.modalities)], 2))


def _direction(
    cfg: TrainConfig, features: tuple[Tensor, Tensor, Tensor], bias: Tensor, scale: Tensor | float
) -> Tensor:
    query, key, positive = features
    if cfg.stop_gradient == "key":
        key, positive = key.detach(), positive.detach()
    of_positive = scale * (query * positive).sum(1, keepdim=True)
    scores = torch.cat([of_positive, scale * (query @ key.T) + bias], dim=1)
    return (torch.logsumexp(scores, 1) - of_positive[:, 0]).mean()


def _samples(data: SignalNoiseData, kind: SampleSet, noise: Tensor | None) -> _Samples:
    assert noise is not None
    patches = signal_patches(data, kind)
    return _Samples(torch.cat([noise, *(p.vectors for p in patches)]), [p.signs for p in patches])


def _features(cfg: TrainConfig, samples: _Samples, w: Tensor) -> Tensor:
    features = torch.cat(samples.patches(w, cfg.q), dim=1)
    return F.normalize(features, dim=1) if cfg.similarity == "cosine" else features


def _bias(cfg: TrainConfig, labels: Tensor, key_labels: Tensor) -> Tensor:
    """0 for a negative, minus infinity for what is none, [n, n]."""
    negative = reference.negative_pairs(labels, key_labels, every_label=cfg.negatives == "all")
    return torch.where(negative, 0.0, -torch.inf)


__all__ = ["eager_variant_losses", "textbook_variant_losses"]
