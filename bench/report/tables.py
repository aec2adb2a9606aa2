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
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    of_ops = [row for row in rows if row["op"] in ops]
    if not of_ops:
        raise ValueError(f"{path.name}: expected rows of op {' or '.join(ops)}, got none")
    last = max(row["date"] for row in of_ops)
    return [row for row in of_ops if row["date"] == last]


def source(row: Mapping[str, Any], threads: str = "one thread") -> str:
    """Where a number comes from, in a sentence."""
    state = " (with uncommitted changes)" if row["dirty"] else ""
    return wrap(
        f"{row['cpu']}, {threads}, load {_load(row)} before, "
        f"commit {row['commit'][:10]}{state}, {row['date'][:10]}: `{row['command']}`."
    )


def _load(row: Mapping[str, Any]) -> str:
    return "unknown" if row["load_1min"] is None else f"{row['load_1min']:.1f}"


def source_of_all(row: Mapping[str, Any]) -> str:
    """The same of a result that several processors made."""
    return source(row, f"{row['cores']} CPUs")


# The results' plain text of a formula, longest first, and its TeX for the documents.
FORMULAS = {
    r"<nu, mu> = \|mu\|^2 / sqrt(d)": r"\langle\nu, \mu\rangle = \lVert\mu\rVert^2 / \sqrt d",
    r"\|xi_i\|^2 is within sigma_xi^2 d / 2 .. 3 sigma_xi^2 d / 2": (
        r"\sigma_\xi^2 d/2 \le \lVert\xi_i\rVert^2 \le 3\sigma_\xi^2 d/2"
    ),
    r"\|<w_r(0), xi_i>\| <= 2 sqrt(log(12 m n / delta)) sigma_0 sigma_xi sqrt(d)": (
        r"\lvert\langle w_r(0), \xi_i\rangle\rvert \le "
        r"2\sqrt{\log(12mn/\delta)}\thinspace \sigma_0\sigma_\xi\sqrt d"
    ),
    r"\|<w_r(0), mu>\| <= sqrt(2 log(12 m / delta)) sigma_0 \|mu\|": (
        r"\lvert\langle w_r(0), \mu\rangle\rvert \le "
        r"\sqrt{2\log(12m/\delta)}\thinspace \sigma_0\lVert\mu\rVert"
    ),
    r"\|<xi_i, xi_j>\| <= 2 sigma_xi^2 sqrt(d log(6 n^2 / delta))": (
        r"\lvert\langle\xi_i, \xi_j\rangle\rvert \le 2\sigma_\xi^2\sqrt{d\log(6n^2/\delta)}"
    ),
    r"\|<xi_i, mu>\| <= \|mu\| sigma_xi sqrt(2 log(6 n / delta))": (
        r"\lvert\langle\xi_i, \mu\rangle\rvert \le "
        r"\lVert\mu\rVert\sigma_\xi\sqrt{2\log(6n/\delta)}"
    ),
    r"max_r <w_r(0), xi_i> >= sigma_0 sigma_xi sqrt(d) / 4": (
        r"\max_r \langle w_r(0), \xi_i\rangle \ge \sigma_0\sigma_\xi\sqrt d/4"
    ),
    r"max_r <w_r(0), mu> >= sigma_0 \|mu\| / 2": (
        r"\max_r \langle w_r(0), \mu\rangle \ge \sigma_0\lVert\mu\rVert/2"
    ),
    r"<w_r(0), xi_i> >= 101 B_r(0) / (M + 1)": (
        r"\langle w_r(0), \xi_i\rangle \ge 101\thinspace B_r(0)/(M + 1)"
    ),
    r"\|grad L\|^2 <= O(max(\|mu\|^2, sigma_xi^2 d)) L": (
        r"\lVert\nabla L\rVert^2 \le O(\max(\lVert\mu\rVert^2, \sigma_\xi^2 d))\thinspace L"
    ),
    r"\|grad L\|^2 / (max(\|mu\|^2, sigma_xi^2 d) L)": (
        r"\lVert\nabla L\rVert^2/(\max(\lVert\mu\rVert^2, \sigma_\xi^2 d)\thinspace L)"
    ),
    r"max_{r,i} \|rho_{r,i}\| <= sigma_0 sigma_xi sqrt(d)": (
        r"\max_{r,i} \lvert\rho_{r,i}\rvert \le \sigma_0\sigma_\xi\sqrt d"
    ),
    r"\|rho\| <= sigma_0 sigma_xi sqrt(d)": r"\lvert\rho\rvert \le \sigma_0\sigma_\xi\sqrt d",
    r"max_r \|gamma_r\| <= 3 beta": r"\max_r \lvert\gamma_r\rvert \le 3\beta",
    r"gamma <= 3 beta": r"\gamma \le 3\beta",
    r"min_i max_r rho_{r,i}": r"\min_i \max_r \rho_{r,i}",
    r"<w_r, mu> > 0": r"\langle w_r, \mu\rangle > 0",
    r"<w~_r, mu~> > 0": r"\langle \tilde w_r, \tilde\mu\rangle > 0",
    r"sqrt(n log(4 / delta) / 2)": r"\sqrt{n\log(4/\delta)/2}",
    r"sqrt(m log(2 n / delta) / 2)": r"\sqrt{m\log(2n/\delta)/2}",
    r"n >= 1,280,000 log(4 / delta)": r"n \ge 1{,}280{,}000\thinspace \log(4/\delta)",
    r"d >= n / (sigma_0 sigma_xi)": r"d \ge n/(\sigma_0\sigma_\xi)",
    r"n sigma_0 sigma_xi sqrt(d)": r"n\thinspace \sigma_0\sigma_\xi\sqrt d",
    r"sqrt(n) sigma_0 sigma_xi sqrt(d)": r"\sqrt n\thinspace \sigma_0\sigma_\xi\sqrt d",
    r"sigma_0 sigma_xi sqrt(d)": r"\sigma_0\sigma_\xi\sqrt d",
    r"sigma_0^(1 - k)": r"\sigma_0^{1-k}",
    r"B_r(0) / (M + 1)": r"B_r(0)/(M + 1)",
    r"1 / (M + 1)": r"1/(M + 1)",
    r"O(sqrt(n))": r"O(\sqrt n)",
    r"\|gamma_r\|": r"\lvert\gamma_r\rvert",
    r"tau = 1 / m": r"\tau = 1/m",
    r"tau = 1/2": r"\tau = 1/2",
    r"<w_r(0), mu> + gamma_r": r"\langle w_r(0), \mu\rangle + \gamma_r",
    r"<w~_r, mu~>": r"\langle \tilde w_r, \tilde\mu\rangle",
    r"<w_r, mu>": r"\langle w_r, \mu\rangle",
    r"max_{r,i} \|rho_{r,i}\|": r"\max_{r,i} \lvert\rho_{r,i}\rvert",
    r"max_r \|gamma_r\|": r"\max_r \lvert\gamma_r\rvert",
    r"max_r rho_{r,i}": r"\max_r \rho_{r,i}",
    r"\|nu\| = 0.4 \|mu\|": r"\lVert\nu\rVert = 0.4\thinspace \lVert\mu\rVert",
    r"O~(1 / sqrt(n))": r"\tilde O(1/\sqrt n)",
    r"eta |mu|^2 / (m tau)": r"\eta\lVert\mu\rVert^2/(m\tau)",
    r"C_mu x n SNR^2": r"C_\mu\thinspace n\thinspace \mathrm{SNR}^2",
    r"C_mu n SNR^2": r"C_\mu\thinspace n\thinspace \mathrm{SNR}^2",
    r"n SNR^2": r"n\thinspace \mathrm{SNR}^2",
    r"n^2 / d": r"n^2/d",
    r"Omega(1)": r"\Omega(1)",
    r"Theta(1)": r"\Theta(1)",
    r"sigma_0": r"\sigma_0",
    r"C_mu": r"C_\mu",
    r"n / 2": r"n/2",
    r"m / 2": r"m/2",
    r"rho != 0": r"\rho \ne 0",
    r"rho < 0": r"\rho < 0",
    r"rho = 0": r"\rho = 0",
    r"y_i = 1": r"y_i = 1",
    r"1 / eps": r"1/\epsilon",
    r"sigma_eps": r"\sigma_\epsilon",
    r"B_r(0)": r"B_r(0)",
    r"(r, i)": r"(r, i)",
    r"log t": r"\log t",
    r"1 - k": r"1 - k",
    r"delta": r"\delta",
    r"gamma": r"\gamma",
    r"beta": r"\beta",
    r"xi_i": r"\xi_i",
    r"eps": r"\epsilon",
    r"eta": r"\eta",
    r"rho": r"\rho",
    r"T1": r"T_1",
    r"T*": r"T^{\ast}",
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
