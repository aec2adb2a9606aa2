"""Closed-form predictions of Huang et al. (NeurIPS 2024), to draw beside measured curves.

Statements "of order" hold up to constants and logarithms; a function that returns one says so. All
are for one modality's sizes; n, d, m are the training samples, the dimension and the neurons.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

SINGLE_RATE = 0.96
"""Constant of the noise's growth rate in Lemma 5.2."""
MULTI_RATE = 0.48
"""Constant of the signal's growth rate in Lemma 5.4."""
MIN_C_MU = 2.66
"""Smallest |mu~| / |mu| of Assumption 4.1: 4.51 / 1.7, so it belongs to n SNR^2 = 1.7."""
MAX_N_SNR2_SINGLE = 1.8
"""Largest n SNR^2 for which the proof of Lemma 5.2 holds (appendix C.1.3)."""
MIN_N_SNR2_MULTI = 1.7
"""Smallest n SNR^2 for which the proof of Lemma 5.4 holds (appendix D.1.3)."""
MIN_C_MU_N_SNR2_MULTI = 4.51
"""Smallest C_mu n SNR^2 of it: 2.21 / (C_mu n SNR^2) + 0.01 <= 0.5 (appendix D.1.3)."""
SINGLE_SIGNAL_RATE = 0.52
"""Constant of the bound on the signal's growth in single-modal training (Lemma C.4)."""
MULTI_NOISE_RATE = 1.06
"""Constant of the bound on the noise's growth in multi-modal training (Lemma D.9)."""
MAX_NOISE_RATE = 1 / 12
"""Largest eta sigma_xi^2 d / (n m tau) of Proposition C.13."""
MIN_N_SINGLE = 2500
"""Least n / log(4 / delta) in the proofs for single-modal training."""
MIN_N_MULTI = 1_280_000
"""Least n / log(4 / delta) in the proofs for multi-modal training (Lemma D.8)."""


@dataclass(frozen=True)
class Check:
    """One condition: of Assumption 4.1, up to logarithms and constants, or of a lemma's proof.

    Attributes:
        condition: The condition in words and symbols.
        left: Value of its left side.
        right: Value of its right side.
        holds: Whether it holds, in Assumption 4.1 with every hidden constant equal to 1.
    """

    condition: str
    left: float
    right: float
    holds: bool


P = ParamSpec("P")
T = TypeVar("T")


def _by_name(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which says what it expects where it is called with a config or without names.

    Raises: TypeError: a positional argument.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*positional: P.args, **named: P.kwargs) -> T:
        if positional:
            kind = type(positional[0]).__name__
            raise TypeError(
                f"{function.__name__}: expected arguments by name ({', '.join(names)}), got a "
                f"{kind}; take {names[0]}=cfg.{names[0]} and so on of a config"
            )
        return function(*positional, **named)

    return checked


@_by_name
def snr(*, mu_norm: float, sigma_xi: float, d: float) -> float:
    """Signal-to-noise ratio, SNR = |mu| / (sigma_xi sqrt(d)) (section 4).

    Raises: ValueError unless mu_norm >= 0 and the others > 0, all finite.
    """
    _not_negative(mu_norm=mu_norm)
    _positive(sigma_xi=sigma_xi, d=d)
    return mu_norm / (sigma_xi * math.sqrt(d))


@_by_name
def n_snr2(*, n: float, mu_norm: float, sigma_xi: float, d: float) -> float:
    """The product n SNR^2, which Assumption 4.1 takes to be of order 1.

    Raises: ValueError as `snr`, and unless n > 0.
    """
    _positive(n=n)
    return n * snr(mu_norm=mu_norm, sigma_xi=sigma_xi, d=d) ** 2


@_by_name
def noise_growth(
    *, eta: float, sigma_xi: float, d: float, n: float, m: float, tau: float, rate: float = 1.0
) -> float:
    """Factor by which noise memorisation grows in a step of the first stage (Lemmas 5.1, 5.3).

    1 + rate * eta sigma_xi^2 d / (n m tau); the rate is 1 up to a constant, 0.96 in Lemma 5.2.

    Raises: ValueError unless every argument is finite and > 0.
    """
    _positive(eta=eta, sigma_xi=sigma_xi, d=d, n=n, m=m, tau=tau, rate=rate)
    return 1.0 + rate * _noise_rate(eta=eta, sigma_xi=sigma_xi, d=d, n=n, m=m, tau=tau)


