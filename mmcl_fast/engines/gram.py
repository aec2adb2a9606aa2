"""Exact training in coefficient space, batched over runs; the cost of a step does not depend on d.

Every gradient is a combination of mu and the noise patches. With the inner products
K = [xi; xi^; mu] [xi; mu]^T and the initial pre-activations Z(0) of the rows, pre-activations are

    Z(t) = a(t) Z(0) + A(t) K,      w_r(t) = a(t) w_r(0) + sum_c A_{r,c}(t) column_c

with a = 1 unless there is weight decay, and any linear update rule acts on (a, A) as on the
weights (equations (11)-(18) with gamma = A_mu |mu|^2, rho_i = A_i |xi_i|^2). The stop-gradient of
(4) keeps augmented views out of the columns.

Numerics: arithmetic of the config's dtype; in float64 within 1e-12 of autograd on the weights. A
run's bits do not depend on its batch: matrices of a batch have even sizes (`engines.alignment`),
where n or m is odd by a row and a column of zeros, which every step leaves at 0.
Cost of a step per run: 2 m ((2 n + 1)(n + 1) + 2 n^2) flop; memory: `engines.memory_bytes`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import data_bytes, draw_augmented
from mmcl_fast.engines.activation import activate, activate_backward, signal_gradient
from mmcl_fast.engines.alignment import aligned, even
from mmcl_fast.engines.negatives import NegativePool
from mmcl_fast.engines.optimizers import LinearDescent
from mmcl_fast.engines.paper_loss.full_scores import (
    FeatureGradient,
    Features,
    Labels,
    Roles,
    Workspace,
    one_pass,
)
from mmcl_fast.engines.protocol import Coefficients, Embeddings, EngineSpec, OodSet


def max_runs(cfg: TrainConfig) -> int:
    """Runs of one batch: as many as keep the state of a step in the cache of a core."""
    rows = (2 - cfg.is_multi) * cfg.n + 1
    elements = (1 + cfg.is_multi) * (rows * (cfg.n + 1) + 2 * rows * cfg.m) + 2 * cfg.n**2
    return max(1, min(64, CACHE_ELEMENTS // elements, BATCH_DATA_BYTES // data_bytes(cfg)))


CACHE_ELEMENTS = 1 << 19  # 2 MiB of float32
BATCH_DATA_BYTES = 1 << 30  # of the data of a batch


class Columns:
    """Vectors of each run that span the weights of one modality: noise patches, signal, w(0)."""

    def __init__(self, noise: list[Tensor], mu: list[Tensor], weights: list[Tensor]) -> None:
        self.noise, self.mu, self.weights = noise, mu, weights

    def project(self, vectors: list[Tensor], signal: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Inner products with k vectors and with plus and minus a signal, padded to even sizes.

        Args:
            vectors: k vectors of each run, [k, d].
            signal: A signal of each run, [d].

        Returns: Products with the columns [R, even(n + 1), even(k) + 2], and with w(0)
            [R, even(m), even(k) + 2]. The last two columns are those of the signal; padding is 0.
        """
        k, n, m = len(vectors[0]), len(self.noise[0]), len(self.weights[0])
        runs, like, last = len(vectors), self.noise[0], even(k)
        gram = like.new_zeros(runs, even(n + 1), last + 2)
        start = like.new_zeros(runs, even(m), last + 2)
        # Run by run: no stacked copy of the data, and no result that depends on the batch.
        for r in range(runs):
            x, s, mu = aligned(vectors[r]), aligned(signal[r]), aligned(self.mu[r])
            for out, rows in ((gram[r, :n], self.noise[r]), (start[r, :m], self.weights[r])):
                rows = aligned(rows)
                out[:, :k] = rows @ x.T
                out[:, last] = rows @ s
            gram[r, n, :k] = x @ mu
            gram[r, n, last] = mu @ s
        for out in (gram, start):
            torch.neg(out[:, :, last], out=out[:, :, last + 1])
        return gram, start


