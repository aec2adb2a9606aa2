"""Every numbered statement of the paper: what it says, the command that checks it, the verdict.

The verdicts are those of the checks' rows in a results file; what no row decides says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmcl_fast.experiments.theory_checks.names import CheckName

HEADER = ("statement", "it says", "command", "verdict")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One numbered statement, or a group of which no run decides one alone.

    Attributes:
        number: Its number in the paper.
        says: What it says, up to constants and logarithms.
        rows: Where its verdicts are: a check and the beginning of its rows' `source`, each.
        command: What shows it where no check does.
        verdict: The verdict where no check has one.
    """

    number: str
    says: str
    rows: tuple[tuple[CheckName, str], ...] = ()
    command: str = "none"
    verdict: str = ""


_STEPS = "not checked one by one: steps of the proof of {}, whose conclusion the runs meet"
_START = "not checked one by one: bounds of the same kind as those of appendix B, which hold"

STATEMENTS = (
    Statement(
        number="(1), (2), (5)",
        says="data of both modalities, the augmented view",
        command="pytest tests/data",
        verdict="the model itself",
    ),
    Statement(
        number="(3), (4)",
        says="encoder and similarity",
        command="pytest tests/engines",
        verdict="the model itself",
    ),
    Statement(
        number="(6) to (10)",
        says="losses, softmax weights, gradient descent",
        command="pytest tests/engines",
        verdict="the model itself",
    ),
    Statement(
        number="Assumption 4.1",
        says="conditions on d, eta, sigma_0, m and n, sigma_eps, n SNR^2, C_mu",
        command="mmcl_fast.theory.assumption_4_1",
        verdict="computed; all hold in the runs of growth, first_stage, scale, pairs, stage2 and "
        "convergence, and the proofs' own limits on n in none",
    ),
    Statement(
        number="Theorem 4.2(1)",
        says="single-modal: loss at most eps by T*",
        rows=(("convergence", "Theorem 4.2(1)"),),
    ),
    Statement(
        number="Theorem 4.2(2)",
        says="single-modal: test error stays Theta(1)",
        rows=(("test_error", "Theorem 4.2"),),
    ),
    Statement(
        number="Theorem 4.3(1)",
        says="multi-modal: loss at most eps by T*",
        rows=(("convergence", "Theorem 4.3(1)"),),
    ),
    Statement(
        number="Theorem 4.3(2)",
        says="multi-modal: test error is o(1)",
        rows=(("test_error", "Theorem 4.3"),),
    ),
    Statement(
        number="Lemmas 5.1, 5.3, (11) to (18)",
        says="recursions of gamma and rho",
        command="pytest tests/engines",
        verdict="exact: engines that train by them agree with autograd to rounding",
    ),
    Statement(
        number="Lemma 5.2",
        says="single-modal: at T1 noise is Omega(1), signal O~(1 / sqrt(n))",
        rows=(
            ("growth", "Lemma 5.2"),
            ("growth", "Lemmas 5.2"),
            ("first_stage", "Lemma 5.2"),
            ("scale", "Lemma 5.2"),
        ),
    ),
    Statement(
        number="Lemma 5.4",
        says="multi-modal: at T1 signal is Omega(1), noise O~(1 / sqrt(n))",
        rows=(
            ("growth", "Lemma 5.4"),
            ("growth", "Lemmas 5.2"),
            ("first_stage", "Lemma 5.4"),
            ("scale", "Lemma 5.4"),
            ("scale", "rates of Lemmas 5.4"),
        ),
    ),
    Statement(
        number="Lemmas B.1 to B.5",
        says="concentration of noise, weights, labels and active neurons",
        rows=(("concentration", "Lemmas B.1"),),
    ),
    Statement(
        number="Lemmas C.1, C.2",
        says="single-modal: softmax weights are 1 / (M + 1) up to a constant in the first stage",
        rows=(("couplings", "Lemmas C.1"),),
    ),
    Statement(
        number="Lemma C.3",
        says="single-modal: signs of <w_r, mu> stay, |gamma_r| grows",
        rows=(("signs", "Lemma C.3"), ("stage2", "Lemma C.3")),
    ),
    Statement(
        number="Lemma C.4",
        says="single-modal: signal grows by at most 1 + 0.52 x rate",
        rows=(("growth", "Lemma C.4"),),
    ),
    Statement(
        number="Lemmas C.5, C.6, C.8, C.10, C.12",
        says="concentration at the start",
        verdict=_START,
    ),
    Statement(
        number="Lemma C.7",
        says="single-modal: initially inactive pairs stay inactive",
        rows=(("pairs", "Lemma C.7"),),
    ),
    Statement(
        number="Lemma C.9",
        says="single-modal: B_r(0) is O(sqrt(n))",
        rows=(("pairs", "Lemma C.9"),),
    ),
    Statement(
        number="Lemma C.11, (22) to (24)",
        says="single-modal: rho of every initially active pair grows",
        rows=(("pairs", "Lemma C.11"),),
    ),
    Statement(
        number="Proposition C.13",
        says="single-modal: coefficients are of order log t",
        rows=(("stage2", "Proposition C.13"),),
    ),
    Statement(
        number="Lemma C.14",
        says="single-modal: |grad L|^2 <= O(max(|mu|^2, sigma_xi^2 d)) L",
        rows=(("convergence", "Lemma C.14"),),
    ),
    Statement(
        number="Lemmas C.15 to C.17",
        says="single-modal: second stage, towards convergence",
        verdict=_STEPS.format("Theorem 4.2(1)"),
    ),
    Statement(
        number="Lemma C.18",
        says="single-modal: gamma <= 3 beta in the second stage",
        rows=(("stage2", "Lemma C.18"), ("stage2", "section 5.1")),
    ),
    Statement(
        number="Lemmas D.1, D.2",
        says="multi-modal: softmax weights are 1 / (M + 1) up to a constant in the first stage",
        rows=(("couplings", "Lemmas D.1"),),
    ),
    Statement(
        number="Lemma D.3(1)",
        says="multi-modal: the set of neurons positive in both modalities never changes",
        rows=(("signs", "Lemma D.3(1)"),),
    ),
    Statement(
        number="Lemma D.3(3)",
        says="multi-modal: signs of <w_r, mu> and <w~_r, mu~> synchronise",
        rows=(("signs", "Lemma D.3(3)"),),
    ),
    Statement(
        number="Lemma D.4",
        says="multi-modal: signal grows by at least 1 + 0.48 x C_mu x rate",
        rows=(("growth", "Lemma 5.4"),),
    ),
    Statement(
        number="Lemmas D.5 to D.7, D.10",
        says="concentration at the start",
        verdict=_START,
    ),
    Statement(
        number="Lemma D.8",
        says="multi-modal: needs n >= 1,280,000 log(4 / delta)",
        command="mmcl_fast.theory.assumption_4_1",
        verdict="not checked: no run here has so many samples",
    ),
    Statement(
        number="Lemma D.9",
        says="multi-modal: noise grows by at most 1 + 1.06 x rate",
        rows=(("growth", "Lemma D.9"),),
    ),
    Statement(
        number="Lemmas D.11 to D.14",
        says="multi-modal: second stage, towards convergence",
        verdict=_STEPS.format("Theorem 4.3(1)"),
    ),
    Statement(
        number="Lemma D.15",
        says="multi-modal: |rho| <= sigma_0 sigma_xi sqrt(d) in the second stage",
        rows=(("stage2", "Lemma D.15"), ("stage2", "section 5.2")),
    ),
    Statement(
        number="Figure 1",
        says="loss, accuracy, signal and noise of both modalities",
        command="mmcl figure1",
        verdict="[Claims](claims.md)",
    ),
    Statement(
        number="Table 1",
        says="ColoredMNIST, four numbers",
        command="mmcl table1 --data DIR",
        verdict="[Claims](claims.md)",
    ),
)
"""In the paper's order."""


