"""`to_xarray`: a store as a labelled cube, one dimension per axis of the sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.errors import BackendUnavailableError, DataError
from mmcl_fast.sweep.plan.axes import Value
from mmcl_fast.sweep.plan.plan import SEED_FIELDS, Plan
from mmcl_fast.sweep.store.axis_positions import reconstruct_combinations
from mmcl_fast.sweep.store.plan_file import read_outline, read_plan
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.sweep.store.schema import CURVES
from mmcl_fast.sweep.store.store import Store, part_info
from mmcl_fast.training.run_tables import settings_attributes

if TYPE_CHECKING:
    import xarray as xr


def to_xarray(store: str | Path, *, curves: bool = True) -> xr.Dataset:
    """Load every row computed so far as a cube.

    Args:
        store: Directory of the store.
        curves: Include the curves, with a dimension `epoch`; without them, far less memory is used.

    Returns: A dataset with one dimension per swept setting (settings that were zipped share one,
        named after the first, and the others are coordinates along it), `seed`, and `epoch`.
        Variables: loss, ood_accuracy, signal, noise, own metrics, their final_ values, status,
        diverged_at (-1: the run did not diverge). A cell not computed yet, or without a run in the
        plan, is NaN, with status "". A coordinate is NaN for a default value
        (`tau=none`). Attributes: settings that all runs share, and the versions of mmcl_fast and
        commits that computed rows.
    Raises: DataError: runs have different numbers of epochs, so curves have no common dimension;
        or several runs share a cell.
        BackendUnavailableError: xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise BackendUnavailableError(
            "to_xarray: expected the package xarray (pip install 'mmcl-fast[xarray]'), got none"
        ) from error
    named = (*CURVES, *read_outline(Path(store)).metric_names)
    scalars = ("status", "diverged_at", *(f"final_{name}" for name in named))
    table = load(store, ["run_id", *scalars, *(named if curves else ())])
    plan = read_plan(Path(store))  # after its rows, as another process may extend it
    seeds = np.unique(plan.seeds[:, 0])
    index, shape = _index(plan, seeds, table["run_id"].to_numpy())
    dims = [axis.names[0] for axis in plan.axes] + ["seed"]
    data: dict[str, Any] = {}
    for name in scalars:
        values, fill = _scalar(table, name)
        cube = np.full(shape, fill, dtype=values.dtype)
        cube[index] = values
        data[name] = (dims, cube)
    coords: dict[str, Any] = {"seed": seeds}
    for axis in plan.axes:
        for k, name in enumerate(axis.names):
            coords[name] = (axis.names[0], _labels([row[k] for row in axis.rows]))
    if curves:
        lengths = set(plan.points.values("epochs"))
        if len(lengths) > 1:
            raise DataError(
                f"epochs: expected one number of epochs for curves, got {sorted(lengths)}; take "
                "curves=False"
            )
        coords["epoch"] = np.arange(lengths.pop() + 1)
        for name in named:
            data[name] = (
                [*dims, "epoch"],
                _curves(table, name, shape, index, len(coords["epoch"])),
            )
    return xr.Dataset(data, coords, attrs=_attributes(Store(Path(store)), plan))


def _attributes(store: Store, plan: Plan) -> dict[str, Any]:
    """What is the same for all runs, and what computed them."""
    fixed = {
        name: plan.points.values(name)[0]
        for name in FIELD_NAMES
        if name not in SEED_FIELDS and len(plan.points.values(name)) == 1
    }
    made = [part_info(path, plan, whole=False).provenance for path in store.present().values()]
    versions = {str(x.get("environment", {}).get("mmcl_fast", "")) for x in made}
    commits = {str(x.get("commit") or "") for x in made}
    return settings_attributes(fixed) | {
        "mmcl_fast": ", ".join(sorted(versions - {""})),
        "commit": ", ".join(sorted(commits - {""})),
    }


def _index(
    plan: Plan, seeds: npt.NDArray[np.uint64], runs: npt.NDArray[np.int64]
) -> tuple[tuple[npt.NDArray[np.int64], ...], tuple[int, ...]]:
    """Cell of each run, one index array per dimension, and the shape of the cube."""
    combination_of = plan.combination_of
    if combination_of is None:
        combination_of = reconstruct_combinations(plan)
    shape = (*(len(axis.rows) for axis in plan.axes), len(seeds))
    cells = combination_of[runs] * len(seeds) + np.searchsorted(seeds, plan.seeds[runs, 0])
    if len(np.unique(cells)) < len(cells):
        raise DataError(
            "to_xarray: expected one run per combination and seed, got several; the plan's axes "
            "do not distinguish them: use load()"
        )
    return np.unravel_index(cells, shape), shape


def _labels(values: Sequence[Value]) -> list[Value]:
    """Values of a coordinate; None among numbers is NaN."""
    words = any(isinstance(v, str) for v in values)
    return list(values) if words else [math.nan if v is None else v for v in values]


def _scalar(table: pa.Table, name: str) -> tuple[npt.NDArray[Any], Any]:
    if name == "status":
        return np.array(table[name].to_pylist(), dtype="U8"), ""
    if name == "diverged_at":
        return table[name].fill_null(-1).to_numpy(), -1
    return table[name].to_numpy(), np.nan


def _curves(
    table: pa.Table,
    name: str,
    shape: tuple[int, ...],
    index: tuple[npt.NDArray[np.int64], ...],
    epochs: int,
) -> npt.NDArray[np.floating]:
    column = table[name].combine_chunks()
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.drop_null().flatten().to_numpy()
    cube = np.full((*shape, epochs), np.nan, dtype=values.dtype)
    cube[tuple(k[valid] for k in index)] = values.reshape(-1, epochs)
    return cube


__all__ = ["to_xarray"]
