"""Names of the planes and of their axes; free of torch, so the command line starts fast."""

from __future__ import annotations

from typing import Literal

PlaneName = Literal[
    "n-snr", "cmu-nsnr2", "d", "m", "sigma-eps", "pair-noise", "spurious", "classes", "third"
]

QUANTITIES = (
    "snr",
    "n_snr2",
    "c_mu",
    "noise_rate",
    "noise_start",
    "nu_share",
    "spurious_share",
    "third_share",
)
"""Quantities that are no settings and can be an axis of a plane; each determines one."""

NO_AXES = (
    "sigma_xi",
    "epochs",
    "n_test",
    "evaluate_every",
    "coefficients_every",
    "seed",
    "data_seed",
    "init_seed",
)
"""Numeric settings that are the same in every run of a plane, or differ by seed."""

__all__ = ["NO_AXES", "QUANTITIES", "PlaneName"]