@_by_name
def signal_growth(
    *, eta: float, mu_norm: float, m: float, tau: float, c_mu: float = 1.0, rate: float = 1.0
) -> float:
    """Factor by which signal learning grows in a step of the first stage (Lemmas 5.1, 5.3).

    1 + rate * c_mu eta |mu|^2 / (m tau); c_mu = 1 for single-modal training and |mu~| / |mu| for
    multi-modal. The rate is 1 up to a constant, 0.48 in Lemma 5.4.

    Raises: ValueError unless mu_norm, c_mu >= 0 and the others > 0, all finite.
    """
    _not_negative(mu_norm=mu_norm, c_mu=c_mu)
    _positive(eta=eta, m=m, tau=tau, rate=rate)
    return 1.0 + rate * _signal_rate(eta=eta, mu_norm=mu_norm, m=m, tau=tau, c_mu=c_mu)


@_by_name
def t1_single(
    *, sigma_0: float, sigma_xi: float, d: float, eta: float, n: float, m: float, tau: float
) -> float:
    """End of the first stage of single-modal training, in epochs, for q = 1 (Lemma 5.2).

    T1 = log(20 / (sigma_0 sigma_xi sqrt(d))) / log(1 + 0.96 eta sigma_xi^2 d / (n m tau)).

    Returns: Epochs, >= 0: 0.0 where the initial noise activation sigma_0 sigma_xi sqrt(d) is 20 or
        more (the stage is over at the start), infinity where the rate underflows to 0.

    Raises: ValueError unless every argument is finite and > 0. The lemma is for q = 1 only, and
        there is no q here: callers with another q have no T1 to draw.
    """
    _positive(sigma_0=sigma_0, sigma_xi=sigma_xi, d=d, eta=eta, n=n, m=m, tau=tau)
    rate = SINGLE_RATE * _noise_rate(eta=eta, sigma_xi=sigma_xi, d=d, n=n, m=m, tau=tau)
    return _epochs_to_grow(start=sigma_0 * sigma_xi * math.sqrt(d), rate=rate)


@_by_name
def t1_multi(
    *, sigma_0: float, mu_norm: float, c_mu: float, eta: float, m: float, tau: float
) -> float:
    """End of the first stage of multi-modal training, in epochs, for q = 1 (Lemma 5.4).

    T1 = log(20 / (sigma_0 |mu|)) / log(1 + 0.48 c_mu eta |mu|^2 / (m tau)), c_mu = |mu~| / |mu|.

    Returns: Epochs, >= 0: 0.0 where the initial signal activation sigma_0 |mu| is 20 or more,
        infinity without a signal (mu_norm or c_mu = 0), which never grows.

    Raises:
        ValueError: mu_norm or c_mu < 0, another <= 0, or one not finite. For q = 1 only, as
            `t1_single`.
    """
    _not_negative(mu_norm=mu_norm, c_mu=c_mu)
    _positive(sigma_0=sigma_0, eta=eta, m=m, tau=tau)
    rate = MULTI_RATE * _signal_rate(eta=eta, mu_norm=mu_norm, m=m, tau=tau, c_mu=c_mu)
    return _epochs_to_grow(start=sigma_0 * mu_norm, rate=rate)


@_by_name
def convergence_time(
    *, loss: float, eta: float, sigma_xi: float, d: float, n: float, m: float
) -> float:
    """Order of the epochs until the training loss is at most `loss` (Theorems 4.2 and 4.3).

    T* = m n / (eta sigma_xi^2 d) * (1 + 1 / loss), up to constants and logarithms; the same for
    single-modal and multi-modal training.

    Raises: ValueError unless every argument is finite and > 0.
    """
    _positive(loss=loss, eta=eta, sigma_xi=sigma_xi, d=d, n=n, m=m)
    return m * n / (eta * sigma_xi**2 * d) * (1.0 + 1.0 / loss)


