"""`Plan`: every run of a sweep, written out, with a content hash and a fixed cut into shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.axes import Axis, Value, make_axes
from mmcl_fast.sweep.numerics import numerics_of
from mmcl_fast.sweep.points import expand, settle
from mmcl_fast.sweep.sharding import cut

SCHEMA = 1
"""Version of the store's format; another one is refused."""
MAX_RUNS = 10**8
SEED_FIELDS = ("seed", "data_seed", "init_seed")


@dataclass(frozen=True, eq=False)  # arrays have no single truth value; compare digests
class Plan:
    """The runs of a sweep. Run k has the settings `points[point_of[k]]` and its own seeds.

    Attributes:
        points: Settings, resolved, each with all seeds 0.
        point_of: Index of each run's settings, [runs].
        seeds: seed, data_seed and init_seed of each run, [runs, 3].
        shard_of: The shard that computes each run, [runs].
        axes: What was swept, for cubes and messages; an extended plan has those of all parts.
        numerics: What decides the bits of each point's results (`numerics.py`), [points].
    """

    points: tuple[TrainConfig, ...]
    point_of: npt.NDArray[np.int32]
    seeds: npt.NDArray[np.uint64]
    shard_of: npt.NDArray[np.int32]
    axes: tuple[Axis, ...]
    numerics: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.point_of)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return int(self.shard_of.max()) + 1

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides the results: equal plans have equal rows."""
        return _digest(self._lines, self.point_of, self.seeds, self.shard_of)

    def runs_of(self, shard: int) -> npt.NDArray[np.int64]:
        """Ids of a shard's runs, in order."""
        first, last = np.searchsorted(self._sorted_shards, [shard, shard + 1])
        return np.sort(self._by_shard[first:last])

    def shard_digest(self, shard: int) -> str:
        """Hash of a shard's runs, the same in every plan that has this shard."""
        runs = self.runs_of(shard)
        used, index = np.unique(self.point_of[runs], return_inverse=True)
        lines = [self._lines[k] for k in used]
        return _digest(lines, index.astype(np.int32), self.seeds[runs], runs)

    def config(self, run: int) -> TrainConfig:
        """Settings of one run."""
        return self.configs([run])[0]

    def configs(self, runs: Sequence[int] | npt.NDArray[np.int64]) -> list[TrainConfig]:
        """Settings of some runs."""
        return [
            self.points[self.point_of[k]].replace(
                **dict(zip(SEED_FIELDS, map(int, self.seeds[k]), strict=True))
            )
            for k in runs
        ]

    @cached_property
    def _lines(self) -> list[str]:
        """Each point's settings as text, and what decides their bits."""
        return [
            json.dumps([cfg.to_dict(), how], sort_keys=True)
            for cfg, how in zip(self.points, self.numerics, strict=True)
        ]

    @cached_property
    def _by_shard(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.shard_of, kind="stable")

    @cached_property
    def _sorted_shards(self) -> npt.NDArray[np.int32]:
        return self.shard_of[self._by_shard]


def make_plan(
    base: TrainConfig,
    *,
    grid: Mapping[str, Sequence[Value]] | None = None,
    zipped: Mapping[str, Sequence[Value]] | None = None,
    seeds: int = 1,
    first_seed: int | None = None,
) -> Plan:
    """Every run of a grid of settings times seeds, resolved and validated before any work.

    Args:
        base: Settings of everything that is not swept.
        grid: Values by setting; every combination is run. Names: fields of `TrainConfig`; snr and
            n_snr2 = n SNR^2 (set mu_norm), c_mu = |mu~| / |mu| (sets mu_b_norm),
            noise_rate = eta sigma_xi^2 d / (n m tau) (sets eta), noise_start = sigma_0 sigma_xi
            sqrt(d) (sets sigma_0). `modality="both"` is both modalities.
        zipped: The same, but moving together: lists of one length.
        seeds: Number of seeds of each combination, >= 1; the same seeds for every combination.
        first_seed: The first of them; default: base.seed.

    Returns: The plan; run ids count combinations in the order of the axes, seeds fastest.
    Raises: ConfigError, EngineRefusedError: a setting is unknown, out of range, or cannot be
        trained exactly; the message names the combination.
    """
    if seeds < 1:
        raise ConfigError(f"seeds: expected an integer >= 1, got {seeds}")
    axes = make_axes(grid or {}, zipped or {})
    if any("seed" in axis.names for axis in axes):
        raise ConfigError("seed: expected seeds and first_seed instead of an axis, got one")
    device = _device(base)
    combinations = expand(axes)
    if len(combinations) * seeds > MAX_RUNS:
        raise ConfigError(
            f"grid: expected at most {MAX_RUNS} runs, got {len(combinations)} x {seeds} seeds"
        )
    first = base.seed if first_seed is None else first_seed
    points: dict[TrainConfig, int] = {}
    point_of = np.empty((len(combinations), seeds), np.int32)
    table = np.empty((len(combinations), seeds, 3), np.uint64)
    chosen = np.arange(seeds, dtype=np.uint64) + np.uint64(first)
    for k, combination in enumerate(combinations):
        cfg = settle(base, combination, device)
        table[k, :, 0] = chosen
        table[k, :, 1] = chosen if cfg.data_seed is None else cfg.data_seed
        table[k, :, 2] = chosen if cfg.init_seed is None else cfg.init_seed
        bare = cfg.replace(seed=0, data_seed=0, init_seed=0)
        point_of[k] = points.setdefault(bare, len(points))
    base.replace(seed=first + seeds - 1)  # refuses seeds beyond 2^64
    return assemble(tuple(points), point_of.reshape(-1), table.reshape(-1, 3), axes)


def assemble(
    points: tuple[TrainConfig, ...],
    point_of: npt.NDArray[np.int32],
    seeds: npt.NDArray[np.uint64],
    axes: tuple[Axis, ...],
) -> Plan:
    """A plan of runs, cut into shards.

    Raises: ConfigError: the same run twice.
    """
    keys = np.column_stack([point_of.astype(np.uint64), seeds[:, 1:]])
    if len(np.unique(keys, axis=0)) < len(keys):
        raise ConfigError("grid: expected different runs, got two with equal settings and seeds")
    numerics = tuple(map(numerics_of, points))
    return Plan(points, point_of, seeds, cut(points, point_of), axes, numerics)


def without_numerics(plan: Plan) -> Plan:
    """The plan with nothing said about machines, to compare what is to be computed."""
    return replace(plan, numerics=("",) * len(plan.points))


def _device(base: TrainConfig) -> str:
    """Where `auto` trains here; a plan names it, so that resuming elsewhere is noticed."""
    if base.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: expected cpu (no CUDA device is usable here), got cuda")
    if base.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return base.device


def _digest(lines: Sequence[str], *arrays: npt.NDArray[np.generic]) -> str:
    found = hashlib.sha256(json.dumps([SCHEMA, *lines]).encode())
    for array in arrays:
        found.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


__all__ = ["SCHEMA", "SEED_FIELDS", "Plan", "assemble", "make_plan", "without_numerics"]
