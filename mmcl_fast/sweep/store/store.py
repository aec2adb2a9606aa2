"""A store on disk: the plan, and one immutable Parquet part per shard.

    STORE/plan.parquet                every run (`plan_file.py`)
    STORE/parts/part-000012.parquet   rows of shard 12: whole, or not there
    STORE/failures/run-34.txt         traceback of a run that raised
    STORE/quarantine/shard-12.json    a shard whose workers kept dying

A part is written under a temporary name, synchronised and renamed, so any number of processes may
compute the same shard: its name and its rows are the same. State is nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.errors import OutputError
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.sweep.plan.plan import SCHEMA, Plan
from mmcl_fast.sweep.store.plan_file import KEY, Outline
from mmcl_fast.sweep.store.schema import CURVES, Rows

STALE_SECONDS = 24 * 3600.0  # a temporary file this old has no living writer


@dataclass(frozen=True)
class PartInfo:
    """What a part says of itself.

    Attributes:
        shard: Its shard.
        digest: Hash of the runs in it (`Plan.shard_digest`).
        runs: Rows.
        counts: Rows by status.
        seconds: Time spent training.
        finished: When it was written, seconds since 1970.
        attempt: How many workers were given this shard, this one included.
        provenance: Everything else: versions, machine, engine.
    """

    shard: int
    digest: str
    runs: int
    counts: dict[str, int]
    seconds: float
    finished: float
    attempt: int
    provenance: dict[str, Any]


class Store:
    """The directory of a sweep.

    Args:
        path: Where it is or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"
        self.failures = path / "failures"
        self.quarantine = path / "quarantine"

    def prepare(self) -> None:
        """Make the directories, and remove what dead writers left behind."""
        for folder in (self.path, self.parts):
            prepare_directory(folder)
        horizon = time.time() - STALE_SECONDS
        for leftover in [*self.path.glob(".*plan.*parquet"), *self.parts.glob(".part-*")]:
            # Other processes write and rename theirs meanwhile.
            with suppress(FileNotFoundError):
                if leftover.stat().st_mtime < horizon:
                    leftover.unlink()

    def part(self, shard: int) -> Path:
        """File of a shard's rows."""
        return self.parts / f"part-{shard:06d}.parquet"

    def listing(self) -> tuple[dict[int, Path], list[Path]]:
        """Files among the parts: those named as parts, by shard, and all others."""
        found, others = {}, []
        for path in sorted(self.parts.glob("[!.]*")):
            number = re.fullmatch(r"part-([0-9]{6,})\.parquet", path.name)
            if number and path == self.part(int(number[1])):
                found[int(number[1])] = path
            else:
                others.append(path)
        return found, others

    def present(self) -> dict[int, Path]:
        """Parts that are there, by shard.

        Raises: OutputError: a file among the parts is none of ours.
        """
        found, others = self.listing()
        if others:
            raise foreign(others[0], "a name that no part has")
        return found

    def publish(self, plan: Plan, shard: int, rows: Rows, provenance: dict[str, Any]) -> Path:
        """Write a shard's rows; tracebacks first, so that a row never names a missing file."""
        for run, text in rows.tracebacks.items():
            prepare_directory(self.failures)
            write_atomically(self.failures / f"run-{run}.txt", partial(_write_text, text=text))
        statuses = rows.table["status"].to_pylist()
        told = provenance | {
            "schema": SCHEMA,
            "shard": shard,
            "digest": plan.shard_digest(shard),
            "counts": {status: statuses.count(status) for status in sorted(set(statuses))},
            "seconds": round(rows.seconds, 6),
        }
        table = rows.table.replace_schema_metadata({KEY: json.dumps(told)})
        curves = [f"{name}.list.element" for name in CURVES]
        plain = [name for name in table.column_names if name not in CURVES]
        part = write_atomically(
            self.part(shard),
            lambda path: pq.write_table(
                table,
                path,
                compression="zstd",
                use_dictionary=plain,
                column_encoding=dict.fromkeys(curves, "BYTE_STREAM_SPLIT"),
                write_page_checksum=True,
            ),
        )
        if self.failures.exists():
            mended = {str(k) for k in table["run_id"].to_pylist() if k not in rows.tracebacks}
            for path in self.failures.glob("run-*.txt"):
                if path.stem.removeprefix("run-") in mended:
                    path.unlink(missing_ok=True)  # it failed in an earlier attempt
        return part

    def put_away(self, shard: int, deaths: int, reason: str) -> None:
        """Remember that a shard's workers died again and again."""
        prepare_directory(self.quarantine)
        text = json.dumps({"shard": shard, "deaths": deaths, "reason": reason})
        write_atomically(self._quarantined(shard), lambda path: path.write_text(text))

    def take_back(self, shards: Iterable[int]) -> None:
        """Forget it: the shards are tried again."""
        for shard in shards:
            self._quarantined(shard).unlink(missing_ok=True)

    def quarantined(self) -> list[int]:
        """Shards that were put away and have no part."""
        names = [p.stem.removeprefix("shard-") for p in self.quarantine.glob("shard-*.json")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        return [k for k in numbers if not self.part(k).exists()]

    def _quarantined(self, shard: int) -> Path:
        return self.quarantine / f"shard-{shard}.json"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def part_info(path: Path, plan: Plan | Outline) -> PartInfo:
    """What a part says of itself, checked against the plan.

    Raises: OutputError: the file is corrupt, or of another plan or version; it is named.
    """
    with readable(path):
        footer = pq.read_metadata(path)
    return checked_info(path, plan, footer)


def checked_info(path: Path, plan: Plan | Outline, footer: pq.FileMetaData) -> PartInfo:
    """The same of a footer that has been read."""
    try:
        told = json.loads(footer.metadata[KEY])
        schema = told["schema"]
        info = PartInfo(
            shard=int(told["shard"]),
            digest=str(told["digest"]),
            runs=footer.num_rows,
            counts={str(k): int(v) for k, v in told["counts"].items()},
            seconds=float(told["seconds"]),
            finished=float(told["finished"]),
            attempt=int(told["attempt"]),
            provenance=told,
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise foreign(path, f"one without our metadata ({error!r})") from error
    if schema != SCHEMA:
        raise foreign(path, f"one of store format {schema}")
    shard = info.shard
    if int(path.stem.removeprefix("part-")) != shard or not 0 <= shard < plan.shards:
        raise foreign(path, f"shard {shard} of {plan.shards}")
    if info.digest != plan.shard_digest(shard):
        raise foreign(path, "the rows of another plan")
    if info.runs != plan.shard_size(shard):
        raise foreign(path, f"{info.runs} rows for {plan.shard_size(shard)} runs")
    return info


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Name the part in the error where it cannot be read."""
    try:
        yield
    except (OSError, pa.ArrowException, KeyError) as error:  # KeyError: a column is missing
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path.name}: expected a whole Parquet file, got a corrupt one in {path.parent} "
            f"({error}); remove it, and the same sweep computes it again"
        ) from error


def foreign(path: Path, got: str) -> OutputError:
    """The error for a file that is no part of the store's plan."""
    return OutputError(
        f"{path.name}: expected a part of this store's plan in {path.parent}, got {got}; "
        "move it away"
    )


def provenance(attempt: int) -> dict[str, Any]:
    """What a part tells of the process that writes it."""
    from importlib.metadata import version

    from mmcl_fast import _native
    from mmcl_fast.environment import environment, source_commit

    return {
        "environment": environment() | {"pyarrow": version("pyarrow")},
        "commit": source_commit(),
        "instruction_set": _native.active_target(),
        "process": os.getpid(),
        "attempt": attempt,
        "finished": time.time(),
    }


__all__ = ["PartInfo", "Store", "checked_info", "foreign", "part_info", "provenance", "readable"]
