"""`load`: the rows of a store as one table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmcl_fast.errors import ConfigError
from mmcl_fast.names import suggestion
from mmcl_fast.sweep.store.parquet_file import open_parquet
from mmcl_fast.sweep.store.part_checks import check_rows, check_types
from mmcl_fast.sweep.store.plan_file import read_outline
from mmcl_fast.sweep.store.schema import part_schema, with_later_columns
from mmcl_fast.sweep.store.store import PART_REMEDY, Store, checked_info

READERS = 4
AHEAD = 2 * READERS


def load(store: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Load every row computed so far, sorted by run_id.

    Args:
        store: Directory of the store.
        columns: Names of the columns; default: all. Without the curves (loss, ood_accuracy,
            signal, noise) a million rows take a fraction of a second.

    Every file is compared with the digest in it, whichever columns are read; run ids, statuses and
    types are compared with the plan.

    Returns: One row a run: run_id, every setting of `TrainConfig` (resolved), snr, n_snr2, c_mu,
        noise_rate, noise_start, status, diverged_at, error, final_loss, final_ood_accuracy,
        final_signal, final_noise, the curves as lists (index = epoch, NaN where not evaluated), own
        metrics likewise (final_... and the curve), and computed_on. Rows not computed yet are
        absent.
    Raises: OutputError: no store, or a part (which is named) is of another plan. DamagedFileError:
        the content of a file (which is named) is not what was written.
        ConfigError: an unknown column; the message has the nearest one.
    """
    schema, tables = read_parts(store, columns)
    whole = pa.concat_tables([schema.empty_table(), *tables])
    runs = whole["run_id"].to_numpy()
    if (np.diff(runs) < 0).any():
        whole = whole.take(np.argsort(runs, kind="stable"))
    return whole.select(list(schema.names if columns is None else columns))


def read_parts(
    store: str | Path, columns: Sequence[str] | None = None
) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Rows of a store part by part, so that a store larger than memory can be read.

    Args:
        store: Directory of the store.
        columns: As for `load`; run_id is always read.

    Returns: The columns read, and each part's rows, in the order of the shards; parts are read
        ahead by threads.
    Raises: As `load`.
    """
    folder = Store(Path(store))
    paths = list(folder.present().values())  # before the plan, which another process may extend
    plan = read_outline(folder.path, runs=True)
    schema = part_schema(plan.dtype, plan.metric_names)
    requested = list(schema.names if columns is None else columns)
    for name in requested:
        check_column(name, schema.names)
    selected = pa.schema([schema.field(name) for name in dict.fromkeys([*requested, "run_id"])])

    def one(path: Path) -> pa.Table:
        with open_parquet(path, PART_REMEDY, whole=True) as file:
            info = checked_info(path, plan, file)
            part = file.read(selected.names)
            part = with_later_columns(part, selected.names).select(selected.names)
            check_types(part.schema, selected)
            check_rows(part, info.shard, info.counts, plan)
            return part.cast(selected)

    return selected, _in_order(one, paths)


def _in_order(one: Callable[[Path], pa.Table], paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Each part's table, at most `AHEAD` of them read and not yet asked for."""
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[pa.Table]] = deque()
        for path in paths:
            waiting.append(readers.submit(one, path))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_column(name: str, known: Sequence[str]) -> None:
    """Raise ConfigError for an unknown column, naming the nearest ones."""
    if name not in known:
        hint = suggestion(name, known, "help(mmcl_fast.sweep.load) lists all")
        raise ConfigError(f"{name}: unknown column; {hint}")


__all__ = ["check_column", "load", "read_parts"]
