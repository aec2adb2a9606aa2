"""The checks as JSON and as rows of a Markdown table (`docs/claims.md`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcl_fast.environment import environment
from mmcl_fast.experiments.theory_checks.finding import Finding

HEAD = ("claim (theory)", "command", "paper", "ours", "status")


def to_json(findings: Sequence[Finding], seeds: Sequence[int]) -> dict[str, Any]:
    """Everything that was measured, with the criteria."""
    return {
        "seeds": list(seeds),
        "checks": {finding.name: finding.to_json() for finding in findings},
        "environment": environment(),
    }


def to_markdown(findings: Sequence[Finding]) -> str:
    """One row a statement: claim, command, the paper's, ours, status with how it was judged."""
    rows = [
        (
            f"{row.statement} ({row.source})",
            f"`mmcl theory --checks {finding.name}`",
            row.predicted,
            f"{row.quantity}: {row.measured}",
            f"{row.verdict}; {row.note}" if row.note else row.verdict,
        )
        for finding in findings
        for row in finding.rows
    ]
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    # A bar inside a cell would end it.
    return "".join(f"| {' | '.join(_cell(c) for c in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


__all__ = ["to_json", "to_markdown"]
