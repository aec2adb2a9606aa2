"""`mmcl train`: one run of any settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from mmcl_fast.cli.checks import CHECKPOINT
from mmcl_fast.config import LATER_FIELDS, TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.sampling import check_drawable
from mmcl_fast.environment import environment
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves as plotting
from mmcl_fast.sweep.plan.metric_paths import import_metrics, metric_paths, parse_metrics
from mmcl_fast.training import train
from mmcl_fast.training.decomposition import FIELDS
from mmcl_fast.training.resolve import resolve
from mmcl_fast.training.run import Run

WEIGHTS, SUMMARY, PICTURE = "weights.safetensors", "run.json", "curves.png"


def train_command(
    cfg: TrainConfig,
    out: Path,
    checkpoint_every: int | None,
    *,
    metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> int:
    """Train; write run.json, curves.npz, curves.png and weights.safetensors to `out`.

    Args:
        cfg: Settings of the run.
        out: Directory of the results, created if absent.
        checkpoint_every: Epochs between checkpoints, from which a re-run resumes; None: a minute
            between them; 0: none.
        metrics: Own metrics `module:function` or `name=module:function`.
        overwrite: Replace a run of other settings in `out`.

    Returns: Exit status: 0, or 1 if the run diverged (its curves up to there are written).
    """
    chosen_metrics = import_metrics(metric_paths(parse_metrics(metrics)))
    resolved = resolve(cfg)
    check_drawable(cfg)
    if not overwrite:
        _check_other_run(resolved, out)
    prepare_directory(out)
    checkpoint = None if checkpoint_every == 0 else out / CHECKPOINT
    run = train(
        cfg,
        metrics=chosen_metrics,
        progress=True,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every or None,
    )
    _report(run, _write(run, out), out)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return 0 if run.status == "finished" else 1


def _check_other_run(cfg: TrainConfig, out: Path) -> None:
    """Raise ConfigError where a directory holds a run of other settings."""
    if not (out / SUMMARY).exists():
        return
    try:
        stored = {
            **LATER_FIELDS,
            **json.loads((out / SUMMARY).read_text(encoding="utf-8"))["config"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"out: expected a directory without {SUMMARY} or with that of a run, got "
            f"{str(out)!r} ({error}); take another, or --overwrite"
        ) from error
    for name, value in cfg.to_dict().items():
        if stored.get(name) != value:
            raise ConfigError(
                f"out: expected a directory without another run, got one with {name} = "
                f"{stored.get(name)} instead of {value} in {str(out)!r}; take another, or "
                "--overwrite"
            )


def _write(run: Run, out: Path) -> list[str]:
    """Write the results and return their names; remove the weights of an earlier run."""
    summary = {
        "config": run.config.to_dict(),
        "status": run.status,
        "diverged_at": run.diverged_at,
        "final": {k: None if np.isnan(v) else v for k, v in run.final().items()},
        "environment": environment(run.config.device),
    }
    text = json.dumps(summary, indent=1)
    curves: dict[str, Any] = {name: curve.numpy() for name, curve in run.curves().items()}
    for name in [*FIELDS, *(f"{name}_curve" for name in FIELDS)]:
        if (value := getattr(run, name)) is not None:
            curves[name] = value.numpy()
    if run.coefficient_epochs:
        curves["coefficient_epochs"] = np.array(run.coefficient_epochs)
    write_atomically(out / "curves.npz", lambda path: _save_arrays(path, curves))
    names = ["curves.npz", SUMMARY]
    (out / PICTURE).unlink(missing_ok=True)
    if len(run.loss) > 1:  # one epoch is no curve
        plotting.save(plotting.run_curves(run), out / PICTURE)
        names.insert(1, PICTURE)
    (out / WEIGHTS).unlink(missing_ok=True)
    if run.status == "finished" and run.config.data not in ROTATED:
        names.append(WEIGHTS)
        named = zip(("weights", "weights_b", "weights_c"), run.modalities, strict=False)
        weights = {name: run.weights(modality) for name, modality in named}
        write_atomically(out / WEIGHTS, lambda path: save_file(weights, path))
    write_atomically(out / SUMMARY, lambda path: path.write_text(text, encoding="utf-8"))
    return names


def _save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as stream:  # given a name, savez would append .npz
        np.savez(stream, **arrays)


def _report(run: Run, names: list[str], out: Path) -> None:
    cfg = run.config
    values = ", ".join(f"{name} {value:.4g}" for name, value in run.final().items())
    sys.stdout.write(f"{cfg.modality}-modal, engine {cfg.engine}: {values}\n")
    sys.stdout.write(f"wrote {', '.join(names)} in {out}\n")
    if cfg.data in ROTATED:
        sys.stdout.write(f"no weights: with {cfg.data} data they have no coordinates in R^d\n")
    if run.cause:
        sys.stderr.write(f"mmcl: diverged: {run.cause}\n")


__all__ = ["train_command"]
