"""Training on the weights with an explicit one-pass gradient: any data, any optimizer.

`Z = X W^T`, one pass over the scores, `dL/dW = C^T X + c_mu mu^T` (7), (10). The signal patch is
never materialised. Activations are stored instead of pre-activations: act' follows from them.
The coefficients of the weights in the span of the data are accumulated beside the weights, so gamma
and rho are exact; Adam leaves the span and has none.

Numerics: arithmetic of the config's dtype. Precision bf16 rounds the factors and the results of the
products with noise patches to bfloat16; weights, scores, softmax and updates stay float32. On a GPU
features are then stored as bfloat16, and softmax terms are rounded to it before the products.
Cost of a step: 2 m d (3 n) + 3/2 n^2 m flop single-modal, 2 m d (4 n) + 3 n^2 m multi-modal
(`paper_loss.label_halves`); with M drawn negatives 4 n^2 m for each direction. Memory: the data, a
few [n, m] arrays, and n x n scores only if M negatives are drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_variants import variant_of
from mmcl_fast.data.signal_noise.rows import HeldRows
from mmcl_fast.data.signal_noise.synthetic import draw_minibatches
from mmcl_fast.engines.activation import activate
from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.data_parallel import SampleShard, WholeRun
from mmcl_fast.engines.encoder import Encoded, Modality, Order, Sources
from mmcl_fast.engines.negatives import NegativePool
from mmcl_fast.engines.optimizers import LinearDescent, nest, unnest
from mmcl_fast.engines.paper_loss.full_scores import (
    Features,
    Labels,
    ListedNegatives,
    Negatives,
    OtherLabel,
    Roles,
    Workspace,
    bias_of,
    one_pass,
)
from mmcl_fast.engines.paper_loss.label_halves import (
    Halves,
    HalvesBackend,
    HalvesGradient,
    multi_halves,
    one_way_halves,
    single_halves,
)
from mmcl_fast.engines.protocol import Coefficients, Embeddings, EngineSpec
from mmcl_fast.engines.variants.sizes import able_engine
from mmcl_fast.environment import kernels_lack, triton_interpreted

# Samples of a pass from which label halves are faster than one masked block of fewer operations
# (`python -m bench.cpu.choices`).
_HALVES_FROM = 200


def why_not(cfg: TrainConfig) -> str | None:
    """Why the primal engine cannot train this, or None."""
    if cfg.precision == "bf16" and cfg.dtype != "float32":
        return f"precision bf16: expected dtype float32 for weights and sums, got {cfg.dtype}"
    if name := variant_of(cfg):
        return f"{name} {getattr(cfg, name)} is not in this engine; use {able_engine(cfg)}"
    return None


def max_runs(cfg: TrainConfig) -> int:
    """1: batching saves nothing in weight space, as each run has its own data."""
    return 1


class PrimalEngine:
    """One run; see the module's documentation and `protocol.Engine`.

    Args:
        spec: The run; its noise patches are those of this process's samples.
        shard: The samples of this process; default: all.
    """

    def __init__(self, spec: EngineSpec, shard: SampleShard | None = None) -> None:
        if len(spec.configs) != 1:
            raise ValueError(f"spec: expected one run, got {len(spec.configs)}")
        self._spec, self._cfg, device = spec, spec.cfg, spec.device
        data = spec.data[0]
        self._shard = shard or WholeRun(self._cfg.n)
        self._samples = samples = self._shard.samples
        self._labels = data.labels[samples.start : samples.stop]
        self._pool = NegativePool(spec, data.labels.to(device).unsqueeze(0), keep=False)
        self._all = self._order(None)
        modality, self._halves_backend, features = self._kernels()
        self._sources = Sources(self._cfg, data, samples, device, features)
        n, starts = len(samples), ((data.mu, data.weights), (data.mu_b, data.weights_b))
        self._modalities = [
            modality(rows, n, mu.to(device), weights.to(device), self._cfg.precision)
            for rows, (mu, weights) in zip(self._sources.rows, starts, strict=False)
            if mu is not None and weights is not None
        ]
        self._nu = aligned(data.nu.to(device))
        self._test = aligned(data.test_noise.to(device)), data.test_labels.to(device)
        self._probe = None
        if data.probe_noise is not None and data.probe_labels is not None:
            self._probe = aligned(data.probe_noise.to(device)), data.probe_labels.to(device)
        self._optimizers = [_optimizer(self._cfg, v) for v in self._modalities]
        self._workspace = Workspace()
        self._current: list[Encoded] = []

    def _kernels(self) -> tuple[type[Modality], HalvesBackend | None, torch.dtype | None]:
        """Encoder, halves backend (None: torch) and dtype of features (None: the config's)."""
        # Without kernels, in float64 and with sharded samples, torch computes the same.
        on_cuda = self._spec.device.type == "cuda"
        able = (on_cuda or triton_interpreted()) and kernels_lack(on_cuda=on_cuda) is None
        if not (able and self._cfg.dtype == "float32" and self._shard.is_whole):
            return Modality, None, None
        from mmcl_fast.engines.encoder_triton import FEATURES, TritonModality  # imports Triton
        from mmcl_fast.engines.paper_loss.label_halves_triton import TRITON

        return TritonModality, TRITON, FEATURES[self._cfg.precision]

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        if self._cfg.optimizer != "sgd":
            loss, gradients = self._pass(epoch, None)
            self._update(gradients)
            return loss
        loss = self.loss(epoch)
        for batch in draw_minibatches(self._cfg, epoch):
            self._update(self._pass(epoch, batch)[1])
        return loss

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self._pass(epoch, None, want_gradient=False)[0]

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        x = self._encoded()[0]
        # Both signs of <w_r, mu> are columns, so their maximum is that of the absolute value.
        return x.signal.amax().unsqueeze(0), self._shard.maximum(x.largest.unsqueeze(0))

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        train = self._encoded()[0].features(self._cfg.q, 0)
        embedded = _embed(
            self._all.as_read(train.noise), train.signal, self._labels.to(train.noise.device)
        )
        return Embeddings(
            self._shard.all_rows(embedded).unsqueeze(0),
            self._ood(*self._test),
            None if self._probe is None else self._ood(*self._probe),
        )

    def _ood(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Embeddings of samples of the test distribution, [1, k, m]."""
        q, v = self._cfg.q, self._modalities[0]
        x = v.encode(HeldRows(noise), Order(None, None, 0), self._nu, len(noise))
        return _embed(x.features(q, 0).noise, activate(x.signal, q), labels).unsqueeze(0)

    def coefficients(self) -> tuple[Coefficients, ...] | None:
        """See `Engine.coefficients`; None with Adam."""
        if self._cfg.optimizer == "adam":
            return None
        return tuple(
            Coefficients(
                initial=v.initial_scale.clone(),
                mu=v.coefficients[:, -1].unsqueeze(0).clone(),
                noise=self._shard.all_rows(v.coefficients[:, :-1].T).T.unsqueeze(0).clone(),
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

    def _in_one_block(self, count: int) -> bool:
        """Whether the scores of `count` samples are one masked block instead of label halves."""
        drawn = self._cfg.negatives_per_sample is not None
        return drawn or (count < _HALVES_FROM and self._shard.is_whole)

    def _order(self, batch: Tensor | None) -> Order:
        # The mask has the order of the samples, so they stay unsorted.
        if self._in_one_block(len(self._labels) if batch is None else len(batch)):
            halves_gradients = Order(batch, None, 0)
        elif batch is None:
            halves_gradients = Order.sorted_all(self._labels)
        else:
            halves_gradients = Order.sorted_batch(self._labels, batch)
        return halves_gradients.to(self._spec.device)

    def _encoded(self) -> list[Encoded]:
        """All samples of each modality, encoded once per update."""
        if not self._current:
            count = len(self._samples)
            self._current = [v.encode(v.rows, self._all, v.mu, count) for v in self._modalities]
        return self._current

    def _pass(
        self, epoch: int, batch: Tensor | None, *, want_gradient: bool = True
    ) -> tuple[Tensor, list[tuple[list[Tensor], float]]]:
        """Loss [1], and for each modality the gradients and their common factor."""
        q, local = self._cfg.q, None if batch is None else self._shard.local_indices(batch)
        if local is None:
            order, encoded = self._all, self._encoded()
        else:
            order = self._order(local)
            encoded = [v.encode(v.rows, order, v.mu, len(local)) for v in self._modalities]
        active = [x.features(q, order.split) for x in encoded]
        if not self._cfg.is_multi:
            first = self._modalities[0]
            rows = self._sources.views(epoch)
            view = first.encode(rows, order, first.mu, len(active[0].noise))
            active.append(view.features(q, order.split))
        if self._in_one_block(len(active[0].noise)):
            loss, halves_gradients = self._one_block(
                active, self._negatives(epoch, batch), batch, want_gradient
            )
        else:
            a, b = active
            loss, halves_gradients = self._halves(a, b, batch, want_gradient)
        gradients = [
            (v.gradients(g, x, order, q, self._shard), g.weight)
            for v, x, g in zip(self._modalities, encoded, halves_gradients, strict=False)
        ]
        return loss.reshape(1), gradients

    def _halves(
        self,
        a: Halves,
        b: Halves,
        batch: Tensor | None,
        want_gradient: bool,  # noqa: FBT001
    ) -> tuple[Tensor, list[HalvesGradient]]:
        """The loss over all negatives; `b` is modality B or the view of `a`."""
        tau, shard = self._cfg.tau_value, self._shard
        if self._shard.is_whole:
            loss_of = multi_halves if self._cfg.is_multi else single_halves
            loss, gradients = loss_of(
                a, b, tau, want_gradient=want_gradient, backend=self._halves_backend
            )
            return loss, list(gradients)
        sample_count = self._cfg.n if batch is None else len(batch)
        passes = [(a, b, b), (b, a, a)] if self._cfg.is_multi else [(a, a, b)]
        results = [
            one_way_halves(
                *roles,
                tau,
                blocks=shard.keys(roles[1], batch),
                sample_count=sample_count,
                want_gradient=want_gradient,
            )
            for roles in passes
        ]
        loss = shard.sum(torch.stack([value for value, _ in results]).sum())
        return loss, [g for _, halves_gradients in results for g in halves_gradients]

    def _one_block(
        self,
        active: list[Halves],
        negatives: Negatives,
        batch: Tensor | None,
        want_gradient: bool,  # noqa: FBT001
    ) -> tuple[Tensor, list[HalvesGradient]]:
        """The loss from all n x n scores; a bias of -inf excludes those that are no negatives."""
        a, b = (Features(torch.cat([x.noise.T, x.signal], 1).unsqueeze(0)) for x in active)
        passes = [Roles(a, b, b), Roles(b, a, a)] if self._cfg.is_multi else [Roles(a, a, b)]
        labels = self._labels if batch is None else self._labels[batch]
        results = [
            one_pass(
                roles,
                Labels(labels.to(self._spec.device).unsqueeze(0)),
                negatives,
                tau=self._cfg.tau_value,
                workspace=self._workspace,
                want_gradient=want_gradient,
            )
            for roles in passes
        ]
        halves_gradients = [
            HalvesGradient(g.noise[0].T, g.signal[0], g.weight) for _, g in results if g
        ]
        return torch.stack([value for value, _ in results]).sum(0), halves_gradients

    def _negatives(self, epoch: int, batch: Tensor | None) -> Negatives:
        if batch is None:
            return self._pool.at(epoch)
        batch = batch.to(self._spec.device)
        if self._cfg.negatives_per_sample is None:
            return OtherLabel(self._labels.to(self._spec.device)[batch].unsqueeze(0))
        mask = self._pool.mask(epoch)[:, batch][:, :, batch]
        return ListedNegatives(bias_of(mask, 0, self._labels.dtype))

    def _update(self, gradients: list[tuple[list[Tensor], float]]) -> None:
        for optimizer, (g, weight) in zip(self._optimizers, gradients, strict=True):
            optimizer.step(g, weight)
        self._current = []


def _embed(noise: Tensor, signal: Tensor, labels: Tensor) -> Tensor:
    """`hbar` (3), [k, m], from noise features [k, m] and signal features [m, 2]."""
    return torch.where(labels[:, None] > 0, signal[:, 0], signal[:, 1]).add_(noise)


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


def _optimizer(cfg: TrainConfig, v: Modality) -> LinearDescent | _Adam:
    if cfg.optimizer == "adam":
        return _Adam(cfg, v.weights)
    return LinearDescent(cfg, [v.weights, v.coefficients, v.initial_scale])


__all__ = ["PrimalEngine", "max_runs", "why_not"]