def coverage_markdown(results: Mapping[str, Any]) -> str:
    """The table of all statements.

    Args:
        results: Content of `theory.json`, with every check.

    Raises: KeyError: a check is missing. ValueError: a statement's rows are.
    """
    lines = [HEADER, ("---",) * len(HEADER), *(_line(s, results) for s in STATEMENTS)]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def rows_of(statement: Statement, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a results file that decide a statement; raises as `coverage_markdown`."""
    return [row for check, source in statement.rows for row in _matching(results, check, source)]


def _matching(results: Mapping[str, Any], check: str, source: str) -> Iterator[dict[str, Any]]:
    found = [row for row in results["checks"][check]["rows"] if row["source"].startswith(source)]
    if not found:
        raise ValueError(f"{check}: expected a row whose source begins with {source!r}, got none")
    yield from found


def _line(statement: Statement, results: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if not statement.rows:
        command = f"`{statement.command}`" if statement.command != "none" else "none"
        return statement.number, statement.says, command, statement.verdict
    checks = dict.fromkeys(check for check, _ in statement.rows)
    command = f"`mmcl theory --checks {' '.join(checks)}`"
    return statement.number, statement.says, command, _verdict(rows_of(statement, results))


def _verdict(rows: list[dict[str, Any]]) -> str:
    differing = [row for row in rows if not row["agrees"]]
    if not differing:
        return f"agrees ({len(rows)} rows)" if len(rows) > 1 else "agrees"
    said = "; ".join(
        f"DIFFERS: {row['quantity']}: {row['mean']:.3g}, predicted {row['predicted']}"
        for row in differing
    )
    agreeing = len(rows) - len(differing)
    if not agreeing:
        return said
    return f"{said}; {agreeing} other {'rows agree' if agreeing > 1 else 'row agrees'}"


def _cell(text: str) -> str:
    """A bar inside a cell would end it."""
    return text.replace("|", "\\|")


__all__ = ["STATEMENTS", "Statement", "coverage_markdown", "rows_of"]
