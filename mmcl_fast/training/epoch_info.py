"""What a callback and a metric see of an epoch: computed when asked for, at that epoch's weights.

An engine measures the loss while it updates the weights. So the update of an epoch takes place when
a callback asks for the loss, after a copy of the state, or else after the callback; what depends on
the weights is computed from the state before the update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mmcl_fast.config import ModalityName, TrainConfig
from mmcl_fast.data.signal_noise.signals import signal_patches
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, draw_augmented
from mmcl_fast.engines import Engine, Measured, MultiEpochEngine
from mmcl_fast.engines.protocol import Coefficients, Embeddings, LearnsTemperature
from mmcl_fast.errors import ConfigError
from mmcl_fast.model import power_relu
from mmcl_fast.training.class_probe import probe_accuracy
from mmcl_fast.training.span import modality_index, require_coordinates, weights_in_span

if TYPE_CHECKING:
    from mmcl_fast.training.recorder import Recorder

Samples = Literal["a", "b", "c", "view"]
_NEEDS = {
    "gamma_spurious": "a spurious signal (spurious_norm)",
    "rho_views": "views that carry gradients (modality single, stop_gradient none)",
}


def advance(engine: Engine, epoch: int, count: int, last: int) -> Measured:
    """Measure and train `count` epochs where the engine can, else one; at the end measure only."""
    if epoch < last and isinstance(engine, MultiEpochEngine):
        return engine.train_epochs(epoch, count)
    signal, noise = engine.signal_and_noise()
    tau = engine.temperature()[:, None] if isinstance(engine, LearnsTemperature) else None
    loss = engine.loss(epoch) if epoch == last else engine.train_epoch(epoch)
    return Measured(loss[:, None], signal[:, None], noise[:, None], tau)


class EpochStep:
    """One epoch of an engine, measured and trained when that is first needed.

    Args:
        engine: The engine, at the weights of this epoch.
        epoch: The epoch.
        last: Number of all updates; the last epoch is measured only.
    """

    def __init__(self, engine: Engine, epoch: int, last: int) -> None:
        self._engine, self.epoch, self.last = engine, epoch, last
        self._before: dict[str, Tensor] | None = None
        self._measured: Measured | None = None
        self._is_open = True

    def measured(self) -> Measured:
        """Measurements of the epoch, [R, 1] each; trains unless that is done."""
        if self._measured is None:
            if self._is_open and self.epoch < self.last:
                self._before = _copy(self._engine.state())
            self._measured = advance(self._engine, self.epoch, 1, self.last)
        return self._measured

    @contextmanager
    def state(self) -> Iterator[Engine]:
        """The engine at the weights of this epoch.

        Raises: RuntimeError: the callback has returned.
        """
        if not self._is_open:
            raise RuntimeError(
                f"epoch {self.epoch}: expected a request inside of the callback, got one after it; "
                "the weights are now those of a later epoch"
            )
        if self._before is None:
            yield self._engine
            return
        after = _copy(self._engine.state())
        self._engine.load_state(self._before)
        try:
            yield self._engine
        finally:
            self._engine.load_state(after)

    def close(self) -> Measured:
        """End the callback; train unless that is done."""
        self._is_open, self._before = False, None
        return self.measured()

    def stop(self) -> Measured:
        """End the callback and training, at the weights of this epoch, as a last epoch does."""
        if self._before is not None:
            self._engine.load_state(self._before)
        self._is_open, self._before = False, None
        self._measured = advance(self._engine, self.epoch, 1, self.epoch)
        return self._measured


class EpochInfo:
    """The runs of a batch at one epoch, before its update: the argument of a callback `on_epoch`.

    All is computed when asked for, and inside of the callback only. A callback that reads nothing
    but `epoch` costs a call of the engine for each epoch; `loss`, `signal`, `noise` and
    `temperature` cost a copy of the state, the others what their lines say. In
    `mmcl_fast.distributed.train` methods are collective: call them in every process, or in none.

    Attributes:
        epoch: Number of updates so far, 0 .. epochs.
        epochs: Number of all updates.
        configs: Resolved settings of each run.
        data: Data of each run, on the device they were drawn on.
        engine: Name of the engine.
    """

    def __init__(
        self,
        step: EpochStep,
        configs: Sequence[TrainConfig],
        data: Sequence[SignalNoiseData],
        recorder: Recorder,
    ) -> None:
        self.epoch, self.epochs = step.epoch, step.last
        self.configs, self.data, self.engine = configs, data, configs[0].engine
        self._step, self._recorder = step, recorder

    @property
    def loss(self) -> Tensor:
        """Full-batch loss, [R]."""
        return self._step.measured().loss[:, -1]

    @property
    def signal(self) -> Tensor:
        """`max_r |<w_r, mu>|` of modality A, [R]."""
        return self._step.measured().signal[:, -1]

    @property
    def noise(self) -> Tensor:
        """`max_{r,i} <w_r, xi_i>` of modality A, [R]."""
        return self._step.measured().noise[:, -1]

    @property
    def temperature(self) -> Tensor:
        """tau, [R]: where it is learned (`eta_tau`) that of this epoch."""
        learned = self._step.measured().tau if self.configs[0].eta_tau else None
        if learned is not None:
            return learned[:, -1]
        return self.loss.new_tensor([cfg.tau_value for cfg in self.configs])

    @cached_property
    def runs(self) -> list[RunState]:
        """Each run by itself."""
        return [RunState(self, r) for r in range(len(self.configs))]

    def weights(self, modality: ModalityName = "a") -> Tensor:
        """Weights of an encoder, [R, m, d]; n m d multiplications a run where the engine has none.

        Raises:
            ConfigError: Reduced data, a modality that the runs do not have, or runs of different d
                (ask each of `runs`).
        """
        modality_index(self.configs[0], modality)  # refuses one that they do not have
        if len({cfg.dimensions[modality] for cfg in self.configs}) > 1:
            raise ConfigError(
                "weights: expected runs of one d side by side, got several; take info.runs"
            )
        return torch.stack([run.weights(modality) for run in self.runs])

    def gamma(self, modality: ModalityName = "a") -> Tensor:
        """Signal learning gamma_r, [R, m]; the cost of a copy.

        Raises: ConfigError: the weights leave the span of the data (optimizer adam, or fresh views
            that carry gradients), or a modality that the runs do not have.
        """
        return self._term("gamma", modality)

    def rho(self, modality: ModalityName = "a") -> Tensor:
        """Noise memorisation rho_{r,i}, [R, m, n]; errors and cost as `gamma`."""
        return self._term("rho", modality)

    def gamma_spurious(self, modality: ModalityName = "a") -> Tensor:
        """Learning of the spurious signal, [R, m]; errors as `gamma`, and where there is none."""
        return self._term("gamma_spurious", modality)

    def rho_views(self) -> Tensor:
        """Memorisation of the views' noise, [R, m, n]; errors as `gamma`, and where it is none."""
        return self._term("rho_views", "a")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """`hbar` (3) of modality A: training data [R, n, m], OOD test data [R, n_test, m].

        Cost: that of an evaluation without its linear probe.
        """
        return self._embeddings.train, self._embeddings.test

    def probe_embeddings(self) -> Tensor:
        """`hbar` of what the linear probe is fitted on: training or OOD data, [R, k, m]."""
        return self._embeddings.fitted

    def features(self, samples: Samples = "a") -> Tensor:
        """The loss's 2 m features `[act(<w_r, y mu>), act(<w_r, xi>)]`, [R, n, 2 m].

        Args:
            samples: Training data of modality "a" or "b", or the augmented "view" of a.

        Raises: ConfigError: `samples` is none of the runs' kind, or data are streamed.
        """
        return torch.stack([run.features(samples) for run in self.runs])

    def accuracy(self) -> Tensor:
        """OOD accuracy of the logistic head, [R], float64; fits R linear probes."""
        return self._accuracy

    @cached_property
    def _embeddings(self) -> Embeddings:
        with self._step.state() as engine:
            return engine.embeddings()

    @cached_property
    def _coefficients(self) -> tuple[Coefficients, ...] | None:
        with self._step.state() as engine:
            return engine.coefficients()

    @cached_property
    def _stored_weights(self) -> tuple[Tensor, ...] | None:
        with self._step.state() as engine:
            return engine.weights()

    @cached_property
    def _accuracy(self) -> Tensor:
        fitted, test = self._embeddings.fitted.cpu(), self._embeddings.test.cpu()
        fitted_name = "labels" if self._embeddings.probe is None else "probe_labels"
        labels, test_labels = (
            torch.stack([getattr(x, name) for x in self.data])
            for name in (fitted_name, "test_labels")
        )
        return probe_accuracy(self.configs[0], fitted, labels, test, test_labels)

    def _term(self, symbol: str, modality: str) -> Tensor:
        k = modality_index(self.configs[0], modality)
        if self._coefficients is None:
            raise ConfigError(
                f"{symbol}: expected weights in the span of the data's vectors, got "
                + f"{_outside(self.configs[0], self.data[0])}; take weights()"
            )
        found = self._recorder.terms(k, self._coefficients[k])
        if symbol not in found:
            raise ConfigError(f"{symbol}: expected {_NEEDS[symbol]}, got none")
        return found[symbol]


