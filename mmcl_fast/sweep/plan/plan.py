"""`Plan`: the explicit list of a sweep's runs, with a hash and a fixed partition into shards."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import Axis, Values, make_axes
from mmcl_fast.sweep.plan.metric_paths import Paths, metric_paths
from mmcl_fast.sweep.plan.modalities import joined
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.point_table import FIRST_FIELDS, Points
from mmcl_fast.sweep.plan.points import axis_codes, resolve_points
from mmcl_fast.sweep.plan.shards import cut

SCHEMA = 1
"""Version of the store's format; another one is refused."""
SHOWN = 8  # values of an axis in a description
MAX_RUNS = 10**7  # 2 GiB while they are planned
SEED_FIELDS = ("seed", "data_seed", "init_seed")


@dataclass(frozen=True)
class Recipe:
    """What a plan was made from, beside its axes and metrics.

    Attributes:
        base: Settings that no axis sets, not resolved.
        seeds: Number of seeds.
        first_seed: The first of them.
    """

    base: TrainConfig
    seeds: int
    first_seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"base": self.base.to_dict(), "seeds": self.seeds, "first_seed": self.first_seed}

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Recipe | None:
        """From `to_dict`; None of a plan file of version 0.1.0."""
        if stored is None:
            return None
        return cls(TrainConfig(**stored["base"]), stored["seeds"], stored["first_seed"])


@dataclass(frozen=True, eq=False, repr=False)  # arrays have no single truth value; compare digests
class Plan:
    """The runs of a sweep. Run k has the settings `points[point_of[k]]` and the seeds `seeds[k]`.

    Attributes:
        points: Settings, resolved, each with all seeds 0.
        point_of: Index of each run's settings, [runs].
        seeds: seed, data_seed and init_seed of each run, [runs, 3].
        shard_of: The shard that computes each run, [runs].
        axes: The swept settings; an extended plan has those of the extension.
        numerics: Identity of the arithmetic of each point (`numerics.py`), [points].
        combination_of: Index of each run's combination of axis values, the last axis fastest,
            [runs]; None in a plan file of version 0.1.0.
        metrics: Name and import path of each own metric, sorted.
        recipe: What it was made from; None in a plan file of version 0.1.0.
    """

    points: Points
    point_of: npt.NDArray[np.int32]
    seeds: npt.NDArray[np.uint64]
    shard_of: npt.NDArray[np.int32]
    axes: tuple[Axis, ...]
    numerics: tuple[str, ...]
    combination_of: npt.NDArray[np.int64] | None
    metrics: Paths = ()
    recipe: Recipe | None = None

    def __repr__(self) -> str:
        return f"Plan({self.described})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(shown_values(values))}</td></tr>"
            for axis in self.axes
            for name, values in zip(axis.names, zip(*axis.rows, strict=True), strict=True)
        )
        return f"<table><caption>{html.escape(self.described)}</caption>{rows}</table>"

    @property
    def described(self) -> str:
        """Runs, axes, shards and engines in a line."""
        axes = " x ".join(f"{'+'.join(axis.names)} {len(axis.rows)}" for axis in self.axes)
        engines = ", ".join(sorted(self.points.values("engine")))
        seeds = len(np.unique(self.seeds[:, 0]))
        return (
            f"{len(self)} runs: {axes or 'one setting'} x {seeds} seeds; {self.shards} shards, "
            f"engine {engines}"
        )

    def __len__(self) -> int:
        return len(self.point_of)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._shard_sizes)

    @cached_property
    def digest(self) -> str:
        """Hash of everything the results depend on: equal digests, equal rows."""
        texts = self.points.texts(self.numerics)
        return _digest(texts, self.metrics, self.point_of, self.seeds, self.shard_of)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the own metrics."""
        return tuple(name for name, _ in self.metrics)

    @property
    def dtype(self) -> str:
        """Floating-point type of the store's curves: float64 if any run has it."""
        return "float64" if "float64" in self.points.values("dtype") else "float32"

    @cached_property
    def most_epochs(self) -> int:
        """Largest number of epochs of a run."""
        return int(max(self.points.values("epochs")))

    def runs_of(self, shard: int) -> npt.NDArray[np.int64]:
        """Ids of a shard's runs, in order."""
        # Keys of another type would convert the whole array, in every call.
        keys = np.array([shard, shard + 1], self._sorted_shards.dtype)
        first, last = np.searchsorted(self._sorted_shards, keys)
        return np.sort(self._by_shard[first:last])

    def shard_size(self, shard: int) -> int:
        """Number of a shard's runs."""
        return int(self._shard_sizes[shard])

    def shard_digest(self, shard: int) -> str:
        """Hash of a shard's runs, equal in every plan that contains the shard."""
        runs = self.runs_of(shard)
        used, index = np.unique(self.point_of[runs], return_inverse=True)
        texts = self.points.texts(self.numerics, used)
        return _digest(texts, self.metrics, index.astype(np.int32), self.seeds[runs], runs)

    def config(self, run: int) -> TrainConfig:
        """Settings of one run."""
        return self.configs([run])[0]

    def configs(self, runs: Sequence[int] | npt.NDArray[np.int64]) -> list[TrainConfig]:
        """Settings of some runs."""
        index = np.asarray(runs, np.int64)
        used, place = np.unique(self.point_of[index], return_inverse=True)
        points = self.points.configs(used)
        return [
            points[k].replace(**dict(zip(SEED_FIELDS, seeds, strict=True)))
            for k, seeds in zip(place.tolist(), self.seeds[index].tolist(), strict=True)
        ]

    @cached_property
    def _shard_sizes(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.shard_of)

    @cached_property
    def _by_shard(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.shard_of, kind="stable")

    @cached_property
    def _sorted_shards(self) -> npt.NDArray[np.int32]:
        return self.shard_of[self._by_shard]


