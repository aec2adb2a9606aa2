"""Settings that keep what the theory holds fixed while sizes grow.

The paper's statements are about n, d -> infinity with n SNR^2 of order 1. The first stage of
training depends on the sizes only through its growth rate and its start, so these are the
arguments here, and eta and sigma_0 follow from them:

    noise_rate  = eta sigma_xi^2 d / (n m tau)
    noise_start = sigma_0 sigma_xi sqrt(d)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError

FIGURE_1_START = 0.001 * math.sqrt(2000)


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A point of the theory; defaults are Figure 1's values, at a d that meets Assumption 4.1.

    Attributes:
        n: Training samples; whole for a run, any for the theory's curves, as the next two.
        d: Dimension; data are reduced, so it costs nothing.
        m: Neurons.
        n_snr2: n |mu|^2 / (sigma_xi^2 d), > 0; sets |mu|.
        c_mu: |mu~| / |mu|.
        noise_rate: Growth of noise memorisation in an epoch of the first stage, > 0; sets eta.
        noise_start: Initial pre-activation of a noise patch, > 0; sets sigma_0.
        nu_share: |nu| / |mu|, which is 0.4 in Figure 1.
        sigma_eps: Standard deviation of the augmentation noise, with sigma_xi = 1.
        temperature: tau; None: 1 / m, as in Figure 1.
    """

    n: float = 100
    d: float = 10**15
    m: float = 50
    n_snr2: float = 1.25
    c_mu: float = 3.0
    noise_rate: float = 0.2
    noise_start: float = FIGURE_1_START
    nu_share: float = 0.4
    sigma_eps: float = 0.1
    temperature: float | None = None

    def __post_init__(self) -> None:
        for name in ("n_snr2", "noise_rate", "noise_start"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: expected a finite number > 0, got {value!r}")

    @property
    def mu_norm(self) -> float:
        """|mu| with sigma_xi = 1."""
        return math.sqrt(self.n_snr2 * self.d / self.n)

    @property
    def tau(self) -> float:
        """The temperature in use."""
        return 1.0 / self.m if self.temperature is None else self.temperature

    @property
    def eta(self) -> float:
        """Learning rate."""
        return self.noise_rate * self.n * self.m * self.tau / self.d

    @property
    def sigma_0(self) -> float:
        """Standard deviation of the initial weights."""
        return self.noise_start / math.sqrt(self.d)

    def config(self, **changes: Any) -> TrainConfig:
        """The settings of a run: reduced data, sigma_xi = 1, with `changes` applied.

        Raises: ConfigError: n, d or m is not whole, or a setting is out of range.
        """
        settings: dict[str, Any] = {
            "n": self.n,
            "d": self.d,
            "m": self.m,
            "mu_norm": self.mu_norm,
            "mu_b_norm": self.c_mu * self.mu_norm,
            "nu_norm": self.nu_share * self.mu_norm,
            "sigma_eps": self.sigma_eps,
            "sigma_0": self.sigma_0,
            "tau": self.tau,
            "eta": self.eta,
            "data": "reduced",
        }
        return TrainConfig(**settings | changes)


__all__ = ["FIGURE_1_START", "Scaled"]
