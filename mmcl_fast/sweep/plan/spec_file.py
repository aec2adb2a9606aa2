"""Reading a sweep from a TOML file, whose entries equal the flags of `mmcl sweep`.

seeds = 100
[base]
modality = "multi"
[grid]
m = [16, 64, 256]
snr = { linspace = [0.05, 0.5, 10] }
[zip]
n = [50, 100]
eta = [0.02, 0.01]
[metrics]
margin = "mmcl_fast.metrics:margin"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_presets import PRESETS
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import Value, axis_from_table
from mmcl_fast.sweep.plan.modalities import modality_of

TABLES = ("base", "grid", "zip", "metrics", "seeds", "first_seed", "preset")


@dataclass(frozen=True)
class Spec:
    """A sweep read from a file: axes, seeds, own metrics and the settings of everything else."""

    base: TrainConfig
    grid: dict[str, list[Value]] = field(default_factory=dict)
    zipped: dict[str, list[Value]] = field(default_factory=dict)
    seeds: int = 1
    first_seed: int | None = None
    metrics: dict[str, str] = field(default_factory=dict)


def read_spec(path: Path) -> Spec:
    """Read a sweep from a TOML file.

    Raises: ConfigError: the file cannot be read, or has an unknown entry.
    """
    import tomllib  # not needed by the other commands, all of which load this module

    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    # ValueError: not TOML, not UTF-8, or an integer of more digits than Python reads.
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"spec: expected a TOML file, got {str(path)!r} ({error})") from error
    for name in entries:
        if name not in TABLES:
            raise ConfigError(f"{path.name}: expected {', '.join(TABLES)}, got {name}")
    preset = entries.get("preset", "figure1")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    settings = _table(entries, "base")
    grid = {k: axis_from_table(k, v) for k, v in _table(entries, "grid").items()}
    if modality := modality_of(settings, grid):
        settings = {"modality": modality, **settings}
    return Spec(
        base=PRESETS[preset].replace(**settings),
        grid=grid,
        zipped={k: axis_from_table(k, v) for k, v in _table(entries, "zip").items()},
        seeds=_count(entries, "seeds", 1),
        first_seed=_count(entries, "first_seed", None),
        metrics=_metrics(entries),
    )


def _table(entries: dict[str, Any], name: str) -> dict[str, Any]:
    table = entries.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: expected a table [{name}], got {table!r}")
    return table


def _metrics(entries: dict[str, Any]) -> dict[str, str]:
    table = _table(entries, "metrics")
    for name, path in table.items():
        if not isinstance(path, str):
            raise ConfigError(f"metrics: expected {name} = 'module:function', got {path!r}")
    return table


def _count(entries: dict[str, Any], name: str, default: Any) -> Any:
    value = entries.get(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{name}: expected an integer, got {value!r}")
    return value


__all__ = ["Spec", "read_spec"]
