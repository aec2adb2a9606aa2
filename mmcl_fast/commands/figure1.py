"""`mmcl figure1`: train both modalities over seeds, draw the four panels, print the claims."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmcl_fast import plotting
from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.figure1 import MODALITIES, PAPER_CLAIMS, Figure1, run_figure1
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.progress import progress
from mmcl_fast.training import resolve


def figure1_command(cfg: TrainConfig, seeds: int, out: Path) -> int:
    """Run the experiment; leave figure1.png, figure1.pdf and figure1.json in `out`.

    Args:
        cfg: Settings of the runs.
        seeds: Number of seeds, cfg.seed upwards, >= 1.
        out: Directory of the results, made if missing.

    Returns: Exit status: 0, or 1 if a run diverged.
    """
    if seeds < 1:
        raise ConfigError(f"seeds: expected an integer >= 1, got {seeds}")
    for modality in MODALITIES:
        resolve(cfg.replace(modality=modality))
    prepare_directory(out)
    started = time.monotonic()
    chosen = range(cfg.seed, cfg.seed + seeds)
    total = len(MODALITIES) * seeds * (cfg.epochs + 1)
    with progress(total, "run-epochs") as shown:
        result = run_figure1(
            cfg, chosen, lambda modality, done: shown.advance(f"{modality}-modal", done)
        )
    text = json.dumps(result.to_json())
    write_atomically(out / "figure1.json", lambda path: path.write_text(text))
    picture = plotting.figure1(result)
    plotting.save(picture, out / "figure1.png")
    plotting.save(picture, out / "figure1.pdf")
    _report(result, out, time.monotonic() - started)
    diverged = [r for runs in result.runs.values() for r in runs if r.status == "diverged"]
    for run in diverged:
        Console(stderr=True).print(f"mmcl: diverged: seed {run.config.seed}: {run.cause}")
    return 1 if diverged else 0


def _report(result: Figure1, out: Path, seconds: float) -> None:
    engine = result.runs["single"][0].config.engine
    table = Table(
        title=f"Figure 1 after {result.config.epochs} epochs, {len(result.seeds)} seeds, "
        f"engine {engine}, {seconds:.1f} s"
    )
    for heading in ("", "single-modal", "multi-modal", "paper"):
        table.add_column(heading)
    for name, claim in PAPER_CLAIMS.items():
        cells = []
        for modality in MODALITIES:
            curves = result.curve(modality, name).double()
            last = curves[:, -1]
            sd = last.std().item() if len(last) > 1 else 0.0
            text = f"{last.mean().item():.3f} ± {sd:.3f}"
            if name == "loss":
                text = f"{curves[:, 0].mean().item():.2f} → {text}"
            cells.append(text)
        table.add_row(plotting.PANELS[name][0], *cells, claim)
    console = Console()
    console.print(table)
    console.print(
        "sigma_0, tau, the negatives and the head are inferred (figure1.json, docs/claims.md)"
    )
    console.print(f"wrote figure1.png, figure1.pdf, figure1.json in {out}", highlight=False)


__all__ = ["figure1_command"]
