"""Where accuracy rises on the planes of `mmcl phase`, and what a smaller step changes there.

`python -m bench.science.phase [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.science.phase`. Findings, not time: `docs/phase.md` quotes the rows. Each row has,
for every value of the horizontal axis, the vertical coordinate at which the mean accuracy
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
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.training import train_many

from .. import record
from ..arguments import make_parser

POINTS, SEEDS, EPOCHS = 16, range(5), 200  # the command's defaults
QUICK = 4, range(2), 50
PLANES: tuple[PlaneName, ...] = ("n-snr", "cmu-nsnr2", "d", "m")
STEPS, LONGER = 20, 1500  # a smaller step's divisor, and its epochs
FAR, LOW = 4.0, 0.95  # n SNR^2 over its boundary; mean accuracy that is low so far above it
Row = dict[str, Any]


def rows_of(diagram: Phase) -> list[Row]:
    """One row a modality."""
    settings = {
        "plane": diagram.name,
        "x": diagram.plane.x.name,
        "y": diagram.plane.y.name,
        "seeds": len(diagram.seeds),
        "epochs": diagram.epochs,
    }
    return [
        {
            "op": "phase",
            "variant": modality,
            "settings": settings,
            "x": [float(f"{x:.5g}") for x in diagram.xs],
            "measured": _plain(shown.measured),
            "predicted": _plain(shown.predicted),
            "left_out": diagram.left_out,
        }
        for modality, shown in diagram.maps.items()
    ]


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]


def unsettled(diagram: Phase, shown: Map) -> list[tuple[float, float]]:
    """Cells of the plane of n and SNR that are far above the boundary and yet not near 1."""
    coordinates = []
    for j, x in enumerate(diagram.xs):
        for i, y in enumerate(diagram.ys):
            far = y**2 > FAR * shown.measured[j] ** 2
            if far and not shown.mean[i, j] >= LOW:
                coordinates.append((x, y))
    return coordinates


def smaller_steps(diagram: Phase) -> list[Row]:
    """The unsettled cells once more."""
    rows: list[Row] = []
    for modality, shown in diagram.maps.items():
        coordinates = unsettled(diagram, shown)
        if not coordinates:
            continue
        cells = [
            diagram.plane.cell(x, y).replace(modality=modality, n_test=500) for x, y in coordinates
        ]
        ratios = [cfg.eta * cfg.mu_norm**2 / (cfg.m * cfg.tau_value) for cfg in cells]
        means = []
        for cfg in cells:
            small = cfg.replace(eta=cfg.eta / STEPS, epochs=LONGER, evaluate_every=LONGER)
            runs = train_many([small.replace(seed=s) for s in diagram.seeds])
            means.append(float(np.mean([float(run.ood_accuracy[-1]) for run in runs])))
        rows.append(
            {
                "op": "phase_smaller_steps",
                "variant": modality,
                "settings": {"plane": diagram.name, "eta_over": STEPS, "epochs": LONGER},
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
            diagram, _ = run_phase(name, store, points=points, seeds=seeds, epochs=epochs)
            rows += rows_of(diagram)
            if name == "n-snr" and not args.quick:
                rows += smaller_steps(diagram)
    for row in rows:
        print({k: v for k, v in row.items() if k != "x"})
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["main", "rows_of", "smaller_steps"]

if __name__ == "__main__":
    sys.exit(main())