def shown_values(values: Sequence[object]) -> str:
    """Values of an axis, the middle of a long one left out."""
    texts = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
    shown = texts if len(texts) <= SHOWN else [*texts[: SHOWN - 2], "...", texts[-1]]
    return ", ".join(shown)


def make_plan(
    base: TrainConfig,
    *,
    grid: Mapping[str, Values] | None = None,
    zipped: Mapping[str, Values] | None = None,
    seeds: int = 1,
    first_seed: int | None = None,
    metrics: Mapping[str, str | Callable[..., Any]] | None = None,
) -> Plan:
    """Plan every run of a grid of settings times seeds, resolved and validated before any work.

    Args:
        base: Settings that no axis sets.
        grid: Values by setting; every combination is run. Names: fields of `TrainConfig`; snr and
            n_snr2 = n SNR^2 (set mu_norm), c_mu = |mu~| / |mu| (sets mu_b_norm),
            noise_rate = eta sigma_xi^2 d / (n m tau) (sets eta), noise_start = sigma_0 sigma_xi
            sqrt(d) (sets sigma_0). `modality="both"` is both modalities; a setting that one of them
            alone has, such as spurious_b_norm, then keeps its default in runs of the other.
        zipped: Values by setting, varied jointly: lists of one length.
        seeds: Number of seeds, >= 1; every combination is run with the same seeds.
        first_seed: The first seed; default: base.seed.
        metrics: Further curves by name: functions as for `train`, or their import paths
            "module:function". Workers import them, so a function of a script is refused.

    Returns: The plan; run ids count combinations in the order of the axes, seeds fastest.
    Raises: ConfigError, EngineRefusedError: a setting is unknown, out of range, or cannot be
        trained exactly; the message names the combination.
    """
    paths = metric_paths(metrics)
    chosen = _chosen(seeds, base.seed if first_seed is None else first_seed)
    axes = joined(base, make_axes(grid or {}, zipped or {}))
    if any("seed" in axis.names for axis in axes):
        raise ConfigError("seed: expected seeds and first_seed instead of an axis, got one")
    for axis in axes:
        for name, values in zip(axis.names, zip(*axis.rows, strict=True), strict=True):
            if name in SEED_FIELDS:
                for value in values:
                    base.replace(**{name: value})  # raises on an invalid seed
    count = math.prod(len(axis.rows) for axis in axes)
    if count * seeds > MAX_RUNS:
        raise ConfigError(
            f"grid: expected at most {MAX_RUNS} runs, got {count} combinations x {seeds} seeds"
        )
    table = np.empty((count, seeds, 3), np.uint64)
    table[:, :, 0] = chosen
    by_name = [_seeds_of(name, getattr(base, name), axes, chosen) for name in SEED_FIELDS[1:]]
    for column, given in enumerate(by_name, start=1):
        table[:, :, column] = given
    bare = base.replace(**dict.fromkeys(SEED_FIELDS, 0))
    points, point_of_combination = resolve_points(bare, axes)
    point_of = np.repeat(point_of_combination, seeds)
    combination_of = np.repeat(np.arange(count), seeds)
    follows_seed = any(np.array_equal(given, chosen[None]) for given in by_name)
    if len(points) < count or not follows_seed:  # otherwise all differ; a sort of 10^7 takes long
        _check_different(point_of, table.reshape(-1, 3))
    plan = assemble(points, point_of, table.reshape(-1, 3), axes, combination_of, paths)
    return replace(plan, recipe=Recipe(base, int(seeds), int(chosen[0])))


