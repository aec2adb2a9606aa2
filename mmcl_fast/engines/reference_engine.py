"""Autograd on the weights by `mmcl_fast.reference`: slow; defines the results of all engines.

The only engine that may import the reference. Updates are those of `torch.optim`;
gamma and rho follow the recursions of Lemmas 5.1 and 5.3, not autograd.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import draw_augmented, draw_minibatches
from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.negatives import NegativePool
from mmcl_fast.engines.optimizers import load_torch_state, torch_optimizer, torch_state
from mmcl_fast.engines.protocol import Coefficients, Embeddings, Engine, EngineSpec
from mmcl_fast.engines.reference_variants import VariantReferenceEngine


def why_not(cfg: TrainConfig) -> str | None:
    """Why the reference engine cannot train this, or None."""
    if cfg.data == "streamed":
        return "data streamed: no vectors are held to differentiate through; use primal"
    return None


def max_runs(cfg: TrainConfig) -> int:
    """1: one run at a time."""
    return 1


class ReferenceEngine:
    """One run; see the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        if len(spec.configs) != 1:
            raise ValueError(f"spec: expected one run, got {len(spec.configs)}")
        self._spec, self._cfg, device = spec, spec.cfg, spec.device
        self._data = data = spec.data[0]
        self._labels = data.labels.to(device)
        self._pool = NegativePool(spec, self._labels.unsqueeze(0), keep=False)
        noise, mu = (data.noise, data.noise_b), (data.mu, data.mu_b)
        weights = (data.weights, data.weights_b)
        self._noise, self._mu = (
            [aligned(x.to(device)) for x in xs if x is not None] for xs in (noise, mu)
        )
        self._weights = [w.to(device).clone().requires_grad_() for w in weights if w is not None]
        self._has_own_signal = data.signal is not None
        self._signal = [
            reference.signal_patches(self._labels, mu) if own is None else aligned(own.to(device))
            for mu, own in zip(self._mu, (data.signal, data.signal_b), strict=False)
        ]
        self._optimizer = torch_optimizer(self._cfg, self._weights)
        # (A, a) of each modality are the parameters of a second optimizer of the same kind.
        n, m = self._cfg.n, self._cfg.m
        self._coefficients = [w.new_zeros(n + 1, m).requires_grad_() for w in self._weights]
        self._initial_scales = [w.new_ones(1).requires_grad_() for w in self._weights]
        self._recursion = torch_optimizer(self._cfg, [*self._coefficients, *self._initial_scales])

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        if self._cfg.optimizer != "sgd":
            return self._step(epoch, None)
        loss = self.loss(epoch)
        for batch in draw_minibatches(self._cfg, epoch):
            self._step(epoch, batch.to(self._spec.device))
        return loss

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        with torch.no_grad():
            return self._loss(self._features(epoch, None), self._negatives(epoch, None)).view(1)

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        w = self._weights[0].detach()
        signal = reference.signal_learning(w, self._mu[0])
        return signal.view(1), reference.noise_memorisation(w, self._noise[0]).view(1)

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        data, w = self._data, self._weights[0].detach()
        train = reference.embedding(w, self._signal[0], self._noise[0], self._cfg.q)
        probe = None
        if data.probe_labels is not None and data.probe_noise is not None:
            probe = self._ood(data.probe_labels, data.probe_noise)
        return Embeddings(train.unsqueeze(0), self._ood(data.test_labels, data.test_noise), probe)

    def _ood(self, labels: Tensor, noise: Tensor) -> Tensor:
        """Embeddings of samples of the test distribution, [1, k, m]."""
        w, device = self._weights[0].detach(), self._spec.device
        signal = reference.signal_patches(labels, self._data.nu).to(device)
        return reference.embedding(w, signal, aligned(noise.to(device)), self._cfg.q).unsqueeze(0)

    def coefficients(self) -> tuple[Coefficients, ...] | None:
        """See `Engine.coefficients`; None with Adam, and with a signal patch per sample."""
        if self._leaves_the_span:
            return None
        return tuple(
            Coefficients(
                initial=initial_scale.detach().clone(),
                mu=coefficients.detach()[-1:].clone(),
                noise=coefficients.detach()[:-1].T.unsqueeze(0).clone(),
            )
            for coefficients, initial_scale in zip(
                self._coefficients, self._initial_scales, strict=True
            )
        )

    def weights(self) -> tuple[Tensor, ...]:
        """See `Engine.weights`."""
        return tuple(w.detach().unsqueeze(0).clone() for w in self._weights)

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        return torch_state(self._optimizers)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        load_torch_state(self._optimizers, state)

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self._optimizer, "recursion": self._recursion}

    @property
    def _leaves_the_span(self) -> bool:
        """Whether weights are no combination of w(0), mu and the noise patches."""
        return self._cfg.optimizer == "adam" or self._has_own_signal

    def _step(self, epoch: int, batch: Tensor | None) -> Tensor:
        features = self._features(epoch, batch)
        negatives = self._negatives(epoch, batch)
        self._optimizer.zero_grad()
        loss = self._loss(features, negatives)
        loss.backward()
        if not self._leaves_the_span:
            self._step_coefficients(epoch, batch, negatives)
        self._optimizer.step()
        return loss.detach().view(1)

    def _features(self, epoch: int, batch: Tensor | None) -> list[Tensor]:
        """Features of the two arguments of the loss: (x, its view), or (x, x~)."""
        q = self._cfg.q
        pick = slice(None) if batch is None else batch
        h = reference.features(self._weights[0], self._signal[0][pick], self._noise[0][pick], q)
        if self._cfg.is_multi:
            other, noise, signal = self._weights[1], self._noise[1], self._signal[1]
        else:
            other, noise, signal = self._weights[0], self._view(epoch), self._signal[0]
        return [h, reference.features(other, signal[pick], noise[pick], q)]

    def _loss(self, features: Sequence[Tensor], negatives: Tensor) -> Tensor:
        loss = reference.multi_modal_loss if self._cfg.is_multi else reference.single_modal_loss
        return loss(features[0], features[1], negatives, self._cfg.tau_value)

    def _negatives(self, epoch: int, batch: Tensor | None) -> Tensor:
        mask = self._pool.mask(epoch)[0]
        return mask if batch is None else mask[batch][:, batch]

    def _view(self, epoch: int) -> Tensor:
        data = self._data
        if self._cfg.augment == "per_epoch" and epoch > 0:
            return draw_augmented(self._cfg, self._noise[0], epoch)
        assert data.augmented is not None
        return aligned(data.augmented.to(self._spec.device))

    @torch.no_grad()
    def _step_coefficients(self, epoch: int, batch: Tensor | None, negatives: Tensor) -> None:
        cfg, m = self._cfg, self._cfg.m
        h, other = self._features(epoch, batch)
        pick = slice(None) if batch is None else batch
        arguments = [(h, other, other), (other, h, h)] if cfg.is_multi else [(h, h, other)]
        # The increments of the lemmas are -eta times the gradient with respect to (A_mu, A_i).
        scale = -1.0 / (len(h) * m * cfg.tau_value)
        for k, (query, key, positive) in enumerate(arguments):
            p_positive, p_negative = reference.softmax_weights(
                reference.paired_similarity(query, positive) / cfg.tau_value,
                reference.similarity(query, key) / cfg.tau_value,
                negatives,
            )
            keys = reference.Keys(
                signal=key[:, :m],
                noise=key[:, m:],
                positive_signal=positive[:, :m],
                positive_noise=positive[:, m:],
                p_positive=p_positive,
                p_negative=p_negative,
            )
            w = self._weights[k]
            z_signal, z_noise = self._signal[k][pick] @ w.T, self._noise[k][pick] @ w.T
            gradient = torch.zeros_like(self._coefficients[k])
            gradient[:-1][pick] = reference.rho_increment(z_noise, keys, q=cfg.q, scale=scale).T
            gradient[-1] = reference.gamma_increment(
                z_signal, self._labels[pick], keys, q=cfg.q, scale=scale
            )
            self._coefficients[k].grad = gradient
            self._initial_scales[k].grad = torch.zeros_like(self._initial_scales[k])
        self._recursion.step()


def engine(spec: EngineSpec) -> Engine:
    """The reference engine of the paper's model, or of its variants."""
    return VariantReferenceEngine(spec) if spec.cfg.is_variant else ReferenceEngine(spec)


__all__ = ["ReferenceEngine", "engine", "max_runs", "why_not"]