@_by_name
def initial_loss(
    *, n_plus: int, n_minus: int, negatives_per_sample: int | None = None, multi: bool = False
) -> float:
    """Training loss at vanishing similarities (losses (6) and (9), sigma_0 -> 0).

    A sample with M negatives then has the loss log(1 + M), and M is the number of samples of the
    other label, or negatives_per_sample if that is less. The multi-modal loss adds two directions.

    Args:
        n_plus: Training samples labelled +1, >= 0; one of the two numbers is > 0.
        n_minus: Training samples labelled -1, >= 0.
        negatives_per_sample: Limit on a sample's negatives, >= 1; default: none.
        multi: Whether the loss is the multi-modal one.

    Returns: The loss, in nats.

    Raises: ValueError if a number is out of range.
    """
    _not_negative(n_plus=n_plus, n_minus=n_minus)
    _positive(n=n_plus + n_minus)
    limit = math.inf if negatives_per_sample is None else negatives_per_sample
    if limit < 1:
        raise ValueError(f"negatives_per_sample: expected at least 1, got {negatives_per_sample!r}")
    total = n_plus * math.log1p(min(n_minus, limit)) + n_minus * math.log1p(min(n_plus, limit))
    return (2.0 if multi else 1.0) * total / (n_plus + n_minus)


def assumption_4_1(  # noqa: PLR0913 - the assumption relates ten quantities
    *,
    n: float,
    d: float,
    m: float,
    eta: float,
    sigma_0: float,
    sigma_xi: float,
    sigma_eps: float,
    mu_norm: float,
    mu_b_norm: float,
    tau: float | None = None,
    delta: float | None = None,
    order_one: float = 10.0,
) -> list[Check]:
    """The conditions of Assumption 4.1, each with every hidden constant and logarithm set to 1.

    "n SNR^2 = Theta(1)" is taken to hold within a factor `order_one` either way. The published
    Figure 1 itself meets ten of the thirteen: its d is too small for the three conditions on d.

    The proofs ask for more. The assumption's limit on the step has no temperature; Proposition C.13
    has, and a constant: eta sigma_xi^2 d / (n m tau) <= 1/12, where Figure 1 with tau = 1/m has
    0.2. Condition (4), m and n at least of order 1 up to logarithms, stands for
    n >= 2500 log(4 / delta), with a failure probability delta, and in Lemma D.8 for
    n >= 1,280,000 log(4 / delta); Figure 1 has n = 100.

    Args:
        n: Training samples.
        d: Dimension of a patch.
        m: Neurons.
        eta: Learning rate.
        sigma_0: Standard deviation of the initial weights.
        sigma_xi: Standard deviation of the noise patch.
        sigma_eps: Standard deviation of the augmentation noise, >= 0.
        mu_norm: |mu|.
        mu_b_norm: |mu~|; with mu_norm it gives C_mu, which only multi-modal training needs.
        tau: Temperature; if given, the limit of Proposition C.13 is one more condition.
        delta: Failure probability, < 1; if given, the proofs' two limits on n are two more.
        order_one: Factor, >= 1, within which a quantity of order 1 is accepted.

    Returns: One check per condition, in the paper's order, then those of the proofs.

    Raises:
        ValueError: sigma_eps < 0, order_one < 1, delta >= 1, another <= 0, or one not finite.
    """
    _not_negative(sigma_eps=sigma_eps)
    _positive(n=n, d=d, m=m, eta=eta, sigma_0=sigma_0, sigma_xi=sigma_xi)
    _positive(mu_norm=mu_norm, mu_b_norm=mu_b_norm, order_one=order_one)
    if order_one < 1:
        raise ValueError(f"order_one: expected at least 1, got {order_one!r}")
    proofs = []
    if tau is not None:
        _positive(tau=tau)
        limit = MAX_NOISE_RATE * n * m * tau / (sigma_xi**2 * d)
        proofs.append(_at_most("eta <= n m tau / (12 sigma_xi^2 d)", eta, limit))
    if delta is not None:
        _positive(delta=delta)
        if delta >= 1:
            raise ValueError(f"delta: expected less than 1, got {delta!r}")
        log = math.log(4.0 / delta)
        for factor, printed in ((MIN_N_SINGLE, "2500"), (MIN_N_MULTI, "1,280,000")):
            proofs.append(_at_least(f"n >= {printed} log(4 / delta)", n, factor * log))
    balance = n_snr2(n=n, mu_norm=mu_norm, sigma_xi=sigma_xi, d=d)
    balanced = 1.0 / order_one <= balance <= order_one
    return [
        _at_least("d >= n^2", d, n**2),
        _at_least("d >= n / (sigma_0 sigma_xi)", d, n / (sigma_0 * sigma_xi)),
        _at_least("d >= 1 / (sigma_0 |mu|)^2", d, 1.0 / (sigma_0 * mu_norm) ** 2),
        _at_most("eta <= m / |mu|^2", eta, m / mu_norm**2),
        _at_most("eta <= n m / (sigma_xi^2 d)", eta, n * m / (sigma_xi**2 * d)),
        _at_most("sigma_0 <= 1 / (sigma_xi sqrt(d))", sigma_0, 1.0 / (sigma_xi * math.sqrt(d))),
        _at_most("sigma_0 <= 1 / |mu|", sigma_0, 1.0 / mu_norm),
        _at_least("m >= 1", m, 1.0),
        _at_least("n >= 1", n, 1.0),
        _at_most("sigma_eps <= |mu|", sigma_eps, mu_norm),
        _at_most("sigma_eps <= sigma_xi", sigma_eps, sigma_xi),
        Check("n SNR^2 = Theta(1)", balance, 1.0, balanced),
        _at_least("C_mu >= 2.66", mu_b_norm / mu_norm, MIN_C_MU),
        *proofs,
    ]


