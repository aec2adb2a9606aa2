"""Axes of a sweep: parsing `m=16,64` or `snr=linspace(0.01, 1, 20)` into values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import get_args, get_type_hints

from mmcl_fast.config import FIELD_NAMES, TrainConfig, plain_value, unknown_setting
from mmcl_fast.derived import DERIVED
from mmcl_fast.errors import ConfigError

Value = int | float | str | None
Values = Sequence[Value] | Value
BOTH = ("single", "multi")
INTEGERS = frozenset(
    name
    for name, hint in get_type_hints(TrainConfig).items()
    if int in (get_args(hint) or (hint,)) and float not in get_args(hint)
)
MAX_VALUES = 10**6
EXACT = 2**53  # every integer up to here is a float64


@dataclass(frozen=True)
class Axis:
    """One dimension of a sweep: settings that vary jointly.

    Attributes:
        names: Settings or derived names; more than one where they are zipped.
        rows: Their values, one tuple per position.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def make_axes(grid: Mapping[str, Values], zipped: Mapping[str, Values]) -> tuple[Axis, ...]:
    """One axis per entry of the grid, and one of all zipped entries.

    Raises: ConfigError: an unknown name (with the nearest valid one), no values, equal values,
        two names that set the same setting, or zipped lists of different lengths.
    """
    names = [*grid, *zipped]
    for name in names:
        _check_name(name)
    targets = [DERIVED.get(name, name) for name in names]
    for k, target in enumerate(targets):
        if target in targets[:k]:
            other = names[targets.index(target)]
            raise ConfigError(f"{names[k]}: expected one axis that sets {target}, got {other} too")
    axes = []
    for name, given in grid.items():
        values = _checked(name, given)
        if len(set(values)) < len(values):
            twice = next(v for v in values if values.count(v) > 1)
            raise ConfigError(f"{name}: expected different values, got {twice!r} twice")
        axes.append(Axis((name,), tuple((v,) for v in values)))
    if len(zipped) == 1:
        (name,) = zipped
        raise ConfigError(f"zip: expected two axes or more that vary jointly, got {name} alone")
    if zipped:
        columns = {name: _checked(name, given) for name, given in zipped.items()}
        if len({len(values) for values in columns.values()}) > 1:
            lengths = ", ".join(f"{name} of {len(values)}" for name, values in columns.items())
            raise ConfigError(f"zip: expected lists of one length, got {lengths}")
        axes.append(Axis(tuple(zipped), tuple(zip(*columns.values(), strict=True))))
    return tuple(axes)