def _seeds_of(
    name: str, default: int | None, axes: Sequence[Axis], chosen: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Seeds `name` of each combination and seed, [combinations or 1, seeds]."""
    for axis, codes in zip(axes, axis_codes(axes), strict=True):
        if name in axis.names:
            values = [row[axis.names.index(name)] for row in axis.rows]
            rows = [chosen if v is None else np.full_like(chosen, v) for v in values]
            return np.stack(rows)[codes]
    return chosen[None] if default is None else np.full_like(chosen, default)[None]


def _chosen(seeds: int, first: int) -> npt.NDArray[np.uint64]:
    """The seeds of every combination."""
    for name, value, least in (("seeds", seeds, 1), ("first_seed", first, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(f"{name}: expected an integer >= {least}, got {value!r}")
    if seeds > MAX_RUNS:
        raise ConfigError(f"seeds: expected at most {MAX_RUNS}, got {seeds}")
    TrainConfig(seed=int(first) + int(seeds) - 1)  # raises beyond 2^64 - 1
    return np.arange(seeds, dtype=np.uint64) + np.uint64(first)


def _check_different(point_of: npt.NDArray[np.int32], seeds: npt.NDArray[np.uint64]) -> None:
    """Raise ConfigError where a run occurs twice."""
    order = np.lexsort((seeds[:, 2], seeds[:, 1], point_of))
    keys = np.column_stack([point_of.astype(np.uint64), seeds[:, 1:]])[order]
    same = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1))
    if len(same):
        one, two = sorted(order[same[0] : same[0] + 2].tolist())
        raise ConfigError(
            f"grid: expected different runs, got equal settings, data_seed and init_seed in runs "
            f"{one} and {two} (of {len(same) + 1} or more)"
        )


def assemble(
    points: Points,
    point_of: npt.NDArray[np.int32],
    seeds: npt.NDArray[np.uint64],
    axes: tuple[Axis, ...],
    combination_of: npt.NDArray[np.int64],
    metrics: Paths = (),
) -> Plan:
    """A plan of different runs, partitioned into shards."""
    measured = points.mapped(partial(numerics_of, measures=bool(metrics)), ("engine", "device"))
    numerics = tuple(map(measured.values.__getitem__, measured.codes.tolist()))
    shard_of = cut(points, point_of, metrics=len(metrics))
    return Plan(points, point_of, seeds, shard_of, axes, numerics, combination_of, metrics)


def _digest(texts: Iterable[str], metrics: Paths, *arrays: npt.NDArray[np.generic]) -> str:
    """Hash of lines (the format, the fields, each point, each metric), then of the arrays."""
    digest = hashlib.sha256("\n".join([f"{SCHEMA}", *FIRST_FIELDS, ""]).encode())
    for piece in texts:
        digest.update(piece.encode())
    for name, path in metrics:
        digest.update(f"\nmetric {name} {path}".encode())
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


__all__ = ["SCHEMA", "SEED_FIELDS", "Plan", "Recipe", "assemble", "make_plan"]