class RunState:
    """One run at one epoch, before its update: the argument of a metric.

    As `EpochInfo` of a batch of one, without the leading dimension: a metric of it does not depend
    on the batch.

    Attributes:
        epoch: Number of updates so far, 0 .. epochs.
        config: Resolved settings.
        data: Its data.
        engine: Name of the engine.
    """

    def __init__(self, info: EpochInfo, run: int) -> None:
        self._info, self._run = info, run
        self.epoch, self.engine = info.epoch, info.engine
        self.config, self.data = info.configs[run], info.data[run]

    @property
    def loss(self) -> float:
        """Full-batch loss."""
        return self._info.loss[self._run].item()

    @property
    def signal(self) -> float:
        """`max_r |<w_r, mu>|` of modality A."""
        return self._info.signal[self._run].item()

    @property
    def noise(self) -> float:
        """`max_{r,i} <w_r, xi_i>` of modality A."""
        return self._info.noise[self._run].item()

    @property
    def temperature(self) -> float:
        """tau; where it is learned (`eta_tau`) that of this epoch."""
        return self._info.temperature[self._run].item()

    def weights(self, modality: ModalityName = "a") -> Tensor:
        """Weights of an encoder, [m, d] (or [m, d_b], [m, d_c]).

        Raises: ConfigError: reduced data, or a modality that the run does not have.
        """
        require_coordinates(self.config)
        return self.stored_weights(modality)

    def stored_weights(self, modality: ModalityName = "a") -> Tensor:
        """Weights in the coordinates of `data`; of reduced data not R^d, [m, columns].

        Norms and inner products with `data` are those in R^d.
        """
        k = modality_index(self.config, modality)
        stored = self._info._stored_weights
        if stored is not None:
            return stored[k][self._run]
        coefficients = self._info._coefficients
        assert coefficients is not None, "an engine has weights or coefficients"
        own = coefficients[k].mapped(itemgetter(self._run))
        return weights_in_span(own, self.data, k)

    def gamma(self, modality: ModalityName = "a") -> Tensor:
        """Signal learning gamma_r, [m]; see `EpochInfo.gamma`."""
        return self._info.gamma(modality)[self._run]

    def rho(self, modality: ModalityName = "a") -> Tensor:
        """Noise memorisation rho_{r,i}, [m, n]; see `EpochInfo.gamma`."""
        return self._info.rho(modality)[self._run]

    def gamma_spurious(self, modality: ModalityName = "a") -> Tensor:
        """Learning of the spurious signal, [m]; see `EpochInfo.gamma_spurious`."""
        return self._info.gamma_spurious(modality)[self._run]

    def rho_views(self) -> Tensor:
        """Memorisation of the views' noise, [m, n]; see `EpochInfo.rho_views`."""
        return self._info.rho_views()[self._run]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """`hbar` (3) of modality A: training data [n, m] and OOD test data [n_test, m]."""
        train, test = self._info.embeddings()
        return train[self._run], test[self._run]

    def probe_embeddings(self) -> Tensor:
        """`hbar` of what the linear probe is fitted on: training or OOD data, [k, m]."""
        return self._info.probe_embeddings()[self._run]

    def features(self, samples: Samples = "a") -> Tensor:
        """The loss's 2 m features `[act(<w_r, y mu>), act(<w_r, xi>)]`, [n, 2 m].

        With a spurious attribute 3 m: activations on its patch are second.

        Raises: ConfigError: `samples` is none of the run's kind, or data are streamed.
        """
        modality: ModalityName = "a" if samples == "view" else samples
        return self.features_of(self.stored_weights(modality), samples)

    def features_of(self, weights: Tensor, samples: Samples = "a") -> Tensor:
        """`features` of given weights in the coordinates of `data`, on the weights' device.

        Autograd sees the weights.
        """
        data, q = self.data, self.config.q
        own = data.signal_b if samples == "b" else data.signal
        noise = self._patches(samples).to(weights.device)
        if own is None:
            signals = [patch.projected(weights) for patch in signal_patches(data, samples)]
        else:
            signals = [own.to(weights.device) @ weights.T]
        return torch.cat([power_relu(z, q) for z in (*signals, noise @ weights.T)], dim=1)

    def accuracy(self) -> float:
        """OOD accuracy of the logistic head."""
        return self._info.accuracy()[self._run].item()

    def _patches(self, samples: Samples) -> Tensor:
        """Noise patches of training samples, [n, d]."""
        cfg, data = self.config, self.data
        known = cfg.modalities if cfg.is_multi else ("a", "view")
        if samples not in known:
            raise ConfigError(
                f"samples: expected {' or '.join(known)} of a {cfg.modality}-modal run, "
                f"got {samples}"
            )
        noise = {
            "a": data.noise, "b": data.noise_b, "c": data.noise_c, "view": data.augmented,
        }[samples]  # fmt: skip
        if noise is None:
            raise ConfigError(
                f"features: expected held data, got {cfg.data} (no noise patches are held); take "
                "data explicit"
            )
        if samples == "view" and cfg.augment == "per_epoch" and self.epoch > 0:
            assert data.noise is not None
            return draw_augmented(cfg, data.noise, self.epoch)
        return noise


def _outside(cfg: TrainConfig, data: SignalNoiseData) -> str:
    """By what the weights of a run leave the span of mu and the noise patches."""
    if data.signal is not None:
        return "a signal patch for each sample"
    if cfg.optimizer == "adam":
        return "optimizer adam, which leaves it"
    return f"fresh views that carry gradients (stop_gradient {cfg.stop_gradient}), which leave it"


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


__all__ = ["EpochInfo", "EpochStep", "RunState", "advance"]