@_by_name
def lemma_5_2_window(*, n_snr2: float) -> list[Check]:
    """What "n SNR^2 = Theta(1)" means in the proof of Lemma 5.2, single-modal (appendix C.1.3).

    Figure 1, at n SNR^2 = 1.25, meets it.

    Raises: ValueError unless n_snr2 is finite and > 0.
    """
    _positive(n_snr2=n_snr2)
    return [_at_most("n SNR^2 <= 1.8", n_snr2, MAX_N_SNR2_SINGLE)]


@_by_name
def lemma_5_4_window(*, n_snr2: float, c_mu: float) -> list[Check]:
    """What "n SNR^2 = Theta(1)" means in the proof of Lemma 5.4, multi-modal (appendix D.1.3).

    Figure 1, at n SNR^2 = 1.25 and C_mu = 3, meets neither condition.

    Args:
        n_snr2: n SNR^2.
        c_mu: |mu~| / |mu|.

    Raises: ValueError unless both are finite and > 0.
    """
    _positive(n_snr2=n_snr2, c_mu=c_mu)
    return [
        _at_least("n SNR^2 >= 1.7", n_snr2, MIN_N_SNR2_MULTI),
        _at_least("C_mu n SNR^2 >= 4.51", c_mu * n_snr2, MIN_C_MU_N_SNR2_MULTI),
    ]


def _at_least(condition: str, left: float, right: float) -> Check:
    return Check(condition, float(left), float(right), left >= right)


def _at_most(condition: str, left: float, right: float) -> Check:
    return Check(condition, float(left), float(right), left <= right)


def _noise_rate(*, eta: float, sigma_xi: float, d: float, n: float, m: float, tau: float) -> float:
    return eta * sigma_xi**2 * d / (n * m * tau)


def _signal_rate(*, eta: float, mu_norm: float, m: float, tau: float, c_mu: float) -> float:
    return c_mu * eta * mu_norm**2 / (m * tau)


def _epochs_to_grow(*, start: float, rate: float) -> float:
    """Epochs until `start`, multiplied by 1 + rate in each, is 20."""
    if start >= 20.0:
        return 0.0
    if rate == 0.0 or start == 0.0:
        return math.inf
    return (math.log(20.0) - math.log(start)) / math.log1p(rate)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")


__all__ = [
    "MAX_NOISE_RATE",
    "MAX_N_SNR2_SINGLE",
    "MIN_C_MU",
    "MIN_C_MU_N_SNR2_MULTI",
    "MIN_N_MULTI",
    "MIN_N_SINGLE",
    "MIN_N_SNR2_MULTI",
    "MULTI_NOISE_RATE",
    "MULTI_RATE",
    "SINGLE_RATE",
    "SINGLE_SIGNAL_RATE",
    "Check",
    "assumption_4_1",
    "convergence_time",
    "initial_loss",
    "lemma_5_2_window",
    "lemma_5_4_window",
    "n_snr2",
    "noise_growth",
    "signal_growth",
    "snr",
    "t1_multi",
    "t1_single",
]