class _Modality:
    """Pre-activations of one modality in R runs, and the coefficients of its weights.

    Columns of `z`: the noise patches, mu, -mu; with views, then the views, mu, -mu. Padding follows
    the noise patches of each, the neurons, and the last coefficient.
    """

    def __init__(self, columns: Columns, views: list[Tensor] | None) -> None:
        self.columns = columns
        parts = [columns.project(x, columns.mu) for x in (columns.noise, views) if x is not None]
        self.gram = torch.cat([gram for gram, _ in parts], dim=2)  # K, [R, even(n + 1), columns]
        self.initial = torch.cat([start for _, start in parts], dim=2)  # Z(0), [R, even(m), ...]
        runs, m = self.initial.shape[:2]
        self.padded_coefficients = self.initial.new_zeros(
            runs, m, self.gram.shape[1]
        )  # A, [R, even(m), ...]
        self.initial_scale = self.initial.new_ones(runs, 1, 1)  # a
        self.z = self.initial.clone()
        self.samples, self.neurons = n, neurons = len(columns.noise[0]), len(columns.weights[0])
        width = even(n) + 2
        self.noise = self.z[:, :neurons, :n]
        self.signal = self.z[:, :neurons, width - 2 : width]
        self._gradient = torch.zeros_like(self.padded_coefficients)
        self._gradients = self._gradient[:, :neurons, :n], self._gradient[:, :neurons, n : n + 1]
        self._active = torch.empty_like(self.z)
        self.features = [
            Features(self._active[:, :, k : k + width], neurons)
            for k in range(0, self.z.shape[2], width)
        ]

    @property
    def coefficients(self) -> Tensor:
        """A without its padding, [R, m, n + 1]."""
        return self.unpadded(self.padded_coefficients)

    def unpadded(self, padded: Tensor) -> Tensor:
        """A tensor of the shape of A without its padding, [R, m, n + 1]."""
        return padded[:, : self.neurons, : self.samples + 1]

    def preactivations(
        self, gram: Tensor, initial: Tensor, *, decayed: bool, out: Tensor | None = None
    ) -> Tensor:
        """Pre-activations `a Z(0) + A K` of vectors, from their inner products K and Z(0)."""
        start = initial * self.initial_scale if decayed else initial
        return torch.baddbmm(start, self.padded_coefficients, gram, out=out)

    def gradient(self, g: FeatureGradient, q: int) -> Tensor:
        """Gradient with respect to A divided by `g.weight`, of the shape of A."""
        rows, columns = self.neurons, self.samples
        self._gradients[0].copy_(activate_backward(g.noise[:, :rows, :columns], self.noise, q))
        self._gradients[1].copy_(signal_gradient(g.signal[:, :rows], self.signal, q))
        return self._gradient

    def activate(self, q: int) -> list[Features]:
        """Features of the samples, and of the views if any; valid until the next call."""
        activate(self.z, q, out=self._active)
        return self.features


