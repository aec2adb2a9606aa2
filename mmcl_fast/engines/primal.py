"""Training on the weights with the hand-written one-pass gradient: any data, any optimizer.

`Z = W X^T`, one pass over the scores, `dL/dW = C X + c_mu mu^T` (7), (10). The signal patch is
never materialised. Beside the weights the engine accumulates their coefficients in the span of the
data, as long as the optimizer stays in it, so that gamma and rho are the accumulated ones.

Numerics: arithmetic of the config's dtype. Cost of a step: 2 m d (3 n) + 4 n^2 m flop single-modal;
memory n d numbers, and never n x n of them unless M negatives are drawn (`one_pass` works in chunks
of rows).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import draw_augmented, draw_minibatches
from mmcl_fast.engines.descent import LinearDescent, nest, unnest
from mmcl_fast.engines.gram import embed
from mmcl_fast.engines.pool import NegativePool, one_hot_sides
from mmcl_fast.engines.protocol import Coefficients, Spec
from mmcl_fast.model import power_relu, power_relu_backward, signal_gradient
from mmcl_fast.torch_impl.one_pass import (
    FeatureGradient,
    Features,
    ListedNegatives,
    Negatives,
    OtherLabel,
    Roles,
    Workspace,
    bias_of,
    one_pass,
)


def why_not(cfg: TrainConfig) -> str | None:
    """Why the primal engine cannot train this, or None."""
    return None


def max_runs(cfg: TrainConfig) -> int:
    """1: on a CPU, batching runs in weight space buys nothing (each has its own data)."""
    return 1


class _Modality:
    """Weights of one encoder, and the coefficients (a, A) of those weights in the data's span."""

    def __init__(self, noise: Tensor, mu: Tensor, weights: Tensor) -> None:
        self.noise, self.mu = noise, mu  # [n, d], [d]
        self.weights = weights.clone()  # [m, d]
        self.moved = weights.new_zeros(weights.shape[0], noise.shape[0] + 1)  # A, [m, n + 1]
        self.kept = weights.new_ones(1)  # a

    def preactivations(self, rows: Tensor, signal: Tensor) -> Tensor:
        """Of noise rows [k, d], then of plus and minus a signal [d]: [1, m, k + 2]."""
        k = len(rows)
        z = self.weights.new_empty(1, len(self.weights), k + 2)
        torch.mm(self.weights, rows.T, out=z[0, :, :k])
        z[0, :, k] = self.weights @ signal
        torch.neg(z[:, :, k], out=z[:, :, k + 1])
        return z

    def gradients(
        self, g: FeatureGradient, z: Tensor, batch: Tensor | None, q: int
    ) -> list[Tensor]:
        """Gradients with respect to the weights, A and a, all to be multiplied by `g.weight`."""
        k = g.noise.shape[2]
        c = power_relu_backward(g.noise, z[:, :, :k], q)[0]  # [m, k]
        c_mu = signal_gradient(g.signal, z[:, :, k:], q)[0, :, 0]
        along = torch.zeros_like(self.moved)
        along[:, :-1] = c if batch is None else along[:, :-1].index_copy(1, batch, c)
        along[:, -1] = c_mu
        to_weights = torch.addr(c @ _rows(self.noise, batch), c_mu, self.mu)
        return [to_weights, along, torch.zeros_like(self.kept)]


