"""The checks as JSON and as rows of a Markdown table (`docs/claims.md`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mmcl_fast.environment import environment
from mmcl_fast.experiments.theory_checks.check import Finding, Row

HEADER = ("claim (theory)", "command", "paper", "ours", "status")


def to_json(findings: Sequence[Finding], seeds: Sequence[int]) -> dict[str, Any]:
    """Everything that was measured, with the criteria."""
    return {
        "seeds": list(seeds),
        "checks": {finding.name: finding.to_json() for finding in findings},
        "environment": environment(),
    }


def to_markdown(findings: Sequence[Finding]) -> str:
    """One row a statement: claim, command, the paper's, ours, status with how it was judged."""
    return _table((finding.name, row) for finding in findings for row in finding.rows)


def json_to_markdown(results: Mapping[str, Any]) -> str:
    """`to_markdown` of the content that `to_json` returned."""
    return _table(
        (check, _read(row))
        for check, finding in results["checks"].items()
        for row in finding["rows"]
    )


def _read(results: Mapping[str, Any]) -> Row:
    given = {field.name: results[field.name] for field in fields(Row)}
    values = (math.nan if value is None else value for value in results["per_seed"])
    return Row(**given | {"per_seed": tuple(values)})


def _table(rows: Iterable[tuple[str, Row]]) -> str:
    cells = (
        (
            f"{row.statement} ({row.source})",
            f"`mmcl theory --checks {check}`",
            row.predicted,
            f"{row.quantity}: {row.measured}",
            f"{row.verdict}; {row.note}" if row.note else row.verdict,
        )
        for check, row in rows
    )
    lines = [HEADER, ("---",) * len(HEADER), *cells]
    # A bar inside a cell would end it.
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


__all__ = ["json_to_markdown", "to_json", "to_markdown"]
