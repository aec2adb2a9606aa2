"""`mmcl figure1`: train both modalities over seeds, plot the four panels, print the claims."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import check_drawable
from mmcl_fast.experiments.figure1 import MODALITIES, PAPER_CLAIMS, Figure1, run_figure1
from mmcl_fast.files import prepare_directory, write_atomically, write_csv
from mmcl_fast.plotting import curves
from mmcl_fast.progress import progress
from mmcl_fast.training.resolve import resolve


def figure1_command(cfg: TrainConfig, seeds: int, out: Path, *, with_data: bool = False) -> int:
    """Run the experiment; write figure1.png, figure1.pdf and figure1.json to `out`.

    Args:
        cfg: Settings of the runs.
        seeds: Number of seeds, cfg.seed upwards, >= 1.
        out: Directory of the results, created if absent.
        with_data: Write figure1.csv as well.

    Returns: Exit status: 0, or 1 if a run diverged.
    """
    chosen = range(cfg.seed, cfg.seed + seeds)
    for modality in MODALITIES:
        resolve(cfg.replace(modality=modality))
        for seed in chosen:
            check_drawable(cfg.replace(modality=modality, seed=seed))
    prepare_directory(out)
    started = time.monotonic()
    run_epochs = len(MODALITIES) * seeds * (cfg.epochs + 1)
    with progress(run_epochs, "run-epochs") as shown:
        result = run_figure1(
            cfg, chosen, lambda modality, done: shown.advance(f"{modality}-modal", done)
        )
    results = result.to_json()
    text = json.dumps(results, allow_nan=False)
    write_atomically(out / "figure1.json", lambda path: path.write_text(text, encoding="utf-8"))
    picture = curves.figure1(result)
    curves.save(picture, out / "figure1.png")
    curves.save(picture, out / "figure1.pdf")
    names = ["figure1.png", "figure1.pdf", "figure1.json"]
    if with_data:
        write_csv(out / "figure1.csv", _columns(result))
        names.append("figure1.csv")
    _report(results, time.monotonic() - started)
    sys.stdout.write(f"wrote {', '.join(names)} in {out}\n")
    diverged = [r for runs in result.runs.values() for r in runs if r.status == "diverged"]
    for run in diverged:
        name = f"{run.config.modality}-modal, seed {run.config.seed}"
        sys.stderr.write(f"mmcl: diverged: {name}: {run.cause}\n")
    return 1 if diverged else 0


def _columns(result: Figure1) -> dict[str, list[Any]]:
    """One row a modality, seed and epoch."""
    columns: dict[str, list[Any]] = {"modality": [], "seed": [], "epoch": []}
    for modality, runs in result.runs.items():
        for run in runs:
            columns["modality"] += [modality] * len(run.loss)
            columns["seed"] += [run.config.seed] * len(run.loss)
            columns["epoch"] += run.epochs
            for name, curve in run.curves().items():
                columns.setdefault(name, []).extend(curve.tolist())
    return columns


def _report(results: dict[str, Any], seconds: float) -> None:
    """Print the final values of `figure1.json` beside the paper's claims."""
    config = results["config"]
    table = Table(
        title=f"Figure 1 after {results['epochs'][-1]} epochs, {len(config['seeds'])} seeds, "
        f"engine {config['engine']}, {seconds:.1f} s"
    )
    for heading in ("", "single-modal", "multi-modal", "paper"):
        table.add_column(heading)
    for name, claim in PAPER_CLAIMS.items():
        cells = []
        for modality in MODALITIES:
            curve = results[modality][name]
            text = f"{_shown(curve['mean'][-1])} ± {_shown(curve['sd'][-1])}"
            start = f"{_shown(curve['mean'][0], 2)} → " if name == "loss" else ""
            cells.append(start + text)
        table.add_row(curves.PANELS[name][0], *cells, claim)
    Console().print(table)
    sys.stdout.write("inferred: sigma_0, tau, the negatives, the head (figure1.json says how)\n")


def _shown(value: float | None, digits: int = 3) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"


__all__ = ["figure1_command"]
