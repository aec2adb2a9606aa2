"""`table1.json` and `table1.md`: the results beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mmcl_fast.environment import environment
from mmcl_fast.experiments.table1.accounting import tied_name, zero_one_name
from mmcl_fast.experiments.table1.colour_only import ColourOnly
from mmcl_fast.experiments.table1.experiment import MAIN_READOUT, Table1
from mmcl_fast.experiments.table1.protocol import PAPER, SETS, ArmName

ARM_NAMES = {
    "multi": "multi-modal, InfoNCE",
    "single": "single-modal, NT-Xent, chosen views",
    "single_full": "single-modal, NT-Xent, all of SimCLR's views",
    "two_head": "multi-modal, two-head cross-entropy",
    "supervised": "supervised cross-entropy (control)",
}
SHORT_NAMES = {
    "multi": "multi-modal",
    "single": "single-modal",
    "single_full": "single-modal, all views",
    "two_head": "two-head CE",
    "supervised": "supervised",
}
SET_NAMES = {"train": "train", "id": "test, ID", "rand": "test, Rand", "rev": "test, Rev"}


def readout_name(readout: str, config: dict[str, Any]) -> str:
    """A readout in words."""
    return {
        "zero_shot": "zero-shot",
        "head": "its own head",
        "digit_head": "its digit head",
        "probe": f"linear probe, L2 {config['probe_l2']:g}",
        "probe_no_l2": "linear probe, no L2",
        "probe_few_labels": f"linear probe on {config['few_labels']} labels, train: on those",
        "digit_probe": "linear probe for the true digit",
        "centroids": "class centroids of unit features",
        "probe_few_epochs": f"linear probe of unit features, {config['few_epochs']} epochs",
    }[readout]


def to_json(table: Table1) -> dict[str, Any]:
    """The contract of `table1.json`: percent, by arm, readout and set.

    Keys of an arm are its readouts, those of a readout its sets (accuracy in ten classes; other
    accountings by `mmcl_fast.experiments.table1.accounting`), those of a set mean, sd, per_seed.
    """
    paper = {arm: dict(values) for arm, values in PAPER.items()}
    settings = {"seeds": list(table.seeds), "arms": list(table.arms), "paper": paper}
    results: dict[str, Any] = {"config": table.config.to_dict() | settings}
    for arm in table.arms:
        per_seed = [table.results[arm, seed].accuracy for seed in table.seeds]
        readouts = sorted(per_seed[0], key=lambda name: name != MAIN_READOUT[arm])
        results[arm] = {
            readout: {
                kind: _summary([accuracy[readout][kind] for accuracy in per_seed])
                for kind in per_seed[0][readout]
            }
            for readout in readouts
        }
    exact = colour_only_json(table.colour_only)
    return results | {"colour_only": exact, "environment": environment(table.device)}


def colour_only_json(found: ColourOnly) -> dict[str, Any]:
    """Percent right by colour alone: {"sampled": {set: mean, sd, per_seed}, "law": {set: x}}."""
    percents = list(found.by_seed.values())
    sampled = {kind: _summary([p[kind] for p in percents]) for kind in percents[0]}
    return {"sampled": sampled, "law": found.law}


def _summary(values: list[float]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds (0 for one seed)."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((v - mean) ** 2 for v in values)
    sd = math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else 0.0
    return {"mean": mean, "sd": sd, "per_seed": values}


def to_markdown(table: Table1, results: dict[str, Any]) -> str:
    """`table1.md` from the table and its JSON."""
    count = len(table.seeds)
    lines = [
        "# Table 1: ColoredMNIST",
        "",
        f"Accuracy in percent against the noisy labels, mean ± s.d. over {count} "
        f"seed{'s' * (count > 1)}; the paper prints one number each.",
        "ID: colours as in training. Rand: uniform colours. Rev: reversed colours (the paper's "
        "test set).",
        "",
        "| arm | readout | " + " | ".join(SET_NAMES[kind] for kind in SETS) + " |",
        "| --- | --- |" + " --- |" * len(SETS),
    ]
    for arm in table.arms:
        if arm in PAPER:
            cells = [f"{PAPER[arm][kind]:.2f}" if kind in PAPER[arm] else "" for kind in SETS]
            lines.append(
                f"| **{ARM_NAMES[arm].split(',')[0]}** | **paper** | {' | '.join(cells)} |"
            )
        for readout, sets in results[arm].items():
            cells = [f"{sets[kind]['mean']:.2f} ± {sets[kind]['sd']:.2f}" for kind in SETS]
            name = readout_name(readout, results["config"])
            lines.append(f"| {ARM_NAMES[arm]} | {name} | {' | '.join(cells)} |")
    lines += ["", "The linear probe for the true digit is scored against the true digits.", ""]
    lines += _accounting_lines(results)
    lines += _confusion_lines(table)
    settings = ", ".join(f"{k} {v}" for k, v in table.config.to_dict().items())
    lines += [f"Settings: {settings}.", ""]
    return "\n".join(lines)


def accounting_table(results: dict[str, Any], digits: int) -> str:
    """Every readout that has several accountings, training / Rev, in Markdown.

    Args:
        results: What `to_json` returned.
        digits: Digits after the decimal point.
    """
    names: dict[str, Callable[[str], str]] = {"ten classes": str}
    if results["config"]["tied"] == "first_two":
        names |= {"ten classes, labelled 0 or 1": tied_name}
    names |= {"0 against 1": zero_one_name}
    law = {kind: {"mean": percent} for kind, percent in results["colour_only"]["law"].items()}
    rows = [
        (ARM_NAMES[arm], readout_name(readout, results["config"]), sets)
        for arm in results["config"]["arms"]
        for readout, sets in results[arm].items()
        if zero_one_name("rev") in sets
    ]
    exact = results["colour_only"]["sampled"]
    rows += [
        ("colour alone, no network", "best rule for the training images", exact),
        ("colour alone, no network", "best rule for the distribution, in law", law),
    ]
    lines = [
        f"| arm | readout | {' | '.join(names)} |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for title, readout, sets in rows:
        cells = [
            " / ".join(percent_cell(sets[rename(kind)], digits) for kind in ("train", "rev"))
            for rename in names.values()
        ]
        lines.append(f"| {title} | {readout} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _accounting_lines(results: dict[str, Any]) -> list[str]:
    papers = [f"{a}-modal {v['train']:.2f} / {v['rev']:.2f}" for a, v in PAPER.items()]
    return [
        "Accuracy by what it counts, train / test, Rev. Ten classes: all images, the class of the "
        "largest score. 0 against 1: the images labelled 0 or 1, the larger of the scores of these "
        "two classes; the probe of a few epochs is fitted to such images for it.",
        f"The paper prints {', '.join(papers)}, and does not say what it counts.",
        "",
        accounting_table(results, 2),
        "",
    ]


def percent_cell(value: dict[str, Any], digits: int) -> str:
    """Mean with its standard deviation, where there is one."""
    spread = f" ± {value['sd']:.{digits}f}" if "sd" in value else ""
    return f"{value['mean']:.{digits}f}{spread}"


def _confusion_lines(table: Table1) -> list[str]:
    lines = ["On Rev, the share of predictions that are the class which trained with that colour:"]
    lines += ["", "| arm | the colour's class | any other class |", "| --- | --- | --- |"]
    for arm in table.arms:
        share = 100.0 * colour_share(table, arm)
        lines.append(f"| {ARM_NAMES[arm]} | {share:.1f} | {100.0 - share:.1f} |")
    return [*lines, ""]


def mean_confusion(table: Table1, arm: ArmName) -> list[list[float]]:
    """Share of each class (column) among the Rev images of a colour (row), over all seeds."""
    confusion = [[0] * 10 for _ in range(10)]
    for seed in table.seeds:
        for row, counts in enumerate(table.results[arm, seed].confusion):
            confusion[row] = [a + b for a, b in zip(confusion[row], counts, strict=True)]
    return [[count / max(1, sum(row)) for count in row] for row in confusion]


def colour_share(table: Table1, arm: ArmName) -> float:
    """Share of Rev predictions equal to the class of the image's colour."""
    matching = images = 0
    for seed in table.seeds:
        counts = table.results[arm, seed].confusion
        matching += sum(counts[k][k] for k in range(10))
        images += sum(map(sum, counts))
    return matching / images


__all__ = [
    "ARM_NAMES",
    "SET_NAMES",
    "SHORT_NAMES",
    "accounting_table",
    "colour_only_json",
    "colour_share",
    "mean_confusion",
    "percent_cell",
    "readout_name",
    "to_json",
    "to_markdown",
]
