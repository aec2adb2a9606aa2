"""Accuracy of a decision by colour alone under readings of Table 1's data; no network is trained.

`python -m bench.science.table1_colours --data DIR [--json FILE]` prints the Markdown table of
`docs/table1.md` and appends a row a reading: mean and sample standard deviation over seeds on the
images of each, and the accuracy in law.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmcl_fast.data.mnist.files import load_digits
from mmcl_fast.experiments.table1.accounting import zero_one_name
from mmcl_fast.experiments.table1.colour_only import colour_only
from mmcl_fast.experiments.table1.protocol import PAPER, Table1Config
from mmcl_fast.experiments.table1.report import colour_only_json

from .. import record

SEEDS = 100
TEXT = {"tied": "first_two", "noise_to": "any"}
# Changes from the defaults, by the row's name.
READINGS: dict[str, dict[str, Any]] = {
    "all ten classes tied (the default)": {},
    "classes 0, 1 tied, a replaced label is any": TEXT,
    "the same, all 60,000 images": {**TEXT, "images": 60_000},
    "the same, a replaced colour is any": {**TEXT, "colour_to": "any"},
    "the same, colour from the true digit": {**TEXT, "colour_from": "digit"},
}
ENDS = ("train", "rev")


def row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the results file; percent by set and accounting."""
    keys = [key for kind in ENDS for key in (kind, zero_one_name(kind))]
    sampled = {key: {k: round(found["sampled"][key][k], 4) for k in ("mean", "sd")} for key in keys}
    law = {key: round(found["law"][key], 4) for key in keys}
    settings = {"seeds": SEEDS, "changes": READINGS[name]}
    return {"op": "table1_colours", "variant": name, "settings": settings} | {
        "sampled": sampled,
        "law": law,
    }


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """The table in Markdown; training / reversed test accuracy."""
    lines = ["| reading | ten classes | 0 against 1 | the same, in law | the paper's, in s.d. |"]
    lines += ["|" + " --- |" * 5]
    for found in rows:
        sampled, law = found["sampled"], found["law"]
        ten = [sampled[kind] for kind in ENDS]
        two = [sampled[zero_one_name(kind)] for kind in ENDS]
        away = [
            (PAPER["single"][kind] - value["mean"]) / value["sd"]
            for kind, value in zip(ENDS, two, strict=True)
        ]
        cells = [
            " / ".join(f"{v['mean']:.1f} ± {v['sd']:.1f}" for v in ten),
            " / ".join(f"{v['mean']:.2f} ± {v['sd']:.2f}" for v in two),
            " / ".join(f"{law[zero_one_name(kind)]:.2f}" for kind in ENDS),
            " / ".join(f"{round(z, 1) + 0.0:+.1f}" for z in away),  # 0.0: no -0.0
        ]
        lines.append(f"| {found['variant']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Count every reading, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the MNIST files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    options = parser.parse_args()
    before = record.environment()
    digits = load_digits(options.data)
    rows = [
        row(
            name,
            colour_only_json(colour_only(digits, Table1Config().replace(**changes), range(SEEDS))),
        )
        for name, changes in READINGS.items()
    ]
    print(render(rows))
    if options.json:
        record.append(options.json, [{**found, **before} for found in rows])


if __name__ == "__main__":
    main()
