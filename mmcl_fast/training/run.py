"""`Run`: curves and final coefficients of one training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from mmcl_fast.config import ModalityName, TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.protocol import Coefficients
from mmcl_fast.errors import ConfigError
from mmcl_fast.model import TwoLayerEncoder
from mmcl_fast.training.run_file import load_run, save_run
from mmcl_fast.training.run_tables import run_to_pandas, run_to_xarray, summary, summary_html
from mmcl_fast.training.span import modality_index, require_coordinates, weights_in_span

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Status = Literal["finished", "diverged", "stopped"]


@dataclass(frozen=True, repr=False)
class Run:
    """Result of one training run.

    Curves have epochs + 1 entries: before training, and after each epoch; those of a run that a
    callback stopped end at that epoch.

    Attributes:
        config: The resolved settings (engine, device and temperature are the ones used).
        loss: Full-batch training loss, [epochs + 1].
        ood_accuracy: Accuracy of the logistic head on OOD data, NaN where not evaluated.
        signal: `max_r |<w_r, mu>|` of modality A.
        noise: `max_{r,i} <w_r, xi_i>` of modality A.
        gamma: Final signal learning gamma_r of modality A, [m], with classes [m, K]; None if the
            weights leave the span of the data (Adam, or fresh views that carry gradients), as the
            other coefficients.
        rho: Final noise memorisation rho_{r,i} of modality A, [m, n].
        gamma_b: gamma of modality B; None if single-modal.
        rho_b: rho of modality B; None if single-modal.
        gamma_spurious: Final learning of the spurious signal s of modality A, coefficient of
            s / |s|^2, [m]; None without a spurious attribute.
        gamma_spurious_b: gamma_spurious of modality B; None if single-modal.
        rho_views: Final memorisation of the views' noise patches x'_i, coefficients of
            x'_i / |x'_i|^2, [m, n]; None unless single-modal keys carry gradients
            (`stop_gradient="none"`).
        gamma_c: gamma of modality C; None without one, as rho_c and gamma_spurious_c.
        rho_c: rho of modality C.
        gamma_spurious_c: gamma_spurious of modality C.
        coefficient_epochs: Epochs at which the coefficients above were stored.
        gamma_curve: gamma at those epochs, [k, m], with classes [k, m, K].
        rho_curve: rho at those epochs, [k, m, n].
        gamma_b_curve: gamma_curve of modality B; None if single-modal.
        rho_b_curve: rho_curve of modality B; None if single-modal.
        gamma_spurious_curve: gamma_spurious at those epochs, [k, m]; `gamma_spurious_b_curve` of
            modality B.
        rho_views_curve: rho_views at those epochs, [k, m, n].
        gamma_c_curve: gamma_curve of modality C, as rho_c_curve and gamma_spurious_c_curve.
        status: "finished"; "diverged": curves are NaN from `diverged_at` on; or "stopped" by a
            callback, after `stopped_at` updates: all but `config` is then as of a run of so many
            epochs.
        diverged_at: First epoch whose loss or learned temperature is not finite, or None.
        stopped_at: Last epoch of a stopped run, or None.
        metrics: Curves of own metrics by name, float64, [epochs + 1].
        tau: Temperature where it is learned (`eta_tau`), [epochs + 1]; else None.
    """

    config: TrainConfig
    loss: Tensor
    ood_accuracy: Tensor
    signal: Tensor
    noise: Tensor
    gamma: Tensor | None = None
    rho: Tensor | None = None
    gamma_b: Tensor | None = None
    rho_b: Tensor | None = None
    coefficient_epochs: list[int] = field(default_factory=list)
    gamma_curve: Tensor | None = None
    rho_curve: Tensor | None = None
    gamma_b_curve: Tensor | None = None
    rho_b_curve: Tensor | None = None
    status: Status = "finished"
    diverged_at: int | None = None
    stopped_at: int | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    tau: Tensor | None = None
    gamma_spurious: Tensor | None = None
    gamma_spurious_b: Tensor | None = None
    rho_views: Tensor | None = None
    gamma_spurious_curve: Tensor | None = None
    gamma_spurious_b_curve: Tensor | None = None
    rho_views_curve: Tensor | None = None
    gamma_c: Tensor | None = None
    rho_c: Tensor | None = None
    gamma_spurious_c: Tensor | None = None
    gamma_c_curve: Tensor | None = None
    rho_c_curve: Tensor | None = None
    gamma_spurious_c_curve: Tensor | None = None
    _span: tuple[Coefficients, ...] | None = field(default=None, repr=False)
    _weights: tuple[Tensor, ...] | None = field(default=None, repr=False)
    _data: SignalNoiseData | None = field(default=None, repr=False)
    _made_with: dict[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return summary_html(self)

    @property
    def epochs(self) -> range:
        """0 .. epochs: index of the curves."""
        return range(len(self.loss))

    @property
    def cause(self) -> str | None:
        """Why the run diverged, in a sentence, or None."""
        if self.diverged_at is None:
            return None
        cfg = self.config
        if self.diverged_at == 0:
            return "the loss is not finite before the first step: the similarities overflow"
        power = (
            "" if cfg.q == 1 else f" (with q = {cfg.q} the gradient grows like |w|^{2 * cfg.q - 1})"
        )
        learned, what = "", "loss"
        if cfg.eta_tau is not None:
            learned, what = f", or eta_tau = {cfg.eta_tau:g}", "loss or the learned temperature"
        return (
            f"the {what} is not finite at epoch {self.diverged_at}; likely a step that is too "
            f"large: eta = {cfg.eta:g} at tau = {cfg.tau_value:g}{learned}{power}"
        )

    def weights(self, modality: ModalityName = "a") -> Tensor:
        """Final weights of an encoder, [m, d] (or [m, d_b], [m, d_c]).

        Raises:
            ConfigError: `modality` is none of `modalities`; or the run has no weights in R^d
                (reduced data).
        """
        k = modality_index(self.config, modality)
        require_coordinates(self.config)
        if self._weights is not None:
            return self._weights[k]
        if self._span is None:
            raise ConfigError("weights: expected a finished run, got one without coefficients")
        return weights_in_span(self._span[k], as_data(self.config, self._data), k)

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """Modalities of the run."""
        return self.config.modalities

    @property
    def has_weights(self) -> bool:
        """Whether the run has weights in R^d."""
        held = self._weights is not None or self._span is not None
        return held and self.config.data not in ROTATED

    def save(self, path: str | Path) -> Path:
        """Write the run to one safetensors file: curves, coefficients, weights, and JSON inside.

        Raises: OutputError: it cannot be written; no partial file is left.
        """
        return save_run(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a run that `save` wrote; own data are not part of it, weights are.

        Raises: OutputError: there is no such file, or it is none of `save`.
        """
        return load_run(cls, Path(path))

    def to_pandas(self) -> pd.DataFrame:
        """The curves as columns of a pandas data frame, with the epoch as index.

        Raises: BackendUnavailableError: pandas is not installed.
        """
        return run_to_pandas(self)

    def to_xarray(self) -> xr.Dataset:
        """Curves and coefficients as an xarray dataset, whose attributes say what made them.

        Dimensions: epoch, neuron, sample, coefficient_epoch, and with classes label of gamma.
        Attributes: every setting that has a value, status, the version of mmcl_fast and the commit.
        An attribute tau is the setting, a variable tau the learned temperature.

        Raises: BackendUnavailableError: xarray is not installed.
        """
        return run_to_xarray(self)

    def encoder(self, modality: ModalityName = "a") -> TwoLayerEncoder:
        """The trained encoder as a PyTorch module."""
        return TwoLayerEncoder(self.weights(modality), self.config.q)

    def curves(self) -> Mapping[str, Tensor]:
        """The four curves by name, the temperature where it is learned, and own metrics."""
        learned = {} if self.tau is None else {"tau": self.tau}
        return {
            "loss": self.loss,
            "ood_accuracy": self.ood_accuracy,
            "signal": self.signal,
            "noise": self.noise,
            **learned,
            **self.metrics,
        }

    def final(self) -> dict[str, Any]:
        """Last values of the curves as plain numbers."""
        return {name: curve[-1].item() for name, curve in self.curves().items()}


__all__ = ["Run"]
