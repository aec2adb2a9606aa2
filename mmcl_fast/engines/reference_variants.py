"""Variants of the paper's model by autograd on the weights: slow; defines the variant engines.

Gradients with respect to the coefficients of the span are those of the projections of the vectors
that span it, by the chain rule: autograd gives both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations

import torch
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import ModalityName
from mmcl_fast.data.signal_noise.discrete import draw_targets
from mmcl_fast.data.signal_noise.signals import SampleSet, signal_patches
from mmcl_fast.data.signal_noise.synthetic import (
    draw_augmented,
    draw_minibatches,
    draw_negatives,
)
from mmcl_fast.engines.optimizers import load_torch_state, torch_optimizer, torch_state
from mmcl_fast.engines.protocol import Coefficients, Embeddings, EngineSpec
from mmcl_fast.engines.variants.sizes import leaves_span


@dataclass
class _Modality:
    """Weights of one encoder and the vectors that they meet in training.

    Attributes:
        weights: [m, d], the parameter.
        axes: Signals, [A, d].
        noise: Noise patches, [n, d].
        signs: Of each signal patch of the samples, coefficients of all axes, [n, A] each.
        views: Noise patches of the views, [n, d]; None if multi-modal.
        view_signs: `signs` of the views.
    """

    weights: Tensor
    axes: Tensor
    noise: Tensor
    signs: list[Tensor]
    views: Tensor | None = None
    view_signs: list[Tensor] = field(default_factory=list)


class VariantReferenceEngine:
    """One run; see the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        if len(spec.configs) != 1:
            raise ValueError(f"spec: expected one run, got {len(spec.configs)}")
        self._spec, self._cfg, self._device = spec, spec.cfg, spec.device
        self._data = data = spec.data[0]
        cfg = self._cfg
        self._labels = data.labels.to(self._device)
        partners = data.positive_labels, data.positive_labels_c
        self._labels_of = [  # of the samples in each modality
            self._labels if x is None else x.to(self._device) for x in (data.labels, *partners)
        ]
        self._modalities = [self._modality(kind) for kind in cfg.modalities]
        if not cfg.is_multi and data.augmented is not None:
            a = self._modalities[0]
            a.views = data.augmented.to(self._device)
            a.view_signs, _ = self._signals("view")
        self._log_inverse_tau = self._labels.new_tensor(cfg.tau_value).log().neg()
        self._optimizer = torch_optimizer(cfg, [v.weights for v in self._modalities])
        # Coefficients, initial scale a first, are parameters of an optimizer of the same kind.
        self._coefficients = [
            [x.requires_grad_() for x in self._zero_coefficients(v)] for v in self._modalities
        ]
        self._recursion = torch_optimizer(cfg, [x for xs in self._coefficients for x in xs])

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        if self._cfg.optimizer != "sgd":
            return self._step(epoch, None)
        loss = self.loss(epoch)
        for batch in draw_minibatches(self._cfg, epoch):
            self._step(epoch, batch.to(self._device))
        return loss

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        with torch.no_grad():
            return self._loss(epoch, None, self._projections(epoch), self._log_inverse_tau).view(1)

    def temperature(self) -> Tensor:
        """See `LearnsTemperature.temperature`."""
        if self._cfg.eta_tau is None:
            return self._labels.new_full((1,), self._cfg.tau_value)
        return self._log_inverse_tau.neg().exp().view(1)

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        v, labels = self._modalities[0], self._cfg.classes or 1
        w = v.weights.detach()
        return (v.axes[:labels] @ w.T).abs().amax().view(1), (v.noise @ w.T).amax().view(1)

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        data, k = self._data, self._cfg.probe_samples_value
        return Embeddings(
            self._embed("a", self._modalities[0].noise),
            self._embed("test", data.test_noise),
            self._embed("probe", data.probe_noise) if k else None,
        )

    def coefficients(self) -> tuple[Coefficients, ...] | None:
        """See `Engine.coefficients`; None where the weights leave the span of the held data."""
        if leaves_span(self._cfg):
            return None
        return tuple(self._of_modality(k) for k in range(len(self._modalities)))

    def weights(self) -> tuple[Tensor, ...]:
        """See `Engine.weights`."""
        return tuple(v.weights.detach().unsqueeze(0).clone() for v in self._modalities)

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        state = torch_state(self._optimizers)
        if self._cfg.eta_tau is not None:
            state["log_inverse_tau"] = self._log_inverse_tau
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        load_torch_state(self._optimizers, state)
        if self._cfg.eta_tau is not None:
            self._log_inverse_tau = state["log_inverse_tau"].clone()

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self._optimizer, "recursion": self._recursion}

    def _modality(self, kind: ModalityName) -> _Modality:
        data = self._data
        weights, noise = {
            "a": (data.weights, data.noise),
            "b": (data.weights_b, data.noise_b),
            "c": (data.weights_c, data.noise_c),
        }[kind]
        assert weights is not None
        assert noise is not None
        signs, axes = self._signals(kind)
        own = weights.to(self._device).clone().requires_grad_()
        return _Modality(own, axes, noise.to(self._device), signs)

    def _signals(self, samples: SampleSet) -> tuple[list[Tensor], Tensor]:
        """Signs of each signal patch with respect to all axes, and the axes."""
        patches = signal_patches(self._data, samples)
        axes = torch.cat([p.vectors for p in patches]).to(self._device)
        signs, first = [], 0
        for patch in patches:
            all_axes = axes.new_zeros(len(patch.signs), len(axes))
            stop = first + patch.signs.shape[1]
            all_axes[:, first:stop] = patch.signs
            signs.append(all_axes)
            first = stop
        return signs, axes

    def _step(self, epoch: int, batch: Tensor | None) -> Tensor:
        projections = self._projections(epoch)
        for of_modality in projections:
            for projection in of_modality.values():
                projection.retain_grad()
        log_inverse_tau = self._log_inverse_tau.clone().requires_grad_()
        self._optimizer.zero_grad()
        loss = self._loss(epoch, batch, projections, log_inverse_tau)
        loss.backward()
        if not leaves_span(self._cfg):
            self._step_coefficients(projections)
        self._optimizer.step()
        if self._cfg.eta_tau is not None:
            assert log_inverse_tau.grad is not None
            self._log_inverse_tau = self._log_inverse_tau - self._cfg.eta_tau * log_inverse_tau.grad
        return loss.detach().view(1)

    def _projections(self, epoch: int) -> list[dict[str, Tensor]]:
        """Inner products of the weights with the vectors of each modality, [vectors, m] each."""
        found = []
        for v in self._modalities:
            of_modality = {"axes": v.axes @ v.weights.T, "noise": v.noise @ v.weights.T}
            if v.views is not None:
                of_modality["views"] = self._views(v, epoch) @ v.weights.T
            found.append(of_modality)
        return found

    def _views(self, v: _Modality, epoch: int) -> Tensor:
        assert v.views is not None
        if self._cfg.augment == "per_epoch" and epoch > 0:
            return draw_augmented(self._cfg, v.noise, epoch)
        return v.views

    def _loss(
        self,
        epoch: int,
        batch: Tensor | None,
        projections: list[dict[str, Tensor]],
        log_inverse_tau: Tensor,
    ) -> Tensor:
        cfg, pick = self._cfg, slice(None) if batch is None else batch
        if cfg.objective == "logistic":
            patches = self._patches(0, projections, "noise", pick)
            embedding = torch.stack(patches).sum(0)
            return reference.logistic_loss(embedding, self._targets(epoch)[pick], cfg.tau_value)
        sides = [
            torch.cat(self._patches(k, projections, "noise", pick), dim=1)
            for k in range(len(self._modalities))
        ]
        learned = cfg.eta_tau is not None
        scale: Tensor | float = log_inverse_tau.exp() if learned else 1.0 / cfg.tau_value
        scale = scale if cfg.similarity == "cosine" else scale / cfg.m
        labels = [x[pick] for x in self._labels_of]
        if cfg.is_multi:
            directions = [
                (sides[i], sides[j], sides[j], labels[i], labels[j])
                for i, j in permutations(range(len(sides)), 2)
            ]
        else:
            view = torch.cat(self._patches(0, projections, "views", pick), dim=1)
            directions = [(sides[0], sides[0], view, labels[0], labels[0])]
        losses = [
            reference.direction_loss(
                query,
                key,
                positive,
                self._negatives(epoch, pick, query_labels, key_labels),
                scale=scale,
                cosine=cfg.similarity == "cosine",
                stops_keys=cfg.stop_gradient == "key",
            )
            for query, key, positive, query_labels, key_labels in directions
        ]
        return torch.stack(losses).sum()

    def _patches(
        self, k: int, projections: list[dict[str, Tensor]], noise: str, pick: slice | Tensor
    ) -> list[Tensor]:
        """Activations of the samples' patches in a modality, [n, m] each, or of the views'."""
        v, q = self._modalities[k], self._cfg.q
        signs = v.view_signs if noise == "views" else v.signs
        signals = [s[pick] @ projections[k]["axes"] for s in signs]
        return [reference.activation(z, q) for z in (*signals, projections[k][noise][pick])]

    def _negatives(
        self, epoch: int, pick: slice | Tensor, query_labels: Tensor, key_labels: Tensor
    ) -> Tensor:
        drawn = draw_negatives(self._cfg, self._data.labels, epoch)
        if drawn is not None:
            return drawn.to(self._device)[pick][:, pick]
        every_label = self._cfg.negatives == "all"
        return reference.negative_pairs(query_labels, key_labels, every_label=every_label)

    def _targets(self, epoch: int) -> Tensor:
        data = self._data
        if self._cfg.label_noise_draw == "per_epoch" and epoch > 0:
            return draw_targets(self._cfg, data.labels, epoch).to(self._device)
        return (data.labels if data.targets is None else data.targets).to(self._device)

    @torch.no_grad()
    def _embed(self, samples: SampleSet, noise: Tensor | None) -> Tensor:
        """Embeddings of samples of modality A, [1, k, m]."""
        assert noise is not None
        w, q = self._modalities[0].weights, self._cfg.q
        patches = [p.projected(w) for p in signal_patches(self._data, samples)]
        patches.append(noise.to(self._device) @ w.T)
        return torch.stack([reference.activation(z, q) for z in patches]).sum(0).unsqueeze(0)

    def _zero_coefficients(self, v: _Modality) -> list[Tensor]:
        """a, and the coefficients of axes, noise patches and, where they count, views."""
        m, trains_views = len(v.weights), self._cfg.trains_keys and v.views is not None
        found = [v.weights.new_ones(1), v.weights.new_zeros(len(v.axes), m)]
        found.append(v.weights.new_zeros(len(v.noise), m))
        return [*found, v.weights.new_zeros(len(v.noise), m)] if trains_views else found

    def _step_coefficients(self, projections: list[dict[str, Tensor]]) -> None:
        for of_modality, coefficients in zip(projections, self._coefficients, strict=True):
            names = ("axes", "noise", "views")
            for name, x in zip(names, coefficients[1:], strict=False):
                given = of_modality[name].grad
                x.grad = torch.zeros_like(x) if given is None else given
            coefficients[0].grad = torch.zeros_like(coefficients[0])
        self._recursion.step()

    def _of_modality(self, k: int) -> Coefficients:
        initial, axes, noise, *views = (x.detach() for x in self._coefficients[k])
        labels = self._cfg.classes or 1
        mu = axes[:labels].T if self._cfg.classes else axes[0]
        return Coefficients(
            initial=initial.clone(),
            mu=mu.unsqueeze(0).clone(),
            noise=noise.T.unsqueeze(0).clone(),
            spurious=axes[labels].unsqueeze(0).clone() if self._cfg.has_spurious else None,
            views=views[0].T.unsqueeze(0).clone() if views else None,
        )


__all__ = ["VariantReferenceEngine"]
