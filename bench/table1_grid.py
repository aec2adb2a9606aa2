"""How Table 1's answer moves with views, readout, loss and reading of the protocol.

One change from the defaults per row, one seed, 10000 training images (half of the table's, so that
it is affordable): `python -m bench.table1_grid --data DIR` prints the Markdown tables of
`docs/table1.md`, one a group. Jobs run side by side, one thread each.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mmcl_fast.data.mnist_files import Digits, load_digits
from mmcl_fast.experiments.table1.arms import make_arm, train_arm
from mmcl_fast.experiments.table1.experiment import make_sets
from mmcl_fast.experiments.table1.protocol import FULL_VIEWS, ArmName, Table1Config
from mmcl_fast.experiments.table1.readout import embed_images, fit_probe, percent_right

PENALTIES = (0.0, 1e-3, 1e-2, 1e-1)
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


def accuracies(digits: Digits, name: ArmName, cfg: Table1Config, seed: int) -> dict[Any, Any]:
    """Accuracy by set, by each penalty of the probe and, with key None, by the arm's own scores."""
    sets = make_sets(digits, cfg, seed)
    arm = make_arm(name, cfg, sets["train"], seed)
    train_arm(arm, lambda: None)
    features = {kind: embed_images(arm.encoder, data) for kind, data in sets.items()}
    labels = {kind: data.labels for kind, data in sets.items()}
    if cfg.colours.tied == "first_two":
        tied = labels["rev"] < 2
        features["rev"], labels["rev"] = features["rev"][tied], labels["rev"][tied]
    found: dict[Any, Any] = {}
    for l2 in PENALTIES:
        inputs, targets = features["train"], labels["train"]
        probe = fit_probe(inputs, targets, l2=l2, iterations=cfg.probe_iterations)
        found[l2] = percent_right({k: probe.predict(v) for k, v in features.items()}, labels)
    with torch.no_grad():
        scores = {kind: arm.scores(values) for kind, values in features.items()}
    own = {kind: values.argmax(1) for kind, values in scores.items() if values is not None}
    return found | ({None: percent_right(own, labels)} if own else {})


def cell(found: dict[str, float]) -> str:
    """Training and reversed test accuracy."""
    return f"{found['train']:.1f} / {found['rev']:.1f}"


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


def render(group: str, results: dict[Job, dict[Any, Any]]) -> str:
    """A group's table in Markdown; each cell is training / reversed test accuracy."""
    heads = ["no L2", *(f"L2 {l2:g}" for l2 in PENALTIES[1:])]
    if group == "readings":
        lines = ["| reading | multi, zero-shot | multi, probe | single, probe | single, no L2 |"]
        for row, (_, changes) in zip(READINGS, jobs_of("multi", READINGS), strict=True):
            multi, single = results["multi", changes], results["single", changes]
            cells = [multi[None], multi[1e-2], single[1e-2], single[0.0]]
            lines.append(f"| {row} | {' | '.join(map(cell, cells))} |")
    else:
        single = group == "views"
        keys = PENALTIES if single else (None, *PENALTIES)
        first = "| single-modal, views |" if single else "| multi-modal | zero-shot |"
        lines = [f"{first} {' | '.join(heads)} |"]
        for row, job in zip(VIEWS if single else LOSSES, GROUPS[group], strict=True):
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
    options = parser.parse_args()
    digits = load_digits(options.data)
    base = Table1Config(images=options.images)

    def work(job: Job) -> dict[Any, Any]:
        name, changes = job
        found = accuracies(digits, name, base.replace(**dict(changes)), options.seed)
        sys.stderr.write(f"{name} {dict(changes)}: {found}\n")
        return found

    results: dict[Job, dict[Any, Any]] = {}
    with ThreadPoolExecutor(options.threads, "grid", torch.set_num_threads, (1,)) as pool:
        for group in options.groups:
            left = [job for job in GROUPS[group] if job not in results]
            results |= dict(zip(left, pool.map(work, left), strict=True))
            print(f"\n{render(group, results)}", flush=True)


if __name__ == "__main__":
    main()
