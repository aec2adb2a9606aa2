"""Markdown of the documents' tables, and the rows of a results file that they show."""

from __future__ import annotations

import json
import re
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


def source_of_all(row: Mapping[str, Any]) -> str:
    """The same of a result that several processors made."""
    return source(row, f"{row['cores']} CPUs")


# The results' plain text of a formula, longest first, and its TeX for the documents.
FORMULAS = {
    r"<nu, mu> = \|mu\|^2 / sqrt(d)": r"\langle\nu, \mu\rangle = \lVert\mu\rVert^2 / \sqrt d",
    r"<w_r(0), mu> + gamma_r": r"\langle w_r(0), \mu\rangle + \gamma_r",
    r"<w~_r, mu~>": r"\langle \tilde w_r, \tilde\mu\rangle",
    r"<w_r, mu>": r"\langle w_r, \mu\rangle",
    r"max_{r,i} \|rho_{r,i}\|": r"\max_{r,i} \lvert\rho_{r,i}\rvert",
    r"max_r \|gamma_r\|": r"\max_r \lvert\gamma_r\rvert",
    r"max_r rho_{r,i}": r"\max_r \rho_{r,i}",
    r"\|nu\| = 0.4 \|mu\|": r"\lVert\nu\rVert = 0.4\,\lVert\mu\rVert",
    r"O~(1 / sqrt(n))": r"\tilde O(1/\sqrt n)",
    r"eta |mu|^2 / (m tau)": r"\eta\lVert\mu\rVert^2/(m\tau)",
    r"C_mu x n SNR^2": r"C_\mu\, n\,\mathrm{SNR}^2",
    r"C_mu n SNR^2": r"C_\mu\, n\,\mathrm{SNR}^2",
    r"n SNR^2": r"n\,\mathrm{SNR}^2",
    r"n^2 / d": r"n^2/d",
    r"Omega(1)": r"\Omega(1)",
    r"Theta(1)": r"\Theta(1)",
    r"sigma_0": r"\sigma_0",
    r"C_mu": r"C_\mu",
    r"T1": r"T_1",
}
_FORMULA = re.compile("|".join(rf"(?<!\w){re.escape(plain)}(?!\w)" for plain in FORMULAS))
_POWER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]\d+)")


def mathematics(text: str) -> str:
    """Formulas of a results file's text as TeX between dollars, code left alone."""
    pieces = re.split(r"(`[^`]*`)", text)
    for k, piece in enumerate(pieces):
        if not piece.startswith("`"):
            named = _FORMULA.sub(lambda m: f"${FORMULAS[m[0]]}$", piece)
            pieces[k] = _POWER.sub(_power, named)
    return "".join(pieces)


def _power(match: re.Match[str]) -> str:
    factor = "" if match[1] == "1" else rf"{match[1]}\cdot "
    return f"${factor}10^{{{int(match[2])}}}$"


def wrap(text: str) -> str:
    """Prose in lines of at most 100 columns."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def without_empty_columns(
    head: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """A table's head and rows less the columns in which nothing was measured."""
    kept = [k for k in range(len(head)) if any(row[k] != MISSING for row in lines)]
    return [head[k] for k in kept], [[row[k] for k in kept] for row in lines]


def number(row: Mapping[str, Any], key: str, form: str) -> str:
    """A value of a row, or a dash."""
    return format(row[key], form) if key in row else MISSING


__all__ = [
    "MISSING",
    "RESULTS",
    "latest",
    "mathematics",
    "number",
    "source",
    "table",
    "without_empty_columns",
]
__all__ += ["wrap"]
