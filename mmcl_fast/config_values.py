"""What a setting may hold: words, integers or numbers, and in which range.

Which settings exclude one another is in `config_checks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from mmcl_fast.errors import ConfigError
from mmcl_fast.stream_tags import MAX_EPOCH, MAX_SEED

MAX_INTEGER = 2**63 - 1  # what files of results hold
MAX_POWER = 16
MAX_REDUCED_DIM = 2**53  # degrees of freedom stay exact in float64
MAX_CLASSES = 1024


@dataclass(frozen=True)
class Kind:
    """What a field holds, read from its annotation once: a plan makes 10^5 configs."""

    exact: type
    words: tuple[str, ...]
    optional: bool

    def plain(self, name: str, value: object) -> str | int | float | None:
        """The value as str, int or float, whichever the field holds; None where it may be.

        Args:
            name: The field, for the error.
            value: What was given.

        Raises:
            ConfigError: It is none of them.
        """
        if self.words:
            if not isinstance(value, str) or value not in self.words:
                raise ConfigError(f"{name}: expected one of {', '.join(self.words)}, got {value!r}")
            return str(value)
        if value is None and self.optional:
            return None
        if self.exact is float:
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ConfigError(f"{name}: expected a number, got {value!r}")
            try:
                return float(value)
            except OverflowError:
                raise ConfigError(
                    f"{name}: expected a finite number, got a larger integer"
                ) from None
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ConfigError(f"{name}: expected an integer, got {value!r}")
        return int(value)


def kind_of(hint: Any) -> Kind:
    """The kind of a field of this annotation: words, an integer or a number, or None with one."""
    if get_origin(hint) is Literal:
        return Kind(str, get_args(hint), optional=False)
    kinds = get_args(hint) or (hint,)
    return Kind(float if float in kinds else int, (), optional=type(None) in kinds)


@dataclass(frozen=True)
class Rule:
    """A range: as an error says it, and whether a value is in it."""

    text: str
    holds: Callable[[Any], bool]


def _integer(low: int, high: int | None = None) -> Rule:
    if high is None:
        return Rule(f"an integer >= {low}", lambda v: v >= low)
    return Rule(f"an integer in {low} .. {high}", lambda v: low <= v <= high)


_POSITIVE = Rule("a finite number > 0", lambda v: math.isfinite(v) and v > 0)
_NOT_NEGATIVE = Rule("a finite number >= 0", lambda v: math.isfinite(v) and v >= 0)
_SHARE = Rule("a number in 0 .. 1", lambda v: 0 <= v <= 1)
_CORRELATION = Rule("a number in -1 .. 1", lambda v: -1 <= v <= 1)
_SEED = Rule("an integer in 0 .. 2^64 - 1", lambda v: 0 <= v <= MAX_SEED)

RANGES: Mapping[str, Rule] = MappingProxyType(
    {
        "n": _integer(2),
        "d": _integer(1, MAX_REDUCED_DIM),
        "d_b": _integer(1, MAX_REDUCED_DIM),
        "m": _integer(1),
        "q": _integer(1, MAX_POWER),
        "mu_norm": _NOT_NEGATIVE,
        "mu_b_norm": _NOT_NEGATIVE,
        "nu_norm": _NOT_NEGATIVE,
        "sigma_xi": _POSITIVE,
        "sigma_xi_b": _POSITIVE,
        "sigma_eps": _NOT_NEGATIVE,
        "sigma_0": _POSITIVE,
        "tau": _POSITIVE,
        "eta": _POSITIVE,
        "epochs": _integer(0, MAX_EPOCH),
        "n_test": _integer(1),
        "probe_samples": _integer(2),
        "probe_penalty": _POSITIVE,
        "negatives_per_sample": _integer(1),
        "momentum": Rule("a number in [0, 1)", lambda v: 0 <= v < 1),
        "batch_size": _integer(2),
        "weight_decay": _NOT_NEGATIVE,
        "seed": _SEED,
        "data_seed": _SEED,
        "init_seed": _SEED,
        "evaluate_every": _integer(0),
        "coefficients_every": _integer(0),
        "pair_noise": _SHARE,
        "eta_tau": _POSITIVE,
        "classes": _integer(2, MAX_CLASSES),
        "prior_exponent": _NOT_NEGATIVE,
        "spurious_norm": _NOT_NEGATIVE,
        "spurious_b_norm": _NOT_NEGATIVE,
        "spurious_correlation": _CORRELATION,
        "spurious_correlation_test": _CORRELATION,
        "label_noise": _SHARE,
        "view_scale": _NOT_NEGATIVE,
        "view_mask": Rule("a number in [0, 1)", lambda v: 0 <= v < 1),
        "mu_c_norm": _NOT_NEGATIVE,
        "d_c": _integer(1, MAX_REDUCED_DIM),
        "sigma_xi_c": _POSITIVE,
        "spurious_c_norm": _NOT_NEGATIVE,
    }
)


def check_range(name: str, value: Any) -> None:
    """Refuse a plain value that is out of its setting's range.

    Raises: ConfigError: naming the setting.
    """
    rule = RANGES[name]
    if value is not None and not rule.holds(value):
        raise ConfigError(f"{name}: expected {rule.text}, got {value!r}")
    if isinstance(value, int) and value > MAX_INTEGER and rule is not _SEED:
        raise ConfigError(f"{name}: expected an integer below 2^63, got {value!r}")


__all__ = ["RANGES", "Kind", "Rule", "check_range", "kind_of"]