class PrimalEngine:
    """One run; see the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: Spec) -> None:
        if len(spec.configs) != 1:
            raise ValueError(f"spec: expected one run, got {len(spec.configs)}")
        self._spec, self._cfg, device = spec, spec.cfg, spec.device
        data = spec.data[0]
        self._labels = data.labels.to(device)
        self._side = one_hot_sides(self._labels.unsqueeze(0))
        self._pool = NegativePool(spec, self._labels.unsqueeze(0), keep=False)
        self._modalities = [
            _Modality(data.noise.to(device), data.mu.to(device), data.weights.to(device))
        ]
        if self._cfg.is_multi:
            parts = (data.noise_b, data.mu_b, data.weights_b)
            self._modalities.append(_Modality(*(p.to(device) for p in parts if p is not None)))
        self._view = None if data.augmented is None else data.augmented.to(device)
        self._view_epoch = 0
        self._test = data.test_noise.to(device), data.test_labels.to(device), data.nu.to(device)
        self._optimizers = [_optimizer(self._cfg, v) for v in self._modalities]
        self._workspace = Workspace()
        self._current: list[Tensor] = []

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        if self._cfg.optimizer != "sgd":
            loss, gradients = self._pass(epoch, None)
            self._update(gradients)
            return loss
        loss = self.loss(epoch)
        for batch in draw_minibatches(self._cfg, epoch):
            self._update(self._pass(epoch, batch.to(self._spec.device))[1])
        return loss

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self._pass(epoch, None, want_gradient=False)[0]

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        z, n = self._preactivations()[0], self._cfg.n
        # Plus and minus <w_r, mu> stand side by side: their maximum is that of the absolute value.
        return z[:, :, n:].amax((1, 2)), z[:, :, :n].amax((1, 2))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """See `Engine.embeddings`."""
        q = self._cfg.q
        noise, labels, nu = self._test
        unseen = power_relu(self._modalities[0].preactivations(noise, nu), q)
        seen = Features(power_relu(self._preactivations()[0], q))
        return (
            embed(seen, self._side),
            embed(Features(unseen), one_hot_sides(labels.unsqueeze(0))),
        )

    def coefficients(self) -> tuple[Coefficients, ...] | None:
        """See `Engine.coefficients`; None with Adam."""
        if self._cfg.optimizer == "adam":
            return None
        return tuple(
            Coefficients(
                initial=v.kept.clone(),
                mu=v.moved[:, -1].unsqueeze(0).clone(),
                noise=v.moved[:, :-1].unsqueeze(0).clone(),
            )
            for v in self._modalities
        )

    def weights(self) -> tuple[Tensor, ...]:
        """See `Engine.weights`."""
        return tuple(v.weights.unsqueeze(0).clone() for v in self._modalities)

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        parts = [nest(f"modality_{k}", o.state()) for k, o in enumerate(self._optimizers)]
        return {name: t for part in parts for name, t in part.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        for k, optimizer in enumerate(self._optimizers):
            optimizer.load_state(unnest(f"modality_{k}", state))
        self._current = []

    def _preactivations(self) -> list[Tensor]:
        """Of all samples of each modality, computed once between two updates."""
        if not self._current:
            self._current = [v.preactivations(v.noise, v.mu) for v in self._modalities]
        return self._current

    def _pass(
        self, epoch: int, batch: Tensor | None, *, want_gradient: bool = True
    ) -> tuple[Tensor, list[tuple[list[Tensor], float]]]:
        """Loss [1], and per modality the gradients and their common weight."""
        cfg, q = self._cfg, self._cfg.q
        if batch is None:
            z = self._preactivations()
        else:
            z = [v.preactivations(v.noise[batch], v.mu) for v in self._modalities]
        active = [Features(power_relu(x, q)) for x in z]
        if cfg.is_multi:
            a, b = active
            passes = [Roles(a, b, b), Roles(b, a, a)]
        else:
            first = self._modalities[0]
            view = first.preactivations(_rows(self._augmented(epoch), batch), first.mu)
            passes = [Roles(active[0], active[0], Features(power_relu(view, q)))]
        side = self._side if batch is None else self._side[:, batch]
        negatives = self._negatives(epoch, batch)
        done = [
            one_pass(
                roles,
                side,
                negatives,
                tau=cfg.tau_value,
                workspace=self._workspace,
                want_gradient=want_gradient,
            )
            for roles in passes
        ]
        loss = sum((value for value, _ in done[1:]), start=done[0][0])
        gradients = [
            (v.gradients(g, x, batch, q), g.weight)
            for v, x, (_, g) in zip(self._modalities, z, done, strict=True)
            if g is not None
        ]
        return loss, gradients

    def _negatives(self, epoch: int, batch: Tensor | None) -> Negatives:
        if batch is None:
            return self._pool.at(epoch)
        if self._cfg.negatives_per_sample is None:
            return OtherLabel(self._labels[batch].unsqueeze(0))
        chosen = self._pool.chosen(epoch)[:, batch][:, :, batch]
        return ListedNegatives(bias_of(chosen, 0, self._labels.dtype))

    def _augmented(self, epoch: int) -> Tensor:
        if self._view is None:
            raise ValueError("augmented: expected a view in single-modal training, got None")
        if self._cfg.augment == "per_epoch" and epoch != self._view_epoch:
            self._view = draw_augmented(self._cfg, self._modalities[0].noise, epoch)
            self._view_epoch = epoch
        return self._view

    def _update(self, gradients: list[tuple[list[Tensor], float]]) -> None:
        for optimizer, (g, weight) in zip(self._optimizers, gradients, strict=True):
            optimizer.step(g, weight)
        self._current = []


class _Adam:
    """`torch.optim.Adam` on the weights; they have no coefficients in the span of the data."""

    def __init__(self, cfg: TrainConfig, weights: Tensor) -> None:
        self._weights = weights
        self._adam = torch.optim.Adam([weights], lr=cfg.eta, weight_decay=cfg.weight_decay)
        # A zero gradient at zero step size creates the moments, so that state() is always whole.
        weights.grad = torch.zeros_like(weights)
        self._adam.param_groups[0]["lr"] = 0.0
        self._adam.step()
        self._adam.param_groups[0]["lr"] = cfg.eta
        for value in self._adam.state[weights].values():
            value.zero_()

    def step(self, gradients: list[Tensor], weight: float) -> None:
        self._weights.grad = gradients[0].mul_(weight)
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        return {"weights": self._weights, **self._adam.state[self._weights]}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def _rows(x: Tensor, batch: Tensor | None) -> Tensor:
    return x if batch is None else x[batch]


def _optimizer(cfg: TrainConfig, v: _Modality) -> LinearDescent | _Adam:
    if cfg.optimizer == "adam":
        return _Adam(cfg, v.weights)
    return LinearDescent(cfg, [v.weights, v.moved, v.kept])


__all__ = ["PrimalEngine", "max_runs", "why_not"]
