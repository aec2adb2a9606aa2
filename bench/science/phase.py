"""Where accuracy rises on the planes of `mmcl phase`, and what a smaller step changes there.

`python -m bench.science.phase [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.science.phase`. Findings, not time: `docs/phase.md` quotes the rows. Each row has,
for every value of the horizontal axis, the place on the vertical one at which the mean accuracy
passes half-way and that at which the first stages of Lemmas 5.2 and 5.4 would end together.

The row *smaller steps* trains again, with a twentieth of the step and more epochs, the runs of the
plane of n and SNR that are far above both borders and yet diverged or have a low accuracy.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl_fast.experiments.phase.diagram import Map, Phase, run_phase
from mmcl_fast.experiments.phase.planes import PLANES
from mmcl_fast.training import train_many

from .. import record
from ..arguments import make_parser

POINTS, SEEDS, EPOCHS = 16, range(5), 200  # the command's defaults
QUICK = 4, range(2), 50
STEPS, LONGER = 20, 1500  # a smaller step's divisor, and its epochs
FAR, LOW = 4.0, 0.95  # n SNR^2 over its border; mean accuracy that is low so far above it
Row = dict[str, Any]


def rows_of(found: Phase) -> list[Row]:
    """One row a modality."""
    settings = {
        "plane": found.name,
        "x": found.plane.x.name,
        "y": found.plane.y.name,
        "seeds": len(found.seeds),
        "epochs": found.epochs,
    }
    return [
        {
            "op": "phase",
            "variant": modality,
            "settings": settings,
            "x": [float(f"{x:.5g}") for x in found.xs],
            "measured": _plain(shown.measured),
            "predicted": _plain(shown.predicted),
            "left_out": found.left_out,
        }
        for modality, shown in found.maps.items()
    ]


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]


def unsettled(found: Phase, shown: Map) -> list[tuple[float, float]]:
    """Cells of the plane of n and SNR that are far above the border and yet not near 1."""
    places = []
    for j, x in enumerate(found.xs):
        for i, y in enumerate(found.ys):
            far = y**2 > FAR * shown.measured[j] ** 2
            if far and not shown.mean[i, j] >= LOW:
                places.append((x, y))
    return places


def smaller_steps(found: Phase) -> list[Row]:
    """The unsettled cells once more."""
    rows: list[Row] = []
    for modality, shown in found.maps.items():
        places = unsettled(found, shown)
        if not places:
            continue
        cells = [found.plane.cell(x, y).replace(modality=modality, n_test=500) for x, y in places]
        ratios = [cfg.eta * cfg.mu_norm**2 / (cfg.m * cfg.tau_value) for cfg in cells]
        means = []
        for cfg in cells:
            small = cfg.replace(eta=cfg.eta / STEPS, epochs=LONGER, evaluate_every=LONGER)
            runs = train_many([small.replace(seed=s) for s in found.seeds])
            means.append(float(np.mean([float(run.ood_accuracy[-1]) for run in runs])))
        rows.append(
            {
                "op": "phase_smaller_steps",
                "variant": modality,
                "settings": {"plane": found.name, "eta_over": STEPS, "epochs": LONGER},
                "cells": len(cells),
                "step": [float(f"{min(ratios):.3g}"), float(f"{max(ratios):.3g}")],
                "least_accuracy": round(min(means), 4),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("phase", __doc__).parse_args(arguments)
    before = record.environment()
    points, seeds, epochs = QUICK if args.quick else (POINTS, SEEDS, EPOCHS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as stores:
        for name in PLANES:
            store = Path(stores) / name
            found, _ = run_phase(name, store, points=points, seeds=seeds, epochs=epochs)
            rows += rows_of(found)
            if name == "n-snr" and not args.quick:
                rows += smaller_steps(found)
    for row in rows:
        print({k: v for k, v in row.items() if k != "x"})
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["main", "rows_of", "smaller_steps"]

if __name__ == "__main__":
    sys.exit(main())
