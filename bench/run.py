"""All CPU benchmarks in one command: `mmcl bench`, or `python -m bench.run` in a checkout.

Each operation of `operations.OPERATIONS` runs in a separate process, which checks results before
timing. Its rows are related to the machine's measured ceilings, printed as one table of ratios, and
appended to a JSON Lines file, with the version of every peer or the reason why it was skipped.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import record
from .operations import OPERATIONS, Operation, judged, median_ms
from .peers.registry import PEERS, peer_of
from .report.picture import draw

Row = dict[str, Any]
TOTAL_S = 290.0  # five minutes, less what it takes to start and to draw
HIDDEN = ("outputs", "scaling", "ceiling", "sizes")  # operations that the table leaves to the file
CEILING = "timing.ceiling"  # the module that measures the machine
UNSHOWN = ("rounds", "threads", "dtype", "interleaved")  # settings of a measurement alone
BOUNDS = ("memset",)  # variants that are neither this library's nor a peer's


@dataclass(frozen=True)
class Failure:
    """An operation without results; `red` if a value was wrong or its module failed."""

    module: str
    reason: str
    red: bool


def measure(
    module: str, arguments: Sequence[str], limit_s: float
) -> tuple[list[Row], Failure | None]:
    """Rows of one module, run in a separate process, or its failure."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        command = [sys.executable, "-m", f"{__package__}.{module}", "--json", str(file), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return [], Failure(module, f"stopped after {limit_s:.0f} s, as time ran out", red=False)
        if done.returncode != 0:
            output = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
            return [], Failure(module, output[-1], red=True)
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()], None


def chosen_operations(names: Iterable[str]) -> list[Operation]:
    """Operations of these names, or all."""
    asked = set(names)
    return [o for o in OPERATIONS if not asked or o.name in asked]


def peer_rows(asked: Sequence[str] | None, operations: Sequence[Operation]) -> list[Row]:
    """One row per peer: its version, and the reason if it is skipped."""
    needed = {name for o in operations for name in o.peers}
    rows = []
    for name, peer in PEERS.items():
        if name not in needed:
            continue
        skipped = "not asked for" if asked is not None and name not in asked else peer.why_not()
        rows.append({"op": "peer", "variant": name, "version": peer.version(), "skipped": skipped})
    return rows


def run(
    names: Sequence[str],
    peers: Sequence[str] | None,
    *,
    quick: bool,
    on_start: Callable[[str, int], None] | None = None,
) -> tuple[list[Row], list[Failure]]:
    """Measure; return rows of every operation with their rates, and the failures.

    Args:
        names: Names of operations; none: all.
        peers: Names of peers; None: all that can run here.
        quick: A trial.
        on_start: Called before each module, with its name and the number of finished ones.
    """
    end = time.monotonic() + TOTAL_S
    operations = chosen_operations(names)
    notify = on_start or (lambda module, done: None)
    notify(CEILING, 0)
    ceilings, failure = measure(CEILING, ["--quick"] if quick else [], TOTAL_S)
    if failure is not None:
        return [], [failure]
    (ceiling,) = ceilings
    before = {k: v for k, v in ceiling.items() if k in record.environment()}
    rows: list[Row] = [{**row, **before} for row in peer_rows(peers, operations)]
    rows.append(ceiling)
    failures = []
    for done, operation in enumerate(operations):
        notify(operation.module, done + 1)
        if reason := operation.why_not():
            failures.append(Failure(operation.module, reason, red=False))
            continue
        arguments = ["--quick" if quick else "--short"]
        if peers is not None:
            arguments += ["--peers", ",".join(peers)]
        measured, failed = measure(operation.module, arguments, max(1.0, end - time.monotonic()))
        rows += [judged(row, operation, ceiling) for row in measured]
        failures += [failed] if failed else []
    # The command that a row records names a temporary file.
    words = ["mmcl", "bench", *names, *(["--peers", *peers] if peers is not None else [])]
    command = shlex.join([*words, *(["--quick"] if quick else [])])
    return [{**row, "command": command} for row in rows], failures


def ratios(row: Mapping[str, Any]) -> dict[str, float]:
    """Speed-up of a row over each peer, from its keys `times PEER` and `times_peer`."""
    times_faster = {}
    for key, value in row.items():
        if key.startswith(("times ", "times_")) and value is not None:
            peer = key[6:] if key[5] == " " else key[6:].replace("_", " ")
            if not row["variant"].startswith(peer):  # itself
                times_faster[peer] = float(value)
    return times_faster


