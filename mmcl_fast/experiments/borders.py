"""Where the theory says that training changes: the order of the first stages, Assumption 4.1.

And where the proofs of its lemmas hold. All are numbers that change sign on a border, so a map of
them needs no constant that was fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmcl_fast.config import TrainConfig
from mmcl_fast.theory import (
    Check,
    assumption_4_1,
    lemma_5_2_window,
    lemma_5_4_window,
    n_snr2,
    t1_multi,
    t1_single,
)

ORDER_ONE = 10.0  # n SNR^2 = Theta(1) is taken to hold within this factor


@dataclass(frozen=True, kw_only=True)
class TheoryPoint:
    """What the lemmas and Assumption 4.1 ask of a run; sizes need not be integers here.

    Attributes:
        n: Training samples.
        d: Dimension.
        m: Neurons.
        eta: Learning rate.
        tau: Temperature.
        sigma_0: Standard deviation of the initial weights.
        sigma_xi: Standard deviation of the noise patch.
        sigma_eps: Standard deviation of the augmentation noise.
        mu_norm: |mu|.
        mu_b_norm: |mu~|.
    """

    n: float
    d: float
    m: float
    eta: float
    tau: float
    sigma_0: float
    sigma_xi: float
    sigma_eps: float
    mu_norm: float
    mu_b_norm: float


def theory_point(cfg: TrainConfig) -> TheoryPoint | None:
    """The point of a run's settings.

    Returns: None where the theory states nothing: q > 1, an optimizer other than gradient descent,
        a modality without a signal, or a model variant.
    """
    if cfg.q != 1 or cfg.optimizer != "gd" or 0 in (cfg.mu_norm, cfg.mu_b_norm) or cfg.is_variant:
        return None
    return TheoryPoint(
        n=cfg.n,
        d=cfg.d,
        m=cfg.m,
        eta=cfg.eta,
        tau=cfg.tau_value,
        sigma_0=cfg.sigma_0,
        sigma_xi=cfg.sigma_xi,
        sigma_eps=cfg.sigma_eps,
        mu_norm=cfg.mu_norm,
        mu_b_norm=cfg.mu_b_norm,
    )


def log_t1_ratio(point: TheoryPoint, modality: str) -> float:
    """Log of T1 of the noise (Lemma 5.2) over T1 of the signal (Lemma 5.4); > 0: signal is first.

    Single-modal training is Lemma 5.4's rate with C_mu = 1: its signal meets only itself.

    Returns: NaN where a stage is over at the start, or neither ends.
    """
    shared = {"sigma_0": point.sigma_0, "eta": point.eta, "m": point.m, "tau": point.tau}
    noise = t1_single(sigma_xi=point.sigma_xi, d=point.d, n=point.n, **shared)
    c_mu = point.mu_b_norm / point.mu_norm if modality == "multi" else 1.0
    signal = t1_multi(mu_norm=point.mu_norm, c_mu=c_mu, **shared)
    if min(noise, signal) == 0 or not math.isfinite(min(noise, signal)):
        return math.nan
    if not math.isfinite(noise):
        return math.inf
    return math.log(noise / signal) if math.isfinite(signal) else -math.inf


def conditions(point: TheoryPoint, modality: str) -> list[Check]:
    """Assumption 4.1 at a point; its conditions on modality B for multi-modal training only."""
    checks = assumption_4_1(
        n=point.n,
        d=point.d,
        m=point.m,
        eta=point.eta,
        sigma_0=point.sigma_0,
        sigma_xi=point.sigma_xi,
        sigma_eps=point.sigma_eps,
        mu_norm=point.mu_norm,
        mu_b_norm=point.mu_b_norm,
        order_one=ORDER_ONE,
    )
    return [c for c in checks if modality == "multi" or not c.condition.startswith("C_mu")]


def margin(point: TheoryPoint, modality: str) -> float:
    """Margin of Assumption 4.1: log of the factor to its nearest boundary, < 0 where it fails."""
    return _margin(conditions(point, modality))


def window(point: TheoryPoint, modality: str) -> list[Check]:
    """What the proof of Lemma 5.2 (single-modal) or 5.4 asks of n SNR^2 and C_mu at a point."""
    balance = n_snr2(n=point.n, mu_norm=point.mu_norm, sigma_xi=point.sigma_xi, d=point.d)
    if modality == "single":
        return lemma_5_2_window(n_snr2=balance)
    return lemma_5_4_window(n_snr2=balance, c_mu=point.mu_b_norm / point.mu_norm)


def window_margin(point: TheoryPoint, modality: str) -> float:
    """Margin of `window`: log of the factor to its nearest boundary, < 0 where it fails."""
    return _margin(window(point, modality))


def _margin(checks: list[Check]) -> float:
    margins = []
    for check in checks:
        if check.left == 0:  # no augmentation noise meets every limit on it
            continue
        ratio = math.log(check.left / check.right)
        if ">=" in check.condition:
            margins.append(ratio)
        elif "<=" in check.condition:
            margins.append(-ratio)
        else:
            margins.append(math.log(ORDER_ONE) - abs(ratio))
    return min(margins)


__all__ = [
    "TheoryPoint",
    "conditions",
    "log_t1_ratio",
    "margin",
    "theory_point",
    "window",
    "window_margin",
]
