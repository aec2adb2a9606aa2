"""`mmcl bench`: this library against reference PyTorch and the installed peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmcl_fast.bench.operations import OPERATIONS
from mmcl_fast.bench.peers.registry import PEERS
from mmcl_fast.errors import ConfigError
from mmcl_fast.files import prepare_directory
from mmcl_fast.progress import progress

JSON_FILE, PICTURE = "bench.jsonl", "bench.png"


def bench_command(
    operations: Sequence[str],
    peers: Sequence[str] | None,
    *,
    json_file: Path | None,
    out: Path,
    quick: bool,
) -> int:
    """Measure; write bench.jsonl and bench.png to `out`, and print every ratio in one table.

    Args:
        operations: Names of operations; empty: all.
        peers: Names of peers; None: all that can run here.
        json_file: JSON lines to append to; None: bench.jsonl in `out`.
        out: Directory of the results, created if absent.
        quick: Use the smallest sizes.

    Returns: Exit status: 0, or 1 if a value was wrong; its operation is then not timed.
    """
    known = {operation.name for operation in OPERATIONS}
    for name in operations:
        if name not in known:
            expected = ", ".join(dict.fromkeys(o.name for o in OPERATIONS))
            raise ConfigError(f"operations: expected some of {expected}, got {name!r}")
    for name in peers or ():
        if name not in PEERS:
            raise ConfigError(f"peers: expected some of {', '.join(PEERS)}, got {name!r}")
    from mmcl_fast.bench.run import chosen_operations, run_and_report  # loads torch

    prepare_directory(out)
    if json_file is not None:
        prepare_directory(json_file.parent)
    with progress(1 + len(chosen_operations(operations)), "benchmarks") as shown:
        status: int = run_and_report(
            operations,
            peers,
            quick=quick,
            json_file=json_file or out / JSON_FILE,
            picture=out / PICTURE,
            on_start=shown.advance,
        )
    return status


__all__ = ["bench_command"]
