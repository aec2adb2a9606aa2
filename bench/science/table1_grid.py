"""Sensitivity of Table 1 to views, readout, loss and interpretation of the protocol.

One change from the defaults per row, one seed, 10000 training images (half of the table's, so that
it is affordable): `python -m bench.science.table1_grid --data DIR [--json FILE]` prints the
Markdown tables of `docs/table1.md`, one a group, and appends one row a job. Jobs run side by side,
one thread each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mmcl_fast.data.mnist.files import Digits, load_digits
from mmcl_fast.experiments.table1.accounting import percent_right
from mmcl_fast.experiments.table1.arms import make_arm, train_arm
from mmcl_fast.experiments.table1.protocol import FULL_VIEWS, ArmName, Table1Config
from mmcl_fast.experiments.table1.readout import embed_images, fit_probe
from mmcl_fast.experiments.table1.sets import make_sets

from .. import record

PENALTIES = {"no L2": 0.0, "L2 0.001": 1e-3, "L2 0.01": 1e-2, "L2 0.1": 1e-1}
ZERO_SHOT = "zero-shot"
FULL = vars(FULL_VIEWS)
# Changes from the defaults, by the row's name.
VIEWS: dict[str, dict[str, Any]] = {
    "crop, area 0.5 to 1": {"min_area": 0.5},
    "crop, area 0.08 to 1 (the default)": {},
    "the default + jitter 0.125": {"jitter": 0.125},
    "the default + jitter 0.25": {"jitter": 0.25},
    "the default + jitter 0.5": {"jitter": 0.5},
    "the default + grey 0.2": {"grey": 0.2},
    "all: crop, flip, jitter 0.5, grey 0.2": FULL,
}
LOSSES: dict[str, dict[str, Any]] = {
    "temperature 0.1 (the default)": {},
    "temperature 0.2": {"multi_temperature": 0.2},
    "temperature 0.5": {"multi_temperature": 0.5},
    "temperature 1": {"multi_temperature": 1.0},
    "caption with the true digit": {"caption": "digit"},
}
READINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "only classes 0, 1 tied (Rev on those)": {"tied": "first_two"},
    "colour from the true digit": {"colour_from": "digit"},
    "MLP, 14 x 14 pixels": {"encoder": "mlp", "pixels": "every_second"},
}


Accuracies = dict[str, dict[str, float]]  # by readout and set


def accuracies(digits: Digits, name: ArmName, cfg: Table1Config, seed: int) -> Accuracies:
    """Accuracy of the probe under each penalty and, where the arm has its own scores, of those."""
    sets = make_sets(digits, cfg, seed)
    arm = make_arm(name, cfg, sets["train"], seed)
    train_arm(arm, lambda: None)
    features = {kind: embed_images(arm.encoder, data) for kind, data in sets.items()}
    labels = {kind: data.labels for kind, data in sets.items()}
    if cfg.colours.tied == "first_two":
        tied = labels["rev"] < 2
        features["rev"], labels["rev"] = features["rev"][tied], labels["rev"][tied]
    accuracy_of: Accuracies = {}
    for title, l2 in PENALTIES.items():
        inputs, targets = features["train"], labels["train"]
        probe = fit_probe(inputs, targets, l2=l2, iterations=cfg.probe_iterations)
        accuracy_of[title] = percent_right(
            {k: probe.predict(v) for k, v in features.items()}, labels
        )
    with torch.no_grad():
        scores = {kind: arm.scores(values) for kind, values in features.items()}
    predictions = {kind: values.argmax(1) for kind, values in scores.items() if values is not None}
    return accuracy_of | ({ZERO_SHOT: percent_right(predictions, labels)} if predictions else {})


def cell(accuracy_of: dict[str, float]) -> str:
    """Training and reversed test accuracy."""
    return f"{accuracy_of['train']:.1f} / {accuracy_of['rev']:.1f}"


Job = tuple[ArmName, tuple[tuple[str, Any], ...]]


def jobs_of(name: ArmName, rows: dict[str, dict[str, Any]]) -> list[Job]:
    """One job a row."""
    return [(name, tuple(changes.items())) for changes in rows.values()]


# The jobs of each table.
GROUPS: dict[str, list[Job]] = {
    "views": jobs_of("single", VIEWS),
    "losses": jobs_of("multi", LOSSES),
    "readings": [*jobs_of("multi", READINGS), *jobs_of("single", READINGS)],
}


def results_of(rows: Iterable[Mapping[str, Any]]) -> dict[Job, Accuracies]:
    """What committed rows say, by job."""
    return {
        (row["variant"], tuple(row["settings"]["changes"].items())): row["accuracy"] for row in rows
    }


def render(group: str, results: Mapping[Job, Accuracies]) -> str:
    """A group's table in Markdown; each cell is training / reversed test accuracy."""
    if group == "readings":
        lines = ["| reading | multi, zero-shot | multi, probe | single, probe | single, no L2 |"]
        for row, (_, changes) in zip(READINGS, jobs_of("multi", READINGS), strict=True):
            multi, single = results["multi", changes], results["single", changes]
            cells = [multi[ZERO_SHOT], multi["L2 0.01"], single["L2 0.01"], single["no L2"]]
            lines.append(f"| {row} | {' | '.join(map(cell, cells))} |")
    else:
        names = VIEWS if group == "views" else LOSSES
        keys = [*PENALTIES] if group == "views" else [ZERO_SHOT, *PENALTIES]
        first = "single-modal, views" if group == "views" else "multi-modal"
        lines = [f"| {first} | {' | '.join(keys)} |"]
        for row, job in zip(names, GROUPS[group], strict=True):
            lines.append(f"| {row} | {' | '.join(cell(results[job][key]) for key in keys)} |")
    columns = lines[0].count("|") - 1
    return "\n".join([lines[0], "|" + " --- |" * columns, *lines[1:]])


def main() -> None:
    """Train the groups' jobs, print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the MNIST files")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    options = parser.parse_args()
    before = record.environment()
    digits = load_digits(options.data)
    base = Table1Config(images=options.images)

    def work(job: Job) -> Accuracies:
        name, changes = job
        results = accuracies(digits, name, base.replace(**dict(changes)), options.seed)
        sys.stderr.write(f"{name} {dict(changes)}: {results}\n")
        return results

    results: dict[Job, Accuracies] = {}
    with ThreadPoolExecutor(options.threads, "grid", torch.set_num_threads, (1,)) as pool:
        for group in options.groups:
            left = [job for job in GROUPS[group] if job not in results]
            results |= dict(zip(left, pool.map(work, left), strict=True))
            print(f"\n{render(group, results)}", flush=True)
    if options.json:
        shared = {"seed": options.seed, "images": options.images}
        rows = (
            {"op": "table1_grid", "variant": name, "settings": {**shared, "changes": dict(changes)}}
            for name, changes in results
        )
        pairs = zip(rows, results.values(), strict=True)
        record.append(
            options.json, [{**row, "accuracy": accuracy, **before} for row, accuracy in pairs]
        )


if __name__ == "__main__":
    main()
