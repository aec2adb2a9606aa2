"""What was run, as the words above the panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcl_fast.report.budget import Budget
from mmcl_fast.report.dimensions import TEXTS, Dimension
from mmcl_fast.report.statistics import Statistics
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.conditions import KEYS
from mmcl_fast.sweep.store.schema import STATUSES
from mmcl_fast.sweep.store.status import Status
from mmcl_fast.sweep.store.store import Store, part_info

FEW, ENDS = 8, 3  # values listed in full, else so many from each end
MOST_ERRORS = 5
VERSIONS = ("mmcl_fast", "torch", "python")
Facts = list[tuple[str, str]]


def facts(
    store: Path,
    status: Status,
    plan: Plan,
    table: pa.Table,
    axes: Sequence[Dimension],
    held: Budget,
    found: Statistics,
) -> Facts:
    """Pairs of a heading and a text.

    Args:
        store: Directory of the store.
        status: Of the whole store.
        plan: Of the whole store.
        table: Settings in the report.
        axes: Their dimensions.
        held: What the report holds of the curves.
        found: Statistics of the settings in the report.
    """
    counts = {name: int(found.counts[name].sum()) for name in STATUSES}
    runs = sum(counts.values())
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    pairs = [
        ("Runs", f"{runs:,}: {told}" if runs else "none"),
        ("Plan", _plan(status, plan, len(table))),
        *((axis.title, _values(axis.labels)) for axis in axes),
        ("Same in all", _fixed(table)),
        ("Runs of a setting", _seeds(found)),
        ("Computed on", f"{', '.join(status.machines)}; {_hours(status.busy_seconds)} of training"),
        ("Written by", _written_by(store, plan)),
        ("In this file", _held(held, int(np.max(sum(found.counts.values()))))),
    ]
    if status.bad or status.put_away:
        bad = [*status.bad.values(), *(f"shard {k} is quarantined" for k in status.put_away)]
        pairs.append(("Not usable", "; ".join(bad)))
    errors = sorted(found.errors.items(), key=lambda pair: -pair[1])
    pairs += [("Failed", f"{count:,} with {error}") for error, count in errors[:MOST_ERRORS]]
    if len(errors) > MOST_ERRORS:
        pairs.append(("Failed", f"{len(errors) - MOST_ERRORS} other errors"))
    return pairs


def _plan(status: Status, plan: Plan, settings: int) -> str:
    part = "" if settings == len(plan.points) else f", {settings:,} of them here"
    missing = status.runs - status.done
    still = f"; {missing:,} not computed yet" if missing else ""
    return (
        f"{plan.digest[:12]}: {status.runs:,} runs, {len(plan.points):,} settings{part}, "
        f"{status.shards:,} shard{'s' * (status.shards != 1)}{still}"
    )


def _values(labels: Sequence[str]) -> str:
    if len(labels) <= FEW:
        return ", ".join(labels)
    return f"{', '.join(labels[:ENDS])}, …, {', '.join(labels[-ENDS:])} ({len(labels)} values)"


def _fixed(table: pa.Table) -> str:
    parts = []
    for name in KEYS:
        values = pc.unique(table[name])
        if len(values) == 1 and values[0].is_valid:
            value = values[0].as_py()
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            parts.append(f"{TEXTS.get(name, name)} = {text}")
    return ", ".join(parts) or "nothing"


def _seeds(found: Statistics) -> str:
    total = sum(found.counts.values())
    low, high = int(np.min(total)), int(np.max(total))
    return f"{low:,} to {high:,}" if low < high else f"{high:,}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} core-hours" if seconds >= 3600 else f"{seconds:.1f} core-seconds"


def _written_by(store: Path, plan: Plan) -> str:
    """Versions of the first part; parts of other machines may have others."""
    parts = Store(store).present()
    made = part_info(parts[min(parts)], plan).provenance
    versions = made.get("environment", {})
    told = [f"{name} {versions[name]}" for name in VERSIONS if name in versions]
    return ", ".join([*told, f"commit {made.get('commit') or 'unknown'}"]) + " (first part)"


def _held(held: Budget, runs: int) -> str:
    epochs = "every epoch" if held.every == 1 else f"every {held.every} epochs and the last"
    if not held.runs:
        single = "of no single run"
    elif held.runs >= runs:
        single = "of every run"
    else:
        first = f"first {held.runs} runs" if held.runs > 1 else "first run"
        single = f"of the {first} of each setting"
    return (
        f"mean and s.d. over all finished runs at {epochs}; thin lines {single}. Numbers of the "
        "last epoch have six digits, those of other epochs four, s.d. three"
    )


__all__ = ["Facts", "facts"]
