"""Figure 1 under other interpretations of settings that the paper does not state.

`python -m bench.science.readings [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.science.readings`. Findings, not time: `docs/claims.md` shows the rows. One change
from the reading chosen per row, final values, mean and sample standard deviation over seeds.

*Head on OOD samples*: fitted on so many fresh samples of the test distribution (section 3.3), on
the runs of the reading chosen, with scikit-learn's C = 1 or with C = 100.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_presets import PRESETS
from mmcl_fast.experiments.figure1 import MODALITIES
from mmcl_fast.training import train_many

from .. import record
from ..arguments import make_parser

SEEDS, QUICK_SEEDS = range(10), range(2)
CHOSEN = "the reading chosen"
READINGS: dict[str, dict[str, Any]] = {
    CHOSEN: {},
    "sigma_0 = 0.01": {"sigma_0": 0.01},
    "tau = 0.1": {"tau": 0.1},
    "tau = 0.5": {"tau": 0.5},
    "tau = 1": {"tau": 1.0},
    "head on the training embeddings, C = 100": {"probe_penalty": 1e-4},
    **{
        f"head on {k} OOD samples{how}": {"probe_on": "ood", "probe_samples": k, **penalty}
        for k in (20, 100, 400)
        for how, penalty in (("", {}), (", C = 100", {"probe_penalty": 0.01 / k}))
    },
}
CURVES = ("loss", "ood_accuracy", "signal", "noise")
Values = dict[str, dict[str, float]]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    wide = torch.tensor(values, dtype=torch.float64)
    return {"mean": round(float(wide.mean()), 6), "sd": round(float(wide.std()), 6)}


def readings(base: TrainConfig, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """All rows."""
    results: dict[str, dict[str, Values]] = {name: {} for name in READINGS}
    for modality in MODALITIES:
        for name, changes in READINGS.items():
            cfg = base.replace(modality=modality, evaluate_every=base.epochs, **changes)
            runs = train_many([cfg.replace(seed=s) for s in seeds])
            results[name][modality] = {
                curve: summary([float(getattr(run, curve)[-1]) for run in runs]) for curve in CURVES
            }
    settings = {"seeds": len(seeds), "epochs": base.epochs}
    return [
        {"op": "readings", "variant": name, "settings": settings | READINGS[name], **values}
        for name, values in results.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("readings", __doc__).parse_args(arguments)
    before = record.environment()
    rows = readings(PRESETS["figure1"], QUICK_SEEDS if args.quick else SEEDS)
    for row in rows:
        for modality in MODALITIES:
            cells = (f"{k} {v['mean']:.3f} ± {v['sd']:.3f}" for k, v in row[modality].items())
            print(f"{row['variant']:28}{modality:8}{', '.join(cells)}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["main", "readings"]

if __name__ == "__main__":
    sys.exit(main())
