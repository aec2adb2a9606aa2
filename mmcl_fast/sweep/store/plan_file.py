"""A plan on disk: `plan.parquet`, one row per run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mmcl_fast.content_digest import damaged
from mmcl_fast.errors import ConfigError
from mmcl_fast.files import write_atomically
from mmcl_fast.sweep.plan.plan import MAX_RUNS, SCHEMA, Plan
from mmcl_fast.sweep.store.parquet_file import OpenParquet, open_parquet
from mmcl_fast.sweep.store.place import PLAN_FILE, require_plan
from mmcl_fast.sweep.store.plan_lock import plan_lock
from mmcl_fast.sweep.store.plan_rows import read_rows, write_rows

REMEDY = "take a copy, or the one that the same command writes to another --out"


@dataclass(frozen=True)
class Outline:
    """Identity of a plan's parts, without reading the runs: quick for 10^6 of them.

    Attributes:
        runs: Runs of the plan.
        dtype: See `Plan.dtype`.
        digests: Hash of each shard's runs.
        sizes: Number of each shard's runs.
        metric_names: Names of the own metrics.
        swept: Names of the swept settings.
        digest: See `Plan.digest`.
        most_epochs: Largest number of epochs of a run; None if the file does not state it.
        shard_of: See `Plan.shard_of`; None if it was not asked for.
    """

    runs: int
    dtype: str
    digests: tuple[str, ...]
    sizes: tuple[int, ...]
    metric_names: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    digest: str = ""
    most_epochs: int | None = None
    shard_of: npt.NDArray[np.int32] | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.sizes)

    def shard_size(self, shard: int) -> int:
        """Number of a shard's runs."""
        return self.sizes[shard]

    def shard_digest(self, shard: int) -> str:
        """Hash of a shard's runs."""
        return self.digests[shard]

    def runs_of(self, shard: int) -> npt.NDArray[np.int64] | None:
        """Ids of a shard's runs, in order; None without `shard_of`."""
        if self._by_shard is None:
            return None
        first = self._starts[shard]
        return self._by_shard[first : first + self.sizes[shard]]

    @cached_property
    def _by_shard(self) -> npt.NDArray[np.int64] | None:
        return None if self.shard_of is None else np.argsort(self.shard_of, kind="stable")

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.sizes)])


def write_plan(plan: Plan, store: Path, *, instead_of: str | None = None) -> bool:
    """Write a plan where there is none, or instead of the one that was read.

    Args:
        plan: The plan.
        store: Directory of the store.
        instead_of: Digest of the plan to replace; None: there must be none.

    Returns: False if the store has another plan meanwhile, which stays.
    Raises: OutputError: the plan cannot be written, or the present one cannot be read.
    """
    metadata = {
        "schema": SCHEMA,
        "digest": plan.digest,
        "axes": [[list(axis.names), [list(row) for row in axis.rows]] for axis in plan.axes],
        "dtype": plan.dtype,
        "metrics": [list(pair) for pair in plan.metrics],
        "recipe": None if plan.recipe is None else plan.recipe.to_dict(),
        "shard_digests": [plan.shard_digest(k) for k in range(plan.shards)],
        "shard_sizes": np.bincount(plan.shard_of).tolist(),
    }
    placed = False

    def put(temporary: Path, final: Path) -> None:
        nonlocal placed
        # The digest is compared and the file replaced in one step for all processes on all nodes.
        with plan_lock(store) as held:
            present = read_outline(store).digest if final.exists() else None
            if present == instead_of:
                held()
                temporary.replace(final)
                placed = True

    write_atomically(store / PLAN_FILE, lambda path: write_rows(plan, path, metadata), put=put)
    return placed


def read_plan(store: Path) -> Plan:
    """Read the plan of a store, whose content is compared with the digest in it.

    Raises: OutputError: the store has no plan. DamagedFileError: its content is not what was
        written. ConfigError: another format version.
    """
    path = require_plan(store)
    with open_parquet(path, REMEDY, whole=True) as file:
        metadata = _metadata(file)
        with file.rows() as rows:
            plan = read_rows(rows, metadata, has_digest=file.has_digest)
        if plan.digest != metadata["digest"]:
            raise damaged(path, "other runs than its hash says", REMEDY)
    return plan


def read_outline(store: Path, *, runs: bool = False) -> Outline:
    """Read the outline of a store's plan: the file's footer, compared with the digest in it.

    Args:
        store: Directory of the store.
        runs: Read which runs are in which shard as well, and compare all of the file.

    Raises: OutputError: the store has no plan. DamagedFileError: its content is not what was
        written. ConfigError: another format version.
    """
    with open_parquet(require_plan(store), REMEDY, whole=runs) as file:
        metadata = _metadata(file)
        if runs:
            table = file.read(["shard", "epochs"])
            shard_of = table["shard"].to_numpy()
            most_epochs: int | None = max(map(int, table["epochs"].unique().to_pylist()))
        else:
            # pyarrow (26) aborts the process where it describes a column of a damaged footer.
            shard_of = None
            most_epochs = _most_epochs(file.footer) if file.has_digest else None
        outline = Outline(
            file.footer.num_rows,
            str(metadata["dtype"]),
            tuple(map(str, metadata["shard_digests"])),
            tuple(map(int, metadata["shard_sizes"])),
            tuple(str(name) for name, _ in metadata.get("metrics", [])),
            tuple(str(name) for names, _ in metadata["axes"] for name in names),
            str(metadata["digest"]),
            most_epochs,
            shard_of,
        )
        _check_outline(outline)
    return outline


def _check_outline(outline: Outline) -> None:
    """Raise ValueError where an outline contradicts itself."""
    if outline.dtype not in ("float32", "float64"):
        raise ValueError(f"dtype {outline.dtype}")
    if sum(outline.sizes) != outline.runs or min(outline.sizes) < 1:
        raise ValueError(f"{outline.runs} runs in shards of {sum(outline.sizes)}")
    if len(outline.digests) != outline.shards:
        raise ValueError(f"{len(outline.digests)} digests of {outline.shards} shards")
    shard_of = outline.shard_of
    if shard_of is None:
        return
    if shard_of.dtype != np.int32 or shard_of.min() < 0 or shard_of.max() >= outline.shards:
        raise ValueError("shards that are none")
    if tuple(np.bincount(shard_of, minlength=outline.shards).tolist()) != outline.sizes:
        raise ValueError("shards of other sizes than it says")


def _metadata(file: OpenParquet) -> dict[str, Any]:
    """Our metadata of a plan, of this format and a possible size."""
    metadata = file.metadata()
    _check_schema(metadata["schema"])
    if not 0 < file.footer.num_rows <= MAX_RUNS:
        raise ValueError(f"{file.footer.num_rows} runs")
    return metadata


def _most_epochs(footer: pq.FileMetaData) -> int | None:
    """The largest number of epochs, from the statistics of its column."""
    column = footer.schema.to_arrow_schema().get_field_index("epochs")
    most = []
    for k in range(footer.num_row_groups):
        statistics = footer.row_group(k).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        most.append(int(statistics.max))
    return max(most)


def _check_schema(schema: object) -> None:
    if schema != SCHEMA:
        raise ConfigError(
            f"{PLAN_FILE}: expected a store of format {SCHEMA}, got {schema}; use another --out, "
            "or the version of mmcl-fast that wrote it"
        )


__all__ = ["PLAN_FILE", "Outline", "read_outline", "read_plan", "write_plan"]
