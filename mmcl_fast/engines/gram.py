"""Training in coefficient space: exact, many runs at once, a step that does not depend on d.

Every gradient is a combination of mu and the noise patches, so with the inner products
K = [xi; xi^; mu] [xi; mu]^T and the initial pre-activations Z(0) of the rows, pre-activations are

    Z(t) = a(t) Z(0) + K A(t),      w_r(t) = a(t) w_r(0) + sum_c A_{c,r}(t) column_c

with a = 1 unless there is weight decay, and any linear update rule acts on (a, A) as on the
weights (equations (11)-(18) with gamma = A_mu |mu|^2, rho_i = A_i |xi_i|^2). The stop-gradient of
(4) keeps augmented views out of the columns.

Numerics: arithmetic of the config's dtype; in float64 within 1e-12 of autograd on the weights.
Cost of a step per run: 2 m ((2 n + 1)(n + 1) + 2 n^2) flop; memory (2 n + n_test)(n + 1) numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.memory import available_bytes
from mmcl_fast.data.synthetic import TORCH_DTYPES, SignalNoiseData, draw_augmented
from mmcl_fast.engines.descent import LinearDescent
from mmcl_fast.engines.pool import NegativePool, one_hot_sides
from mmcl_fast.engines.protocol import Coefficients, Spec
from mmcl_fast.model import power_relu, power_relu_backward
from mmcl_fast.torch_impl.one_pass import CHUNK_SCORES, FeatureGradient, Features, one_pass

SPAN_OPTIMIZERS = ("gd", "momentum")


def why_not(cfg: TrainConfig) -> str | None:
    """Why the gram engine cannot train this exactly, or None."""
    if cfg.optimizer == "adam":
        return "optimizer adam rescales coordinates and leaves the span of the data; use primal"
    if cfg.optimizer not in SPAN_OPTIMIZERS:
        return f"optimizer {cfg.optimizer} draws minibatches, which only primal and reference do"
    needed, available = memory_bytes(cfg), available_bytes()
    if available is not None and needed > available:
        return (
            f"inner products of n = {cfg.n} samples need {needed / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are free; use primal"
        )
    return None


def memory_bytes(cfg: TrainConfig) -> int:
    """Memory of one run beside its data: inner products, negatives, scores, pre-activations."""
    n, sides = cfg.n, 1 + cfg.is_multi
    rows = (2 - cfg.is_multi) * n + 1
    test = (cfg.n_test + 1) * (n + 1 + 2 * cfg.m)
    held = sides * (rows * (n + 1) + 3 * rows * cfg.m) + n * n
    working = min(n * n, 3 * CHUNK_SCORES) + 4 * n * cfg.m
    return (held + test + working) * TORCH_DTYPES[cfg.dtype].itemsize


def max_runs(cfg: TrainConfig) -> int:
    """Runs to train side by side: as many as keep the step's state in a core's cache."""
    rows = (2 - cfg.is_multi) * cfg.n + 1
    numbers = (1 + cfg.is_multi) * (rows * (cfg.n + 1) + 2 * rows * cfg.m) + 2 * cfg.n**2
    return max(1, min(64, CACHE_NUMBERS // numbers))


CACHE_NUMBERS = 1 << 19  # 2 MiB of float32


class _Modality:
    """Pre-activations of one modality's rows in R runs, and the coefficients that move them."""

    def __init__(self, rows: list[Tensor], columns: list[Tensor], weights: list[Tensor]) -> None:
        self.columns, self.initial_weights = columns, weights
        self.gram, self.initial = self.project(rows)  # [R, rows, n + 1], [R, rows, m]
        runs, _, m = self.initial.shape
        self.moved = self.initial.new_zeros(runs, self.gram.shape[2], m)  # A, [R, n + 1, m]
        self.kept = self.initial.new_ones(runs, 1, 1)  # a
        self.z = self.initial.clone()

    def project(self, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Inner products of row vectors with the columns and with the initial weights."""
        # Run by run: no stacked copy of the data, and no result that depends on the batch.
        gram = torch.stack([x @ c.T for x, c in zip(rows, self.columns, strict=True)])
        start = torch.stack([x @ w.T for x, w in zip(rows, self.initial_weights, strict=True)])
        return gram, start

    def at(self, gram: Tensor, initial: Tensor, *, decayed: bool) -> Tensor:
        """Pre-activations of rows given their inner products, `a Z(0) + K A`."""
        return torch.baddbmm(initial * self.kept if decayed else initial, gram, self.moved)

    def move(self, *, decayed: bool) -> None:
        """Bring the pre-activations up to date with the coefficients."""
        start = self.initial * self.kept if decayed else self.initial
        torch.baddbmm(start, self.gram, self.moved, out=self.z)

    def features(self, first: int, count: int, q: int) -> Features:
        """Activations of `count` noise rows from `first`, and of the signal (the last row)."""
        return Features(
            signal=signal_features(self.z[:, -1:], q),
            noise=power_relu(self.z[:, first : first + count], q),
        )

    def gradient(self, g: FeatureGradient, q: int) -> Tensor:
        """Gradient with respect to A: dL/dz of the columns' own pre-activations, [R, n + 1, m]."""
        n = g.noise.shape[1]
        out = torch.empty_like(self.moved)
        out[:, :n] = power_relu_backward(g.noise, self.z[:, :n], q)
        a = self.z[:, -1:]
        out[:, n:] = power_relu_backward(g.signal[:, :1].contiguous(), a, q)
        out[:, n:] -= power_relu_backward(g.signal[:, 1:].contiguous(), -a, q)
        return out


def signal_features(a: Tensor, q: int) -> Tensor:
    """Signal patches' activations for labels +1 and -1 from `<w_r, mu>` [R, 1, m]: [R, 2, m]."""
    return power_relu(torch.cat([a, -a], dim=1), q)


class GramEngine:
    """See the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._cfg = spec, spec.cfg
        self._data = spec.data
        labels = self._stacked("labels")
        self._side = one_hot_sides(labels)
        self._pool = NegativePool(spec, labels, keep=True)
        first = _Modality(self._rows_a(), self._columns("noise", "mu"), self._each("weights"))
        self._modalities = [first]
        if self._cfg.is_multi:
            columns = self._columns("noise_b", "mu_b")
            self._modalities.append(_Modality(columns, columns, self._each("weights_b")))
        self._test: tuple[Tensor, Tensor] | None = None
        self._test_side = one_hot_sides(self._stacked("test_labels"))
        self._descent = LinearDescent(
            self._cfg, [p for v in self._modalities for p in (v.moved, v.kept)]
        )
        self._view_epoch = 0

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        loss, gradients = self._loss_and_gradients(epoch)
        q = self._cfg.q
        steps: list[Tensor] = []
        for v, g in zip(self._modalities, gradients, strict=True):
            steps += [v.gradient(g, q), torch.zeros_like(v.kept)]
        self._descent.step(steps)
        self._move()
        return loss

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self._directions(epoch, want_gradient=False)[0]

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        z = self._modalities[0].z
        return z[:, -1].abs().amax(1), z[:, : self._cfg.n].amax((1, 2))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """See `Engine.embeddings`."""
        v, q = self._modalities[0], self._cfg.q
        if self._test is None:
            self._test = v.project(self._rows("test_noise", "nu"))
        train = v.features(0, self._cfg.n, q)
        z = v.at(*self._test, decayed=self._decays)
        seen = torch.baddbmm(train.noise, self._side, train.signal)
        unseen = torch.baddbmm(
            power_relu(z[:, :-1], q), self._test_side, signal_features(z[:, -1:], q)
        )
        return seen, unseen

    def coefficients(self) -> tuple[Coefficients, ...]:
        """See `Engine.coefficients`."""
        return tuple(
            Coefficients(
                initial=v.kept[:, 0, 0].clone(),
                mu=v.moved[:, -1].clone(),
                noise=v.moved[:, :-1].transpose(1, 2).clone(),
            )
            for v in self._modalities
        )

    def weights(self) -> None:
        """None: weights are not held; they follow from the coefficients and the data."""
        return

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        return self._descent.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        self._descent.load_state(state)
        self._move()

    @property
    def _decays(self) -> bool:
        return self._cfg.weight_decay > 0

    def _move(self) -> None:
        for v in self._modalities:
            v.move(decayed=self._decays)

    def _loss_and_gradients(self, epoch: int) -> tuple[Tensor, list[FeatureGradient]]:
        return self._directions(epoch, want_gradient=True)

    def _directions(
        self, epoch: int, *, want_gradient: bool
    ) -> tuple[Tensor, list[FeatureGradient]]:
        cfg, n = self._cfg, self._cfg.n
        self._renew_views(epoch)
        a = self._modalities[0].features(0, n, cfg.q)
        if cfg.is_multi:
            b = self._modalities[1].features(0, n, cfg.q)
            passes = [(a, b, b), (b, a, a)]
        else:
            view = Features(a.signal, self._modalities[0].features(n, n, cfg.q).noise)
            passes = [(a, a, view)]
        pool = self._pool.at(epoch)
        done = [
            one_pass(*p, self._side, pool, tau=cfg.tau_value, want_gradient=want_gradient)
            for p in passes
        ]
        loss = torch.stack([value for value, _ in done]).sum(0)
        return loss, [g for _, g in done if g is not None]

    def _renew_views(self, epoch: int) -> None:
        if self._cfg.augment == "fixed" or epoch == self._view_epoch:
            return
        n, v = self._cfg.n, self._modalities[0]
        views = [
            draw_augmented(cfg, data.noise.to(self._spec.device), epoch)
            for cfg, data in zip(self._spec.configs, self._data, strict=True)
        ]
        v.gram[:, n : 2 * n], v.initial[:, n : 2 * n] = v.project(views)
        v.z[:, n : 2 * n] = v.at(
            v.gram[:, n : 2 * n], v.initial[:, n : 2 * n], decayed=self._decays
        )
        self._view_epoch = epoch

    def _rows_a(self) -> list[Tensor]:
        return (
            self._rows("noise", "mu")
            if self._cfg.is_multi
            else self._rows("noise", "augmented", "mu")
        )

    def _columns(self, noise: str, signal: str) -> list[Tensor]:
        return self._rows(noise, signal)

    def _rows(self, *names: str) -> list[Tensor]:
        return [torch.cat(self._vectors(data, names)) for data in self._data]

    def _vectors(self, data: SignalNoiseData, names: Sequence[str]) -> list[Tensor]:
        return [torch.atleast_2d(getattr(data, name)).to(self._spec.device) for name in names]

    def _each(self, name: str) -> list[Tensor]:
        return [getattr(data, name).to(self._spec.device) for data in self._data]

    def _stacked(self, name: str) -> Tensor:
        return torch.stack(self._each(name))


__all__ = ["GramEngine", "max_runs", "why_not"]
