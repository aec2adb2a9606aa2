"""Tables of findings: what runs gave beside what the paper says, from committed results."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from statistics import median
from typing import Any

from mmcl_fast.experiments.theory_checks.coverage import coverage_markdown
from mmcl_fast.experiments.theory_checks.report import json_to_markdown

from .tables import MISSING, RESULTS, latest, mathematics, source_of_all, table, wrap

PANELS = {
    "loss": ("training loss", "both converge rapidly"),
    "ood_accuracy": ("OOD test accuracy", "multi-modal nearly 1.0, single-modal around 0.5"),
    "signal": ("signal learning", "multi-modal much higher"),
    "noise": ("noise memorisation", "single-modal higher"),
}


def figure1_table() -> str:
    """Final values of Figure 1 beside what the paper prints."""
    results = json.loads((RESULTS / "figure1.json").read_text(encoding="utf-8"))
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
    results = json.loads((RESULTS / "figure1.json").read_text(encoding="utf-8"))

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


def theory_table() -> str:
    """Rows of `theory.md`."""
    return mathematics(
        json_to_markdown(json.loads((RESULTS / "theory.json").read_text(encoding="utf-8"))).rstrip()
    )


def coverage_table() -> str:
    """Every numbered statement of the paper, with the verdicts of `theory.json`."""
    results = json.loads((RESULTS / "theory.json").read_text(encoding="utf-8"))
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
    return "\n\n".join((text, table(["reading", *head], lines), source_of_all(rows[0])))


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
    parts = [shown, *(wrap(_smaller_steps(step)) for step in steps), source_of_all(rows[0])]
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
    "theory_table",
]
