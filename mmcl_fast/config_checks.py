"""Which settings exclude one another, and which overflow."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcl_fast.config_variants import SPURIOUS_NORMS, VARIANT_FIELDS, check_variants
from mmcl_fast.errors import ConfigError
from mmcl_fast.stream_tags import MAX_DIM

if TYPE_CHECKING:
    from mmcl_fast.config import TrainConfig

FLOAT_MAX = {
    "float32": float.fromhex("0x1.fffffep+127"),
    "float64": float.fromhex("0x1.fffffffffffffp+1023"),
}


ROTATED = ("reduced", "orthogonal")
"""Kinds of data in other coordinates than those of R^d."""
COMBINED = (
    "n", "d", "d_b", "modality", "augment", "data", "optimizer", "momentum", "batch_size",
    "negatives_per_sample", "negatives_draw", "probe_on", "probe_samples", "m", *VARIANT_FIELDS,
)  # fmt: skip
"""Settings that `check_combinations` reads."""


def check_combinations(cfg: TrainConfig) -> None:
    """Refuse settings that exclude one another."""
    if cfg.optimizer == "sgd" and cfg.batch_size is None:
        raise ConfigError("batch_size: expected an integer with optimizer sgd, got None")
    if cfg.optimizer != "sgd" and cfg.batch_size is not None:
        raise ConfigError(
            f"batch_size: expected None with full-batch optimizer {cfg.optimizer}, "
            f"got {cfg.batch_size}"
        )
    if cfg.batch_size is not None and cfg.batch_size > cfg.n:
        raise ConfigError(f"batch_size: expected at most n = {cfg.n}, got {cfg.batch_size}")
    if cfg.optimizer != "momentum" and cfg.momentum is not None:
        raise ConfigError(
            f"momentum: expected None with optimizer {cfg.optimizer}, got {cfg.momentum}"
        )
    if cfg.probe_on == "train" and cfg.probe_samples is not None:
        raise ConfigError(
            f"probe_samples: expected None with probe_on train, which fits on the training "
            f"embeddings, got {cfg.probe_samples}; take probe_on = ood"
        )
    if cfg.negatives_per_sample is not None and cfg.negatives_per_sample >= cfg.n:
        raise ConfigError(
            f"negatives_per_sample: expected at most n - 1 = {cfg.n - 1} (the other label's "
            f"samples), got {cfg.negatives_per_sample}"
        )
    if cfg.negatives_per_sample is None and cfg.negatives_draw == "per_epoch":
        raise ConfigError("negatives_draw: expected fixed where all negatives are used")
    if cfg.is_multi and cfg.augment == "per_epoch":
        raise ConfigError("augment: expected fixed with modality multi (it has no augmentation)")
    if cfg.data in ROTATED and cfg.optimizer == "adam":
        raise ConfigError(
            "data: expected explicit with optimizer adam (it rescales coordinates, so a rotation "
            f"of the data would change the run), got {cfg.data!r}"
        )
    check_variants(cfg)
    for name, d in (("d", cfg.d), ("d_b", cfg.d_b_value), ("d_c", cfg.d_c_value)):
        if cfg.data not in ROTATED and d > MAX_DIM + 1:
            raise ConfigError(f"{name}: expected at most 2^34 with data {cfg.data}, got {d}")


@dataclass(frozen=True)
class Magnitude:
    """A number that the arithmetic of a run forms of its settings.

    Attributes:
        text: What it is.
        name: The setting that an error names.
        reads: Settings, or properties of a config, that it is computed from.
        value: The number, as a function of these.
    """

    text: str
    name: str
    reads: tuple[str, ...]
    value: Callable[..., float]

    def check(self, dtype: str, *given: Any) -> None:
        """Refuse settings whose number is infinite in the arithmetic of a run.

        Raises: ConfigError: naming the setting, of which `given[0]` is the value.
        """
        if not self.value(*given) <= FLOAT_MAX[dtype]:
            raise ConfigError(
                f"{self.name}: expected {self.text} to be finite in {dtype}, got {given[0]!r}"
            )


# Not sigma ** 2, which raises OverflowError instead of giving infinity.
PRODUCTS = (
    Magnitude(
        "sigma_xi^2 d", "sigma_xi", ("sigma_xi", "d"), lambda s, d: math.prod((s, s, float(d)))
    ),
    *(
        Magnitude(
            f"sigma_xi_{side}^2 d",
            f"sigma_xi_{side}",
            (f"sigma_xi_{side}_value", f"d_{side}_value"),
            lambda s, d: 0.0 if d is None else math.prod((s, s, float(d))),
        )
        for side in "bc"  # a plan has no sizes of a modality C that there is not
    ),
    *(
        Magnitude(f"{name}^2", name, (name,), lambda x: 0.0 if x is None else x * x)
        for name in ("mu_norm", "mu_b_norm", "mu_c_norm", "nu_norm", *SPURIOUS_NORMS)
    ),
    Magnitude(
        "1 / (m tau)",
        "tau",
        ("tau_value", "m"),
        lambda tau, m: 1.0 / max(m * tau, 1.0 / sys.float_info.max),
    ),
)


def magnitudes(floats: Sequence[str]) -> tuple[Magnitude, ...]:
    """Every number that has to be finite.

    Args:
        floats: Settings that are floating-point numbers.
    """
    return (*(Magnitude(name, name, (name,), _size) for name in floats), *PRODUCTS)


def _size(value: float | None) -> float:
    return 0.0 if value is None else abs(value)


def check_magnitudes(cfg: TrainConfig, of_settings: Sequence[Magnitude]) -> None:
    """Refuse settings that overflow the arithmetic before the first step.

    Args:
        cfg: All settings.
        of_settings: What has to be finite.
    """
    for magnitude in of_settings:
        magnitude.check(cfg.dtype, *(getattr(cfg, name) for name in magnitude.reads))


__all__ = [
    "COMBINED",
    "ROTATED",
    "Magnitude",
    "check_combinations",
    "check_magnitudes",
    "magnitudes",
]
