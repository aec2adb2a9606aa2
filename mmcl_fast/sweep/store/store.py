"""A store on disk: the plan, and one immutable Parquet file (part) per shard.

    STORE/plan.parquet                every run (`plan_file.py`)
    STORE/parts/part-000012.parquet   rows of shard 12: complete, or absent
    STORE/failures/run-34.txt         traceback of a run that raised
    STORE/quarantine/shard-12.json    a shard whose workers kept dying

A part is written under a temporary name, synchronised and renamed, so any number of processes may
compute the same shard: its name and rows are equal. There is no other state, but a lock for the
milliseconds in which a plan is replaced (`plan_lock.py`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmcl_fast.errors import OutputError
from mmcl_fast.files import (
    TEMPORARY_SUFFIX,
    file_system_time,
    prepare_directory,
    write_atomically,
)
from mmcl_fast.sweep.plan.plan import SCHEMA, Plan
from mmcl_fast.sweep.store import drivers
from mmcl_fast.sweep.store.parquet_file import KEY, OpenParquet, open_parquet, write_parquet
from mmcl_fast.sweep.store.part_checks import check_counts, check_provenance, check_unpacked
from mmcl_fast.sweep.store.plan_file import Outline
from mmcl_fast.sweep.store.plan_lock import LOCK
from mmcl_fast.sweep.store.schema import CURVES, Rows

STALE_SECONDS = 24 * 3600.0  # an older temporary file has no writer any more
PART_REMEDY = "remove it, and re-running the sweep recomputes it"
# Those of version 0.1.0 had the final name's suffix.
EARLIER = (".*plan.*parquet", ".part-*", ".run-*.txt", ".shard-*.json", ".sweep.*.sbatch")
TEMPORARY = (f".*{TEMPORARY_SUFFIX}", LOCK, *EARLIER)


@dataclass(frozen=True)
class PartInfo:
    """Metadata of a part.

    Attributes:
        shard: Index of the shard.
        digest: Hash of the runs in it (`Plan.shard_digest`).
        runs: Rows.
        counts: Rows by status.
        seconds: Time spent training.
        finished: When it was written, seconds since 1970.
        attempt: Number of workers given this shard, including the one that wrote it.
        provenance: All metadata, with versions, machine and engine.
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
        path: The directory, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"
        self.failures = path / "failures"
        self.quarantine = path / "quarantine"

    def prepare(self) -> None:
        """Make the directories, and remove temporary files of dead writers."""
        for folder in (self.path, self.parts):
            prepare_directory(folder)
        # The file system's clock: this machine's may be days ahead of those that are writing.
        horizon = file_system_time(self.path) - STALE_SECONDS
        written = self.path, self.parts, self.failures, self.quarantine, self.path / drivers.FOLDER
        for folder in written:
            for leftover in {x for pattern in TEMPORARY for x in folder.glob(pattern)}:
                # Other processes rename theirs concurrently.
                with suppress(FileNotFoundError):
                    found = leftover.lstat()
                    if stat.S_ISREG(found.st_mode) and found.st_mtime < horizon:
                        leftover.unlink()

    def part(self, shard: int) -> Path:
        """File of a shard's rows."""
        return self.parts / f"part-{shard:06d}.parquet"

    def listing(self) -> tuple[dict[int, Path], list[Path]]:
        """Files in the folder of parts: those with a part's name, by shard, and the others."""
        parts: dict[int, Path] = {}
        others = []
        for path in sorted(self.parts.glob("[!.]*")):
            number = re.fullmatch(r"part-([0-9]{6,})\.parquet", path.name)
            if number and path == self.part(int(number[1])):
                parts[int(number[1])] = path
            else:
                others.append(path)
        return parts, others

    def present(self) -> dict[int, Path]:
        """Parts in the store, by shard.

        Raises: OutputError: the folder holds a file that is no part.
        """
        parts, others = self.listing()
        if others:
            raise not_a_part(others[0], "a name that no part has")
        return parts

    def publish(self, plan: Plan, shard: int, rows: Rows, provenance: dict[str, Any]) -> Path:
        """Write a shard's rows; tracebacks first, so a failed row always has its file."""
        for run, text in rows.tracebacks.items():
            prepare_directory(self.failures)
            write_atomically(self.failures / f"run-{run}.txt", partial(_write_text, text=text))
        statuses = rows.table["status"].to_pylist()
        metadata = provenance | {
            "schema": SCHEMA,
            "shard": shard,
            "digest": plan.shard_digest(shard),
            "counts": {status: statuses.count(status) for status in sorted(set(statuses))},
            "seconds": round(rows.seconds, 6),
        }
        table = rows.table
        names = (*CURVES, *plan.metric_names)
        curves = [f"{name}.list.element" for name in names]
        plain = [name for name in table.column_names if name not in names]
        part = write_atomically(
            self.part(shard),
            lambda path: write_parquet(
                table,
                path,
                metadata,
                store_schema=False,  # 6 kB of types that Parquet's own say as well
                use_dictionary=plain,
                column_encoding=dict.fromkeys(curves, "BYTE_STREAM_SPLIT"),
            ),
        )
        if self.failures.exists():
            succeeded = {str(k) for k in table["run_id"].to_pylist() if k not in rows.tracebacks}
            for path in self.failures.glob("run-*.txt"):
                if path.stem.removeprefix("run-") in succeeded:
                    path.unlink(missing_ok=True)  # of an earlier attempt
        return part

    def quarantine_shard(self, shard: int, deaths: int, reason: str) -> None:
        """Record that a shard's workers kept dying."""
        prepare_directory(self.quarantine)
        text = json.dumps({"shard": shard, "deaths": deaths, "reason": reason})
        write_atomically(
            self._quarantine_file(shard), lambda path: path.write_text(text, encoding="utf-8")
        )

    def release(self, shards: Iterable[int]) -> None:
        """Take shards out of quarantine."""
        for shard in shards:
            self._quarantine_file(shard).unlink(missing_ok=True)

    def quarantined(self) -> list[int]:
        """Quarantined shards without a part."""
        names = [p.stem.removeprefix("shard-") for p in self.quarantine.glob("shard-*.json")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        return [k for k in numbers if not self.part(k).exists()]

    def _quarantine_file(self, shard: int) -> Path:
        return self.quarantine / f"shard-{shard}.json"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def part_info(path: Path, plan: Plan | Outline, *, whole: bool = True) -> PartInfo:
    """Metadata of a part, checked against the plan.

    Args:
        path: The part.
        plan: The plan.
        whole: Compare all of the file with its digest; else the footer alone.

    Raises: DamagedFileError: the content is not what was written. OutputError: a file of another
        plan or version. Both name the file.
    """
    with open_parquet(path, PART_REMEDY, whole=whole) as file:
        return checked_info(path, plan, file)


def checked_info(path: Path, plan: Plan | Outline, file: OpenParquet) -> PartInfo:
    """`part_info` of an open file."""
    footer = file.footer
    if KEY not in (footer.metadata or {}):
        raise not_a_part(path, "one without metadata of mmcl-fast")
    metadata = file.metadata()
    if metadata.get("schema") != SCHEMA:
        raise not_a_part(path, f"one of store format {metadata.get('schema')}")
    info = PartInfo(
        shard=int(metadata["shard"]),
        digest=str(metadata["digest"]),
        runs=footer.num_rows,
        counts=dict(metadata["counts"]),
        seconds=float(metadata["seconds"]),
        finished=float(metadata["finished"]),
        attempt=int(metadata["attempt"]),
        provenance=metadata,
    )
    shard = info.shard
    if int(path.stem.removeprefix("part-")) != shard or not 0 <= shard < plan.shards:
        raise not_a_part(path, f"shard {shard} of {plan.shards}")
    if info.digest != plan.shard_digest(shard):
        raise not_a_part(path, "the rows of another plan")
    if info.runs != plan.shard_size(shard):
        raise not_a_part(path, f"{info.runs} rows for {plan.shard_size(shard)} runs")
    check_counts(info.counts, info.runs)
    check_provenance(metadata)
    check_unpacked(footer, plan, has_digest=file.has_digest)
    return info


def not_a_part(path: Path, got: str) -> OutputError:
    """The error for a file that is no part of the stored plan."""
    return OutputError(
        f"{path.name}: expected a part of this store's plan in {path.parent}, got {got}; "
        "move it away"
    )


def provenance(attempt: int) -> dict[str, Any]:
    """Metadata of the process that writes a part."""
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


__all__ = ["PartInfo", "Store", "checked_info", "not_a_part", "part_info", "provenance"]