def case(row: Mapping[str, Any]) -> str:
    """Label of a row: the settings in which rows of its operation differ."""
    s = row["settings"]
    words = [str(s[k]) for k in ("loss", "modality") if k in s]
    words += [f"{k}={s[k]:,}" for k in ("n", "d", "m", "values") if k in s]
    return f"{row['op']}: {' '.join(words)}" if words else str(row["op"])


def ratio_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Text table with one line per speed-up over a peer."""
    lines = [("operation", "ours", "ms", "MiB", "ceiling", "times", "faster than")]
    before = None
    for row in rows:
        ratios_of_row = ratios(row)
        is_ours = peer_of(row["variant"]) is None and row["variant"] not in BOUNDS
        if row["op"] in HIDDEN or not ratios_of_row or not is_ours:
            continue
        ms, peak, share = median_ms(row), row.get("peak_mib"), row.get("of_ceiling")
        what = case(row)
        first = (
            "" if what == before else what,
            row["variant"],
            "" if ms is None else f"{ms:,.3g}",
            "" if peak is None else f"{peak:,.0f}",
            "" if share is None else f"{share:.0%}",
        )
        for k, (name, times) in enumerate(ratios_of_row.items()):
            lines.append((*(first if k == 0 else ("",) * 5), f"{times:,.4g}", name))
        before = what
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = (False, False, True, True, True, True, False)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def time_table(rows: Sequence[Row]) -> str:
    """Text table of median times, for operations that nothing is compared with."""
    lines = [("operation", "variant", "ms")]
    for row in rows:
        ms = median_ms(row)
        if row["op"] not in ("peer", "ceiling") and ms is not None:
            sizes = " ".join(f"{k}={v}" for k, v in row["settings"].items() if k not in UNSHOWN)
            lines.append((f"{row['op']} {sizes}".strip(), row["variant"], f"{ms:,.3g}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{what:<{widths[0]}}  {variant:<{widths[1]}}  {ms:>{widths[2]}}"
        for what, variant, ms in lines
    )


def report(rows: Sequence[Row], failures: Sequence[Failure], seconds: float) -> None:
    """Print the table, the peers and the failures."""
    compared = ratio_table(rows)
    print(compared if "\n" in compared else time_table(rows))
    peers = [row for row in rows if row["op"] == "peer"]
    used = [f"{row['variant']} {row['version']}" for row in peers if row["skipped"] is None]
    print(f"peers: {', '.join(used) or 'none'}")
    for row in peers:
        if row["skipped"] is not None:
            print(f"skipped: {row['variant']}: {row['skipped']}")
    for failure in failures:
        kind = "RED, nothing of it was timed" if failure.red else "not measured"
        print(f"{failure.module}: {kind}: {failure.reason}")
    for ceiling in (row for row in rows if row["op"] == "ceiling"):
        print(
            f"{ceiling['cpu']}, {ceiling['cores']} CPUs, load {ceiling['load_1min']} before; "
            f"ceilings of one thread: {ceiling['gflop_s']} GFLOP/s, {ceiling['gbyte_s']} GB/s"
        )
    print(f"{seconds:.0f} s")


def run_and_report(
    names: Sequence[str],
    peers: Sequence[str] | None,
    *,
    quick: bool,
    json_file: Path,
    picture: Path,
    on_start: Callable[[str, int], None] | None = None,
) -> int:
    """Measure, print, append to `json_file` and draw; 1 if anything was wrong.

    Args:
        names: As in `run`.
        peers: As in `run`.
        quick: As in `run`.
        json_file: JSON Lines file to append to.
        picture: PNG; written if sizes were measured.
        on_start: As in `run`.
    """
    started = time.monotonic()
    rows, failures = run(names, peers, quick=quick, on_start=on_start)
    report(rows, failures, time.monotonic() - started)
    record.append(json_file, rows)
    drawn = draw(rows, picture)
    print(f"wrote {json_file.name}{f', {drawn.name}' if drawn else ''} in {json_file.parent}")
    return 1 if any(failure.red for failure in failures) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m bench.run`: the arguments of `mmcl bench`."""
    given = sys.argv[1:] if arguments is None else arguments
    return subprocess.call([sys.executable, "-m", "mmcl_fast.cli", "bench", *given])


__all__ = ["Failure", "case", "main", "measure", "ratio_table", "ratios", "run", "run_and_report"]

if __name__ == "__main__":
    sys.exit(main())
