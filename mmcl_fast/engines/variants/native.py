"""Model variants by the native core (`csrc/core/variant.h`): in the span, many epochs a call.

Supports float32 gradient descent with fixed views and targets. The update is `Z <- Z + C K`,
restricted to the columns of C of active samples; with orthogonal data K is diagonal but for the
product of a view with its noise patch.

Numerics: float32; bit-identical for any instruction set, number of threads and batch.
Cost of an epoch per run, for c columns and v vectors of each modality, of which a fraction p of
pre-activations is active: 2 m p c v flop, and of the contrastive loss 2 m (1 + p) n^2 of one
modality, 2 m (1 + 2 p) n^2 of two; with orthogonal data O(m v) in place of 2 m p c v.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.protocol import Coefficients, Embeddings, EngineSpec, Measured, OodSet
from mmcl_fast.engines.variants.native_codes import (
    codes_of,
    patches_of,
    positive_power,
    signal_features,
)
from mmcl_fast.engines.variants.native_products import (
    orthogonal_products,
    project,
    project_ood,
    spans_of,
)


def why_not(cfg: TrainConfig) -> str | None:
    """Why the native core cannot train a model variant exactly, or None."""
    if cfg.optimizer != "gd":
        engine = "reference" if cfg.optimizer == "adam" else "gram"
        return f"optimizer {cfg.optimizer} is not in the native core, which does gd; use {engine}"
    if cfg.weight_decay:
        return "weight_decay is not in the native core; use gram"
    if cfg.dtype != "float32":
        return f"dtype {cfg.dtype}: the native core computes in float32; use gram"
    if cfg.negatives_per_sample is not None:
        return "negatives_per_sample: the native core takes all negatives; use gram"
    if cfg.augment == "per_epoch":
        engine = "reference" if cfg.trains_keys else "gram"
        return f"augment per_epoch would change its inner products in every epoch; use {engine}"
    if cfg.label_noise_draw == "per_epoch":
        return "label_noise_draw per_epoch: the native core has fixed targets; use gram"
    return None


def state_elements(cfg: TrainConfig) -> int:
    """Numbers that the engine holds of one run: inner products, pre-activations, coefficients."""
    return sum(
        span.columns(cfg) * (span.vectors(cfg) + cfg.m) + cfg.m * span.vectors(cfg)
        for span in spans_of(cfg)
    )


def held_elements(cfg: TrainConfig) -> int:
    """Numbers that a run needs in a call of the core: its state, a copy of it, scores, features."""
    n, m, sides = cfg.n, cfg.m, len(cfg.modalities)
    codes = min(max(2, sides) * n, (cfg.classes or 2) * (1 + cfg.has_spurious))
    matrices = (
        0 if cfg.objective == "logistic" else 1 + (cfg.trains_keys and cfg.similarity == "cosine")
    )
    of_codes = 3 * codes * m * (1 + cfg.has_spurious) + 2 * codes**2 + codes * n
    return 2 * state_elements(cfg) + sides * (matrices * n**2 + 5 * n * m + of_codes)


class VariantNativeEngine:
    """See the module's documentation, `protocol.Engine` and `protocol.MultiEpochEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec, self._cfg = spec, spec.cfg
        cfg, runs = self._cfg, len(spec.configs)
        self._codes, self._spans = codes_of(cfg, spec.batch), spans_of(cfg)
        projections = [project(cfg, spec.batch, x, self._codes.order) for x in self._spans]
        self._z = [z for _, z in projections]
        self._moved = [torch.zeros(runs, cfg.m, x.columns(cfg)) for x in self._spans]
        self._products = self._products_of([gram for gram, _ in projections])
        self._log_inverse_tau = torch.tensor(
            [-math.log(c.tau_value) for c in spec.configs], dtype=torch.float64
        )
        self._targets = self._told()
        self._patches: list[Tensor] | None = None
        self._ood: dict[OodSet, tuple[Tensor, Tensor]] = {}
        self._ood_patches: dict[OodSet, tuple[Tensor, list[Tensor]]] = {}

    def train_epochs(self, epoch: int, count: int) -> Measured:
        """See `MultiEpochEngine.train_epochs`."""
        return self._run(count, update=True)

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        return self._run(1, update=True).loss[:, 0]

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self._run(1, update=False).loss[:, 0]

    def temperature(self) -> Tensor:
        """See `LearnsTemperature.temperature`."""
        if self._cfg.eta_tau is None:
            return self._z[0].new_tensor([cfg.tau_value for cfg in self._spec.configs])
        tau = self._run(1, update=False).tau
        assert tau is not None
        return tau[:, 0]

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        n, z = self._cfg.n, self._z[0]
        signals = z[:, :, n : n + (self._cfg.classes or 1)]
        return signals.abs().amax((1, 2)), z[:, :, :n].amax((1, 2))

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        probe = self._embed_ood("probe") if self._cfg.probe_samples_value else None
        return Embeddings(self._embed_train(), self._embed_ood("test"), probe)

    def coefficients(self) -> tuple[Coefficients, ...]:
        """See `Engine.coefficients`."""
        return tuple(map(self._coefficients_of, self._moved))

    def weights(self) -> None:
        """None: weights are not stored; they follow from the coefficients and the data."""
        return

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        named = {f"z_{k}": z for k, z in enumerate(self._z)}
        named |= {f"moved_{k}": x for k, x in enumerate(self._moved)}
        if self._cfg.eta_tau is not None:
            named["log_inverse_tau"] = self._log_inverse_tau
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def _run(self, count: int, *, update: bool) -> Measured:
        """Train `count` epochs and measure before each; update False: measure only, count = 1."""
        cfg, codes = self._cfg, self._codes
        curves = torch.empty(4, len(self._spec.configs), count)
        _native.train_variants(
            [
                (products, z.numpy(), moved.numpy())
                for products, z, moved in zip(self._products, self._z, self._moved, strict=True)
            ],
            codes.tables,
            codes.counts,
            codes.labels,
            self._targets.numpy(),
            [c.tau_value for c in self._spec.configs],
            [c.eta for c in self._spec.configs],
            [c.eta_tau or 0.0 for c in self._spec.configs],
            self._log_inverse_tau.numpy(),
            curves.numpy(),
            n=cfg.n,
            m=cfg.m,
            q=cfg.q,
            logistic=cfg.objective == "logistic",
            all_negatives=cfg.negatives == "all",
            key_gradients=cfg.trains_keys,
            cosine=cfg.similarity == "cosine",
            learned_tau=cfg.eta_tau is not None,
            axes=cfg.axes,
            class_axes=cfg.classes or 1,
            patches=1 + cfg.has_spurious,
            update=update,
            threads=torch.get_num_threads(),
        )
        loss, signal, noise, tau = curves
        return Measured(loss, signal, noise, tau if cfg.eta_tau is not None else None)

    def _products_of(self, grams: list[Tensor]) -> list[list[npt.NDArray[Any]]]:
        """Inner products as the core takes them."""
        cfg = self._cfg
        if cfg.data == "orthogonal":
            found = [
                orthogonal_products(cfg, gram, span)
                for gram, span in zip(grams, self._spans, strict=True)
            ]
            sparse = [list(x) for x in found if x is not None]
            if len(sparse) == len(grams):
                return sparse
        return [[gram.numpy()] for gram in grams]

    def _told(self) -> Tensor:
        """Targets of the logistic loss, sorted, [R, n]."""
        batch = self._spec.batch
        if self._cfg.objective != "logistic":
            return self._z[0].new_zeros(len(batch), self._cfg.n)
        given = any(block.targets is not None for block in batch.blocks)
        targets = batch.stacked("targets" if given else "labels")
        return targets.gather(1, self._codes.order).float()

    @property
    def _has_one_signal(self) -> bool:
        """Whether each sample's only signal patch is mu or -mu, as `_native.embed` computes it."""
        return self._cfg.axes == 1

    def _embed_train(self) -> Tensor:
        """Embeddings of the training samples, [R, n, m]."""
        cfg, z, n, order = self._cfg, self._z[0], self._cfg.n, self._codes.order
        if self._has_one_signal:
            out = z.new_empty(len(z), n, cfg.m)
            labels = np.ascontiguousarray(self._codes.labels[:, 0])
            threads = torch.get_num_threads()
            _native.embed(out.numpy(), z.numpy(), labels, order.numpy(), q=cfg.q, threads=threads)
            return out
        noise = torch.empty(len(z), n, cfg.m)
        sorted_noise = positive_power(z[:, :, :n], cfg.q).mT
        noise.scatter_(1, order.unsqueeze(2).expand(-1, -1, cfg.m), sorted_noise)
        if self._patches is None:
            self._patches = patches_of(cfg, self._spec.batch, "a")
        return signal_features(cfg, z[:, :, n : n + cfg.axes], self._patches).add_(noise)

    def _embed_ood(self, name: OodSet) -> Tensor:
        """Embeddings of samples of the test distribution, [R, count, m]."""
        cfg, batch, threads = self._cfg, self._spec.batch, torch.get_num_threads()
        if name not in self._ood:
            self._ood[name] = project_ood(cfg, batch, self._spans[0], self._codes.order, name)
        gram, start = self._ood[name]
        moved, count = self._moved[0], start.shape[2] - cfg.axes
        if self._has_one_signal:
            out = start.new_empty(len(start), count, cfg.m)
            _native.embed(
                out.numpy(),
                start.numpy(),
                batch.stacked(f"{name}_labels").float().numpy(),
                q=cfg.q,
                moved=moved.numpy(),
                gram=gram.numpy(),
                threads=threads,
            )
            return out
        if name not in self._ood_patches:
            self._ood_patches[name] = gram.mT.contiguous(), patches_of(cfg, batch, name)
        vectors, patches = self._ood_patches[name]
        z = torch.empty_like(start)
        jobs = [
            ([of_run.numpy()], [(coefficients.numpy(), None)], [(columns.numpy(), None)], 0)
            for of_run, coefficients, columns in zip(z, moved, vectors, strict=True)
        ]
        _native.inner_products(jobs, threads=threads)
        z += start
        noise = positive_power(z[:, :, :count], cfg.q).mT
        return signal_features(cfg, z[:, :, count:], patches).add_(noise)

    def _coefficients_of(self, moved: Tensor) -> Coefficients:
        cfg, n, classes = self._cfg, self._cfg.n, self._cfg.classes or 1
        views = n + cfg.axes
        mu = moved[:, :, n : n + classes].clone()
        return Coefficients(
            initial=moved.new_ones(len(moved)),
            mu=mu if cfg.classes else mu[:, :, 0],
            noise=self._unsorted(moved[:, :, :n]),
            spurious=moved[:, :, n + classes].clone() if cfg.has_spurious else None,
            views=self._unsorted(moved[:, :, views:]) if moved.shape[2] > views else None,
        )

    def _unsorted(self, of_samples: Tensor) -> Tensor:
        """Coefficients [R, m, n] in the order of the data."""
        order = self._codes.order.unsqueeze(1).expand_as(of_samples)
        return torch.empty_like(of_samples).scatter_(2, order, of_samples)


__all__ = ["VariantNativeEngine", "held_elements", "state_elements", "why_not"]
