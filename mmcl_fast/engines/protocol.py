"""The protocol of training engines: R runs in one batch, trained epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData


@dataclass(frozen=True)
class Coefficients:
    """Weights in the span of the data: `w_r = a w_r(0) + mu_r mu + sum_i noise_{r,i} xi_i`.

    Variants of the model add the spurious signal, and the views' noise patches where the gradient
    also flows through keys.

    Attributes:
        initial: a, 1 unless there is weight decay, [R].
        mu: Coefficient of the signal, [R, m], gamma = mu |mu|^2; with classes [R, m, K].
        noise: Coefficients of the noise patches, [R, m, n]; rho_i = noise_i |xi_i|^2.
        spurious: Coefficient of the spurious signal, [R, m]; None without one.
        views: Coefficients of the views' noise patches, [R, m, n]; None where these are constants.
    """

    initial: Tensor
    mu: Tensor
    noise: Tensor
    spurious: Tensor | None = None
    views: Tensor | None = None

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Coefficients:
        """The coefficients with a function of each tensor in place of it."""
        found = {name: x if x is None else function(x) for name, x in vars(self).items()}
        return Coefficients(**found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class EngineSpec:
    """Input of an engine: the runs of a batch.

    Attributes:
        configs: Settings of the R runs; equal except for seeds and the fields in
            `EngineKind.may_differ`.
        data: Data of each run.
        device: Device of the computation.
    """

    configs: Sequence[TrainConfig]
    data: Sequence[SignalNoiseData]
    device: torch.device

    @property
    def cfg(self) -> TrainConfig:
        """Settings of the first run; they are those of all, except for `may_differ`."""
        return self.configs[0]

    @cached_property
    def batch(self) -> SignalNoiseBatch:
        """The data as stacked tensors."""
        return SignalNoiseBatch.of(self.data)


OodSet = Literal["test", "probe"]
"""Test samples, and those that the linear probe is fitted on: fields of the data begin so."""


class Embeddings(NamedTuple):
    """`hbar` (3) of modality A.

    Attributes:
        train: Of the training data, [R, n, m].
        test: Of the OOD test data, [R, n_test, m].
        probe: Of the OOD data that the linear probe is fitted on, [R, probe_samples, m]; None with
            probe_on train.
    """

    train: Tensor
    test: Tensor
    probe: Tensor | None

    @property
    def fitted(self) -> Tensor:
        """Those that the linear probe is fitted on."""
        return self.train if self.probe is None else self.probe


@dataclass(frozen=True)
class Measured:
    """Measurements before each of several epochs, [R, epochs] each: see `Engine`.

    Attributes:
        tau: Temperature, of an engine that learns it (`LearnsTemperature`).
    """

    loss: Tensor
    signal: Tensor
    noise: Tensor
    tau: Tensor | None = None


class Engine(Protocol):
    """R runs in training. Epoch t is the state after t updates (sgd: t passes)."""

    def train_epoch(self, epoch: int) -> Tensor:
        """Perform the updates of an epoch; return the full-batch loss before them, [R]."""
        ...

    def loss(self, epoch: int) -> Tensor:
        """Full-batch loss at the current weights, [R]."""
        ...

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """`max_r |<w_r, mu>|` and `max_{r,i} <w_r, xi_i>` of modality A, [R] each."""
        ...

    def embeddings(self) -> Embeddings:
        """`hbar` of modality A at the current weights."""
        ...

    def coefficients(self) -> tuple[Coefficients, ...] | None:
        """Coefficients of each modality, or None if the weights are outside of the span."""
        ...

    def weights(self) -> tuple[Tensor, ...] | None:
        """Weights of each modality [R, m, d], or None where the engine does not store them."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All tensors that training changes; restoring them resumes bit for bit."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state()` of an engine with an equal spec."""
        ...


@runtime_checkable
class LearnsTemperature(Protocol):
    """An engine of variants, which may learn the temperature."""

    def temperature(self) -> Tensor:
        """The current temperature of each run, [R]."""
        ...


@runtime_checkable
class MultiEpochEngine(Engine, Protocol):
    """An engine that trains many epochs in one call, faster than one call per epoch."""

    def train_epochs(self, epoch: int, count: int) -> Measured:
        """Train `count` epochs from `epoch` on, and measure before each.

        Equal to `signal_and_noise` and `train_epoch` for each of them. A run may stop when its loss
        is not finite; the rest of its curves is NaN.
        """
        ...


__all__ = [
    "Coefficients",
    "Embeddings",
    "Engine",
    "EngineSpec",
    "LearnsTemperature",
    "Measured",
    "MultiEpochEngine",
    "OodSet",
]
