"""Tables of findings: what runs gave beside what the paper says, from committed results."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from statistics import median
from typing import Any

from mmcl_fast.experiments.table1.report import ARM_NAMES, readout_name
from mmcl_fast.experiments.theory_checks.coverage import coverage_markdown
from mmcl_fast.experiments.theory_checks.report import json_to_markdown

from ..science.table1_grid import GROUPS, render, results_of
from .tables import MISSING, RESULTS, latest, mathematics, source, table, wrap

PANELS = {
    "loss": ("training loss", "both converge rapidly"),
    "ood_accuracy": ("OOD test accuracy", "multi-modal nearly 1.0, single-modal around 0.5"),
    "signal": ("signal learning", "multi-modal much higher"),
    "noise": ("noise memorisation", "single-modal higher"),
}


def figure1_table() -> str:
    """Final values of Figure 1 beside what the paper prints."""
    results = json.loads((RESULTS / "figure1.json").read_text())
    epochs, count = results["epochs"][-1], len(results["config"]["seeds"])
    head = f"after {epochs} epochs, {count} seeds, mean ± s.d."
    lines = (
        [title, *(_cell(results[m][name], name) for m in ("single", "multi")), claim]
        for name, (title, claim) in PANELS.items()
    )
    return table([head, "single-modal", "multi-modal", "the paper prints"], lines)


def _cell(curve: Mapping[str, Any], name: str) -> str:
    text = f"{curve['mean'][-1]:.3f} ± {curve['sd'][-1]:.3f}"
    return f"{curve['mean'][0]:.2f} → {text}" if name == "loss" else text


def claims_table() -> str:
    """Rows of docs/claims.md that Figure 1 decides."""
    results = json.loads((RESULTS / "figure1.json").read_text())

    def last(modality: str, name: str) -> float:
        return float(results[modality][name]["mean"][-1])

    def both(name: str) -> str:
        cells = (_cell(results[m][name], "") for m in ("single", "multi"))
        return "single {}, multi {}".format(*cells)

    loss = max(last(m, "loss") for m in ("single", "multi"))
    accuracy, signal, noise = (
        {m: last(m, name) for m in ("single", "multi")}
        for name in ("ood_accuracy", "signal", "noise")
    )
    more_signal, more_noise = (
        signal["multi"] > 3 * signal["single"],
        noise["single"] > noise["multi"],
    )
    checks = (
        ("both training losses converge", "loss", "near 0", loss < 0.01),
        (
            "multi-modal learning generalises",
            "ood_accuracy",
            "nearly 1.0",
            accuracy["multi"] > 0.93,
        ),
        (
            "single-modal learning stagnates",
            "ood_accuracy",
            "around 0.5",
            accuracy["single"] < 0.62,
        ),
        ("multi-modal learns more signal", "signal", "much higher", more_signal),
        ("single-modal memorises more noise", "noise", "higher", more_noise),
    )
    lines = []
    for claim, name, paper, holds in checks:
        status = "reproduced" if holds else "NOT reproduced"
        lines.append([claim, "`mmcl figure1`", paper, both(name), status])
    return table(["claim (Figure 1)", "command", "paper", "ours", "status"], lines)


def _table1_row(sets: Mapping[str, Any], digits: int) -> list[str]:
    kinds = ("train", "id", "rand", "rev")
    return [f"{sets[k]['mean']:.{digits}f} ± {sets[k]['sd']:.{digits}f}" for k in kinds]


def table1_table() -> str:
    """Every arm and readout of Table 1."""
    results = json.loads((RESULTS / "table1.json").read_text())
    lines = [
        [title, readout_name(readout, results["config"]), *_table1_row(sets, 1)]
        for arm, title in ARM_NAMES.items()
        if arm in results
        for readout, sets in results[arm].items()
    ]
    count = len(results["config"]["seeds"])
    text = f"Percent, {count} seeds, mean ± s.d. (`bench/results/table1.json`):"
    return "\n\n".join((text, table(["arm", "readout", "train", "ID", "Rand", "Rev"], lines)))


def table1_claims() -> str:
    """Rows of docs/claims.md that Table 1 decides."""
    results = json.loads((RESULTS / "table1.json").read_text())
    multi, single = results["multi"]["zero_shot"], results["single"]["probe"]

    def cell(sets: Mapping[str, Any], kind: str) -> str:
        return f"{sets[kind]['mean']:.1f} ± {sets[kind]['sd']:.1f}"

    rows = (
        ("single-modal, training", "88.43", single, "train", 86, 90),
        ("single-modal, reversed colours", "12.68", single, "rev", 8, 16),
        ("multi-modal, training", "87.77", multi, "train", 86, 90),
        ("multi-modal, reversed colours", "82.13", multi, "rev", 78, 88),
    )
    lines = []
    for claim, paper, sets, kind, low, high in rows:
        holds = low <= sets[kind]["mean"] <= high
        status = "reproduced" if holds else "NOT reproduced: [why](table1.md)"
        lines.append([claim, "`mmcl table1 --data DIR`", paper, cell(sets, kind), status])
    return table(["claim (Table 1), percent", "command", "paper", "ours", "status"], lines)


def _source(row: Mapping[str, Any]) -> str:
    return source(row, f"{row['cores']} CPUs")


def table1_grid_tables() -> str:
    """How Table 1 moves with views, loss and readings."""
    rows = latest(RESULTS / "table1_grid.jsonl", "table1_grid")
    settings, results = rows[0]["settings"], results_of(rows)
    text = (
        f"Training / reversed test accuracy, seed {settings['seed']}, {settings['images']:,} "
        "training images (half of the table's), one change per row:"
    )
    parts = (wrap(text), *(render(group, results) for group in GROUPS), _source(rows[0]))
    return "\n\n".join(parts)


def theory_table() -> str:
    """Rows of `theory.md`."""
    return mathematics(json_to_markdown(json.loads((RESULTS / "theory.json").read_text())).rstrip())


def coverage_table() -> str:
    """Every numbered statement of the paper, with the verdicts of `theory.json`."""
    results = json.loads((RESULTS / "theory.json").read_text())
    return mathematics(coverage_markdown(results).rstrip())


def readings_table() -> str:
    """Figure 1 under other readings of what the paper does not state."""
    rows = latest(RESULTS / "findings.jsonl", "readings")
    curves = {"loss": "loss", "ood_accuracy": "OOD accuracy", "noise": "noise"}
    lines = [
        ["the paper prints", "near 0", "near 0", "around 0.5", "nearly 1.0", "higher", "lower"]
    ]
    for row in rows:
        cells = [mathematics(re.sub(r"^tau\b", r"$\\tau$", row["variant"]))]
        for curve in curves:
            for values in (row["single"], row["multi"]):
                v = values.get(curve)
                cells.append(f"{v['mean']:.3f} ± {v['sd']:.3f}" if v else MISSING)
        lines.append(cells)
    head = [f"{title}, {m}" for title in curves.values() for m in ("single", "multi")]
    settings = rows[0]["settings"]
    text = f"After {settings['epochs']} epochs, {settings['seeds']} seeds, mean ± s.d.:"
    return "\n\n".join((text, table(["reading", *head], lines), _source(rows[0])))


# Plane, name of its axis, and the least value from which columns are counted.
SPANS = (
    ("cmu-nsnr2", "C_mu", 0.0),
    ("n-snr", "n", 0.0),
    ("d", "d", 1e4),
    ("m", "m", 18.0),
)


def phase_table() -> str:
    """Where accuracy rises on each plane, in n SNR^2, over the columns of a span."""
    rows = latest(RESULTS / "findings.jsonl", "phase", "phase_smaller_steps")
    lines = []
    for plane, axis, least in SPANS:
        for row in rows:
            if row["settings"]["plane"] != plane or row["op"] != "phase":
                continue
            columns = zip(row["x"], row["measured"], row["predicted"], strict=True)
            crossings = [
                (x, *(_n_snr2(plane, x, y) for y in (measured, predicted)))
                for x, measured, predicted in columns
                if x >= least and None not in (measured, predicted)
            ]
            offsets = [measured / predicted for _, measured, predicted in crossings]
            products = (
                [x * measured for x, measured, _ in crossings] if plane == "cmu-nsnr2" else []
            )
            xs = [x for x, *_ in crossings]
            lines.append(
                [
                    f"{axis} = {min(xs):,.4g} to {max(xs):,.4g}",
                    row["variant"],
                    _range([measured for _, measured, _ in crossings]),
                    _range(products) if products and row["variant"] == "multi" else MISSING,
                    f"{median(offsets):.2f} ({_range(offsets)})",
                    str(row["left_out"]),
                ]
            )
    head = ["columns", "modality", "half-way at n SNR^2", "C_mu n SNR^2"]
    head += ["over the solid line: median (range)", "diverged runs of the plane"]
    steps = [row for row in rows if row["op"] == "phase_smaller_steps"]
    shown = mathematics(table(head, lines))
    parts = [shown, *(wrap(_smaller_steps(step)) for step in steps), _source(rows[0])]
    return "\n\n".join(parts)


def _n_snr2(plane: str, x: float, y: float) -> float:
    return x * y * y if plane == "n-snr" else y


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f} to {high:.2f}" if math.isfinite(low) else MISSING


def _smaller_steps(row: Mapping[str, Any]) -> str:
    settings, (low, high) = row["settings"], row["step"]
    return mathematics(
        f"Cells of the plane of n and SNR far above the {row['variant']}-modal border with a lower "
        f"accuracy: {row['cells']}, with eta |mu|^2 / (m tau) from {low:.2g} to {high:.2g}. With "
        f"1/{settings['eta_over']} of the step and {settings['epochs']:,} epochs the least of "
        f"their accuracies is {row['least_accuracy']:.3f}."
    )


__all__ = [
    "claims_table",
    "coverage_table",
    "figure1_table",
    "phase_table",
    "readings_table",
    "table1_claims",
    "table1_grid_tables",
    "table1_table",
    "theory_table",
]
