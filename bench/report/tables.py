"""Markdown of the documents' tables, and the rows of a results file that they show."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
MISSING = "–"  # a peer that was not installed


def latest(path: Path, *ops: str) -> list[dict[str, Any]]:
    """Rows of the latest run of these operations in a results file, in their order."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    of_ops = [row for row in rows if row["op"] in ops]
    if not of_ops:
        raise ValueError(f"{path.name}: expected rows of op {' or '.join(ops)}, got none")
    last = max(row["date"] for row in of_ops)
    return [row for row in of_ops if row["date"] == last]


def source(row: Mapping[str, Any], threads: str = "one thread") -> str:
    """Where a number comes from, in a sentence."""
    state = " (with uncommitted changes)" if row["dirty"] else ""
    return wrap(
        f"{row['cpu']}, {threads}, load {row['load_1min']:.1f} before, "
        f"commit {row['commit'][:10]}{state}, {row['date'][:10]}: `{row['command']}`."
    )


def wrap(text: str) -> str:
    """Prose in lines of at most 100 columns."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(row: Mapping[str, Any], key: str, form: str) -> str:
    """A value of a row, or a dash."""
    return format(row[key], form) if key in row else MISSING


__all__ = ["MISSING", "RESULTS", "latest", "number", "source", "table", "wrap"]
