"""Checks of a command line that need no torch, made before any command is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl_fast.derived import DERIVED
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import Value, parse_axis

CHECKPOINT = "checkpoint.safetensors"
"""File of `mmcl train`, in its directory, while it trains."""


def at_least(least: int, **values: int | None) -> None:
    """Raise ConfigError for a number below its least value; None is a default."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ConfigError(f"{name}: expected an integer >= {least}, got {value}")


def parse_axes(kind: str, texts: Sequence[str]) -> dict[str, list[Value]]:
    """The axes of repeated flags --grid, --zip or --add."""
    axes: dict[str, list[Value]] = {}
    for text in texts:
        name, values = parse_axis(text, also=("seeds",) if kind == "add" else ())
        if name in axes:
            raise ConfigError(f"{kind}: expected {name} once, got it twice")
        axes[name] = values
    return axes


def parse_shard(text: str) -> tuple[int, int]:
    """`i/N` as (i, N)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"shard: expected i/N, such as 3/10, got {text!r}")
    return int(index), int(count)


def check_axes_against_flags(axes: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting given twice: by an axis and by a flag of its own.

    Args:
        axes: Names of the axes.
        given: Values of the typed flags.
    """
    for name in axes:
        target = DERIVED.get(name, name)
        if target in given:
            axis = name if name == target else f"{name} (which sets it)"
            flag = f"--{target.replace('_', '-')}"
            raise ConfigError(f"{target}: expected one value or an axis of {axis}, got {flag} too")


def check_file_to_append(flag: str, path: Path | None) -> None:
    """Raise ConfigError for a path that is a directory, or below a file."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{flag}: expected a file, got the directory {str(path)!r}")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise ConfigError(f"{flag}: expected a file in a directory, got {str(path)!r}")
            return


__all__ = [
    "CHECKPOINT",
    "at_least",
    "check_axes_against_flags",
    "check_file_to_append",
    "parse_axes",
    "parse_shard",
]