class GramEngine:
    """See the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec, self._cfg = spec, spec.cfg
        labels = torch.stack(self._each("labels"))
        self._padding = even(self._cfg.n) - self._cfg.n
        self._labels = Labels(pad(labels, (0, self._padding)))
        self._positive = labels > 0
        self._pool = NegativePool(spec, labels, keep=True, padding=self._padding)
        self._workspace = Workspace()
        views = None if self._cfg.is_multi else self._each("augmented")
        self._modalities = [_Modality(self._columns(""), views)]
        if self._cfg.is_multi:
            self._modalities.append(_Modality(self._columns("_b"), None))
        # Inner products and signs of the labels of samples of the test distribution.
        self._ood: dict[OodSet, tuple[Tensor, Tensor, Tensor]] = {}
        # Without weight decay a stays 1 and is no parameter.
        self._descent = LinearDescent(
            self._cfg,
            [v.padded_coefficients for v in self._modalities]
            + [v.initial_scale for v in self._modalities if self._decays],
        )
        self._view_epoch = 0

    @torch.inference_mode()  # saves a seventh of a single run's time: autograd records nothing
    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        loss, gradients = self._directions(epoch, want_gradient=True)
        pairs = list(zip(self._modalities, gradients, strict=True))
        steps = [v.gradient(g, self._cfg.q) for v, g in pairs]
        steps += [torch.zeros_like(v.initial_scale) for v, _ in pairs if self._decays]
        self._descent.step(steps, gradients[0].weight)
        self._update_preactivations()
        return loss

    @torch.inference_mode()
    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self._directions(epoch, want_gradient=False)[0]

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        v = self._modalities[0]
        # Both signs of <w_r, mu> are columns, so their maximum is that of the absolute value.
        return v.signal.amax((1, 2)), v.noise.amax((1, 2))

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        v, q = self._modalities[0], self._cfg.q
        return Embeddings(
            embed(activate(v.noise, q), activate(v.signal, q), self._positive),
            self._embed_ood("test", self._cfg.n_test),
            self._embed_ood("probe", k) if (k := self._cfg.probe_samples_value) else None,
        )

    def _embed_ood(self, name: OodSet, count: int) -> Tensor:
        """Embeddings of `count` samples of the test distribution, [R, count, m]."""
        v, q = self._modalities[0], self._cfg.q
        if name not in self._ood:
            positive = torch.stack(self._each(f"{name}_labels")) > 0
            products = v.columns.project(self._each(f"{name}_noise"), self._each("nu"))
            self._ood[name] = *products, positive
        gram, start, positive = self._ood[name]
        z = v.preactivations(gram, start, decayed=self._decays)[:, : v.neurons]
        return embed(activate(z[:, :, :count], q), activate(z[:, :, -2:], q), positive)

    def coefficients(self) -> tuple[Coefficients, ...]:
        """See `Engine.coefficients`."""
        return tuple(
            Coefficients(
                initial=v.initial_scale[:, 0, 0].clone(),
                mu=v.coefficients[:, :, -1].clone(),
                noise=v.coefficients[:, :, :-1].clone(),
            )
            for v in self._modalities
        )

    def weights(self) -> None:
        """None: weights are not stored; they follow from the coefficients and the data."""
        return

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        shape = self._modalities[0].padded_coefficients.shape
        return {
            name: self._modalities[0].unpadded(x) if x.shape == shape else x
            for name, x in self._descent.state().items()
        }

    @torch.inference_mode()  # the engine's tensors may have been made in it
    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        for name, x in self.state().items():
            x.copy_(state[name])
        self._update_preactivations()

    @property
    def _decays(self) -> bool:
        return self._cfg.weight_decay > 0

    def _update_preactivations(self) -> None:
        for v in self._modalities:
            v.preactivations(v.gram, v.initial, decayed=self._decays, out=v.z)

    def _directions(
        self, epoch: int, *, want_gradient: bool
    ) -> tuple[Tensor, list[FeatureGradient]]:
        cfg = self._cfg
        self._renew_views(epoch)
        active = [v.activate(cfg.q) for v in self._modalities]
        if cfg.is_multi:
            (a,), (b,) = active
            passes = [Roles(a, b, b), Roles(b, a, a)]
        else:
            ((a, view),) = active
            passes = [Roles(a, a, view)]
        pool, tau = self._pool.at(epoch), cfg.tau_value
        results = [
            one_pass(
                roles,
                self._labels,
                pool,
                tau=tau,
                workspace=self._workspace,
                want_gradient=want_gradient,
                padding=self._padding,
            )
            for roles in passes
        ]
        loss = sum((value for value, _ in results[1:]), start=results[0][0])
        return loss, [g for _, g in results if g is not None]

    def _renew_views(self, epoch: int) -> None:
        if self._cfg.augment == "fixed" or epoch == self._view_epoch:
            return
        v, here = self._modalities[0], slice(even(self._cfg.n) + 2, None)
        views = [
            draw_augmented(cfg, noise, epoch)
            for cfg, noise in zip(self._spec.configs, self._each("noise"), strict=True)
        ]
        gram, start = v.columns.project(views, v.columns.mu)
        v.gram[:, :, here], v.initial[:, :, here] = gram, start
        v.z[:, :, here] = v.preactivations(gram, start, decayed=self._decays)
        self._view_epoch = epoch

    def _columns(self, suffix: str) -> Columns:
        return Columns(*(self._each(f"{name}{suffix}") for name in ("noise", "mu", "weights")))

    def _each(self, name: str) -> list[Tensor]:
        return [getattr(data, name).to(self._spec.device) for data in self._spec.data]


def embed(noise: Tensor, signal: Tensor, positive: Tensor) -> Tensor:
    """`hbar` (3): noise features plus the signal features of each sample's label, [R, n, m].

    Args:
        noise: Features of the noise patches, [R, m, n].
        signal: Features of the signals of labels +1 and -1, [R, m, 2].
        positive: Whether a sample's label is +1, [R, n].
    """
    label_signal = torch.where(positive.unsqueeze(1), signal[:, :, :1], signal[:, :, 1:])
    return label_signal.add_(noise).mT.contiguous()


__all__ = ["Columns", "GramEngine", "embed", "max_runs"]
