"""`mmcl theory`: the paper's statements against runs, with one verdict each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.theory_checks.check import Finding
from mmcl_fast.experiments.theory_checks.names import CheckName
from mmcl_fast.experiments.theory_checks.report import to_json, to_markdown
from mmcl_fast.experiments.theory_checks.run import run_checks
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves, theory
from mmcl_fast.progress import progress


def theory_command(checks: Sequence[CheckName], seeds: range, out: Path) -> int:
    """Run the checks; write theory.json, theory.md and theory.png to `out`.

    Args:
        checks: Names, at least one, each once.
        seeds: Seeds of data and weights, at least two: a verdict needs a spread.
        out: Directory of the results, created if absent.

    Returns: Exit status 0, whatever the verdicts.
    """
    for seed in (seeds[0], seeds[-1]):
        TrainConfig(seed=seed)
    prepare_directory(out)
    started = time.monotonic()
    with progress(len(checks), "checks") as shown:
        findings = run_checks(checks, seeds, shown.advance)
    text = json.dumps(to_json(findings, seeds), allow_nan=False)
    page = to_markdown(findings)
    write_atomically(out / "theory.json", lambda path: path.write_text(text, encoding="utf-8"))
    write_atomically(out / "theory.md", lambda path: path.write_text(page, encoding="utf-8"))
    curves.save(theory.theory(findings, len(seeds)), out / "theory.png")
    _report(findings, len(seeds), time.monotonic() - started)
    sys.stdout.write(f"wrote theory.json, theory.md, theory.png in {out}\n")
    return 0


def _report(findings: Sequence[Finding], seeds: int, seconds: float) -> None:
    table = Table(title=f"Theory against runs, {seeds} seeds, {seconds:.1f} s", show_lines=True)
    for heading in ("statement", "predicted", "measured", "agrees if", "verdict"):
        table.add_column(heading)
    for finding in findings:
        for row in finding.rows:
            table.add_row(
                f"{row.statement} ({row.source})",
                row.predicted,
                f"{row.quantity}: {row.measured}",
                row.criterion,
                f"{row.verdict}; {row.note}" if row.note else row.verdict,
            )
    Console(markup=False).print(table)


__all__ = ["theory_command"]
