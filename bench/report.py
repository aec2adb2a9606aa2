"""Renders every table of numbers in the documents from results files: python -m bench.report.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; nothing between them is written by hand.
With --check nothing is written and the exit status says whether the documents are current.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = ("README.md", "docs/claims.md")
PANELS = {
    "loss": ("training loss", "both converge rapidly"),
    "ood_accuracy": ("OOD test accuracy", "multi-modal nearly 1.0, single-modal around 0.5"),
    "signal": ("signal learning", "multi-modal much higher"),
    "noise": ("noise memorisation", "single-modal higher"),
}


def last_run(file: str, op: str) -> list[dict[str, Any]]:
    """Rows of the latest run of an operation in a results file, in their order."""
    rows = [json.loads(line) for line in (RESULTS / file).read_text().splitlines()]
    mine = [row for row in rows if row["op"] == op]
    if not mine:
        raise ValueError(f"{file}: expected rows of op {op!r}, got none")
    latest = max(row["date"] for row in mine)
    return [row for row in mine if row["date"] == latest]


def source(row: Mapping[str, Any]) -> str:
    """Where a number comes from, in a sentence."""
    state = " (with uncommitted changes)" if row["dirty"] else ""
    return (
        f"{row['cpu']}, one thread, commit {row['commit'][:10]}{state}, {row['date'][:10]}: "
        f"`{row['command']}`."
    )


def figure1_table() -> str:
    """Final values of Figure 1 beside what the paper prints."""
    found = json.loads((RESULTS / "figure1.json").read_text())
    count = len(found["config"]["seeds"])
    lines = [
        f"| after {found['epochs'][-1]} epochs, {count} seeds, mean ± s.d. "
        "| single-modal | multi-modal | the paper prints |",
        "|---|---|---|---|",
    ]
    for name, (title, claim) in PANELS.items():
        cells = [_cell(found[modality][name], name) for modality in ("single", "multi")]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {claim} |")
    return "\n".join(lines)


def _cell(curve: Mapping[str, Any], name: str) -> str:
    text = f"{curve['mean'][-1]:.3f} ± {curve['sd'][-1]:.3f}"
    return f"{curve['mean'][0]:.2f} → {text}" if name == "loss" else text


def claims_table() -> str:
    """Rows of docs/claims.md that Figure 1 decides."""
    found = json.loads((RESULTS / "figure1.json").read_text())

    def last(modality: str, name: str) -> float:
        return float(found[modality][name]["mean"][-1])

    def both(name: str) -> str:
        cells = (_cell(found[m][name], "") for m in ("single", "multi"))
        return "single {}, multi {}".format(*cells)

    loss = max(last(m, "loss") for m in ("single", "multi"))
    checks = (
        ("both training losses converge", "loss", "near 0", loss < 0.01),
        ("multi-modal learning generalises", "ood_accuracy", "nearly 1.0", last("multi", "ood_accuracy") > 0.93),
        ("single-modal learning stagnates", "ood_accuracy", "around 0.5", last("single", "ood_accuracy") < 0.62),
        ("multi-modal learns more signal", "signal", "much higher", last("multi", "signal") > 3 * last("single", "signal")),
        ("single-modal memorises more noise", "noise", "higher", last("single", "noise") > last("multi", "noise")),
    )  # fmt: skip
    lines = [
        "| claim (Figure 1) | command | paper | ours | status |",
        "|---|---|---|---|---|",
    ]
    for claim, name, paper, holds in checks:
        status = "reproduced" if holds else "NOT reproduced"
        lines.append(f"| {claim} | `mmcl figure1` | {paper} | {both(name)} | {status} |")
    return "\n".join(lines)


def train_table() -> str:
    """Training at the paper's size against JAX and eager PyTorch."""
    rows = last_run("cpu.jsonl", "train")
    lines = [
        "One run of Figure 1's size (n = 100, d = 2000, m = 50, 200 epochs, float32), inner products "
        "included, data given:",
        "",
        "| | single-modal, ms a run | × JAX | × eager | multi-modal, ms a run | × JAX | × eager "
        "| largest loss error (single) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        table.setdefault(row["variant"], {})[row["settings"]["modality"]] = row
    for variant, sides in table.items():
        cells = []
        for modality in ("single", "multi"):
            row = sides[modality]
            cells += [
                f"{row['cpu_ms_per_run']['p50']:.1f}",
                f"{row.get('times_jax', float('nan')):.1f}",
                f"{row['times_eager']:.1f}",
            ]
        error = f"{sides['single']['max_abs_loss_error']:.1e}"
        lines.append(f"| {variant} | {' | '.join(cells)} | {error} |")
    return "\n".join([*lines, "", source(rows[0])])


TABLES: dict[str, Callable[[], str]] = {
    "figure1": figure1_table,
    "claims": claims_table,
    "train": train_table,
}


def render(text: str) -> str:
    """A document with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", table, text, flags=re.DOTALL)


def main() -> int:
    """Command line; with --check, 1 if a document is out of date."""
    parser = argparse.ArgumentParser(
        prog="bench.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text()
        if (new := render(old)) != old:
            stale.append(name)
            if not check:
                path.write_text(new)
    print(("out of date: " if check else "rewritten: ") + (", ".join(stale) or "none"))
    return 1 if check and stale else 0


__all__ = ["render"]

if __name__ == "__main__":
    sys.exit(main())
