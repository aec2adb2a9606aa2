"""Base of the native and Triton engines: gradient descent, many epochs per call, sorted samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_variants import variant_of
from mmcl_fast.engines.protocol import Coefficients, EngineSpec, Measured
from mmcl_fast.errors import OutputError

# Settings that may differ within a batch: scalars of the update and parameters of the data. In
# coefficient space no size depends on d.
MAY_DIFFER = frozenset(
    {
        "d",
        "d_b",
        "eta",
        "mu_b_norm",
        "mu_norm",
        "nu_norm",
        "sigma_0",
        "sigma_eps",
        "sigma_xi",
        "sigma_xi_b",
        "tau",
    }
)


def unsupported_setting(cfg: TrainConfig, implementation: str) -> str | None:
    """Why a config is not float32 gradient descent on fixed data with all negatives, or None.

    Args:
        cfg: All settings.
        implementation: Its name in the message.
    """
    if name := variant_of(cfg):
        return f"{name} {getattr(cfg, name)} is not in {implementation}; use gram"
    if cfg.optimizer != "gd":
        engines = "primal" if cfg.optimizer == "adam" else "gram or primal"
        return f"optimizer {cfg.optimizer} is not in {implementation}, which does gd; use {engines}"
    if cfg.weight_decay:
        return f"weight_decay is not in {implementation}; use gram"
    if cfg.dtype != "float32":
        return f"dtype {cfg.dtype}: {implementation} computes in float32; use gram"
    if cfg.negatives_per_sample is not None:
        return f"negatives_per_sample: {implementation} takes all of the other label; use gram"
    if cfg.augment == "per_epoch":
        return "augment per_epoch would change its inner products in every epoch; use gram"
    if cfg.data == "streamed":
        return "data streamed: no vectors are held to take inner products of; use primal"
    return None


class TrajectoryEngine(ABC):
    """An engine that sorts samples by label, +1 first; see `protocol.MultiEpochEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec, self._cfg = spec, spec.cfg
        labels = spec.batch.stacked("labels")
        self._orders = torch.argsort(labels, dim=1, descending=True, stable=True)  # [R, n]
        self._positives = (labels > 0).sum(1).tolist()

    @abstractmethod
    def run(self, count: int, *, update: bool) -> Measured:
        """Train `count` epochs and measure before each; update False: measure only, count = 1."""

    @abstractmethod
    def span_coefficients(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Coefficients of each modality: of its noise patches [R, m, n] and of mu [R, m]."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""

    def train_epochs(self, epoch: int, count: int) -> Measured:
        """See `MultiEpochEngine.train_epochs`."""
        return self.run(count, update=True)

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        return self.run(1, update=True).loss[:, 0]

    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        return self.run(1, update=False).loss[:, 0]

    def coefficients(self) -> tuple[Coefficients, ...]:
        """See `Engine.coefficients`."""
        return tuple(
            Coefficients(initial=mu.new_ones(len(mu)), mu=mu.clone(), noise=noise)
            for noise, mu in self.span_coefficients()
        )

    def weights(self) -> None:
        """None: weights are not stored; they follow from the coefficients and the data."""
        return

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`.

        Raises: OutputError: the state was saved with other padding; nothing is loaded.
        """
        current = self.state()
        for name, tensor in current.items():
            if (shape := list(state[name].shape)) != list(tensor.shape):
                raise OutputError(
                    f"checkpoint: expected {name} of shape {list(tensor.shape)}, got {shape}, as "
                    "another kind of GPU or version pads it; begin anew"
                )
        for name, tensor in current.items():
            tensor.copy_(state[name])


__all__ = ["MAY_DIFFER", "TrajectoryEngine", "unsupported_setting"]