def parse_axis(text: str, also: Sequence[str] = ()) -> tuple[str, list[Value]]:
    """An axis as written on a command line: `name=values`.

    Values are a list `16,64,256`, or a range in NumPy's terms: `linspace(0.1, 1, 10)`,
    `geomspace(1, 1000, 4)` (from end to end), `logspace(0, 3, 4)` (exponents of ten). Ranges of an
    integer setting are rounded. `none` is the setting's default; `modality=both` is both.

    Args:
        text: The axis.
        also: Names that are accepted beside settings and derived quantities.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name or not values:
        raise ConfigError(f"grid: expected name=value,value,..., got {text!r}")
    if name not in also:
        _check_name(name)
    if call := re.fullmatch(r"(\w+)\((.*)\)", values):
        arguments = [_number(name, part) for part in call[2].split(",")]
        return name, range_values(name, call[1], arguments)
    return name, [_nothing_or(name, _value(part)) for part in values.split(",")]


def axis_from_table(name: str, entry: object) -> list[Value]:
    """An axis as written in a TOML file: a list, one value, or `{ linspace = [a, b, count] }`."""
    _check_name(name)
    if isinstance(entry, Mapping):
        if len(entry) != 1 or not all(isinstance(v, list) for v in entry.values()):
            raise ConfigError(f"{name}: expected one range {{ linspace = [a, b, count] }}")
        ((kind, arguments),) = entry.items()
        return range_values(name, kind, [_number(name, str(x)) for x in arguments])
    values: list[Value] = entry if isinstance(entry, list) else [entry]  # type: ignore[list-item]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ConfigError(f"{name}: expected numbers or words, got {value!r}")
    return [_nothing_or(name, v) for v in values]


def range_values(name: str, kind: str, arguments: Sequence[float]) -> list[Value]:
    """Values of a range; for an integer setting, rounded and without repetition."""
    if kind not in RANGE_KINDS:
        raise ConfigError(f"{name}: expected one of {', '.join(RANGE_KINDS)}, got {kind}")
    if (
        len(arguments) != 3
        or not all(map(math.isfinite, arguments))
        or not arguments[2].is_integer()
    ):
        raise ConfigError(f"{name}: expected {kind}(first, last, count), got {list(arguments)}")
    first, last, count = arguments[0], arguments[1], int(arguments[2])
    if not 1 <= count <= MAX_VALUES:
        raise ConfigError(f"{name}: expected a range of 1 .. {MAX_VALUES} values, got {count}")
    if kind == "geomspace" and not (first > 0 and last > 0):
        raise ConfigError(f"{name}: expected geomspace between numbers > 0, got {first}, {last}")
    fractions = [k / (count - 1) if count > 1 else 0.0 for k in range(count)]
    try:
        values = [RANGE_KINDS[kind](first, last, f) for f in fractions]
    except OverflowError:
        raise ConfigError(f"{name}: expected a range of finite numbers, got {kind}") from None
    if kind != "logspace":
        values[0] = first
        values[-1] = last if count > 1 else first
    if name not in INTEGERS:
        return list(values)
    if max(map(abs, values)) > EXACT:
        raise ConfigError(f"{name}: expected a range below 2^53; list larger integers one by one")
    return list(dict.fromkeys(round(v) for v in values))


# NumPy's functions round otherwise, and its powers by instruction set, so that a stored plan would
# be refused as another one.
RANGE_KINDS: Mapping[str, Callable[[float, float, float], float]] = {
    "linspace": lambda a, b, f: a + (b - a) * f,
    # By powers of ten, so 1, 10, 100 are exact.
    "geomspace": lambda a, b, f: 10.0 ** (math.log10(a) + (math.log10(b) - math.log10(a)) * f),
    "logspace": lambda a, b, f: 10.0 ** (a + (b - a) * f),
}


def _checked(name: str, given: Values) -> list[Value]:
    """Values in the type of their setting; `both` gives both modalities; a scalar, one value."""
    if given is None or isinstance(given, str | Real):
        values: list[Value] = [given]
    elif isinstance(given, Iterable):
        values = list(given)
    else:
        raise ConfigError(f"{name}: expected a list of values, got {given!r}")
    if not values:
        raise ConfigError(f"{name}: expected at least one value, got none")
    if name == "modality" and values == ["both"]:
        return list(BOTH)
    return [_plain(name, value) for value in values]


def _plain(name: str, value: Value) -> Value:
    if name in DERIVED:
        if not (value is None or isinstance(value, str | bool)):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and number >= 0:
                return number
        raise ConfigError(f"{name}: expected a finite number >= 0, got {value!r}")
    if name in INTEGERS and isinstance(value, float) and value.is_integer():
        return int(value)
    return plain_value(name, value)


def _check_name(name: str) -> None:
    if name not in FIELD_NAMES and name not in DERIVED:
        raise ConfigError(unknown_setting(name, tuple(DERIVED)))


def _nothing_or(name: str, value: Value) -> Value:
    """None for the word none, unless it is one of the setting's own words."""
    if value != "none":
        return value
    try:
        return plain_value(name, value) if name in FIELD_NAMES else None
    except ConfigError:
        return None


def _value(text: str) -> Value:
    text = text.strip()
    if not text:
        raise ConfigError("grid: expected a value between commas, got none")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a number, got {text.strip()!r}") from None


__all__ = [
    "Axis",
    "Value",
    "Values",
    "axis_from_table",
    "make_axes",
    "parse_axis",
    "range_values",
]
