"""A run in one file: safetensors with its tensors, and JSON with all else in the metadata."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmcl_fast.config import SUFFIXES, TrainConfig
from mmcl_fast.content_digest import damaged
from mmcl_fast.engines.optimizers import nest, unnest
from mmcl_fast.environment import environment, source_commit
from mmcl_fast.errors import DamagedFileError, OutputError
from mmcl_fast.training.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from mmcl_fast.training.run import Run

FORMAT = "mmcl-run-1"
REMEDY = "train the run again, or take another copy"
_CURVES = {"loss", "ood_accuracy", "signal", "noise", "tau"}  # one value an epoch, as metrics have
PLAIN = ("status", "diverged_at", "stopped_at", "coefficient_epochs")


def save_run(run: Run, path: Path) -> Path:
    """Write a run, whole or not at all; with its weights where they exist in R^d."""
    tensors = {
        f.name: value
        for f in fields(run)
        if not f.name.startswith("_") and isinstance(value := getattr(run, f.name), Tensor)
    }
    tensors |= nest("metrics", run.metrics)
    if run.has_weights:
        tensors |= {f"weights_{x}": run.weights(x) for x in run.modalities}
    header = {
        "config": run.config.to_dict(),
        "made_with": made_with(run),
        **{name: getattr(run, name) for name in PLAIN},
    }
    metadata = {"format": FORMAT, "run": json.dumps(header)}
    return write_tensors(tensors, path, metadata)


def load_run(kind: type[Run], path: Path) -> Run:
    """Read a run.

    Raises: OutputError: there is no file, it cannot be read, or it is of another format.
        DamagedFileError: its content is not what was written.
    """
    try:
        metadata, tensors = read_tensors(path, REMEDY)
    except DamagedFileError:
        raise
    except OSError as error:
        raise OutputError(
            f"run: expected a readable file of Run.save, got {str(path)!r} ({error})"
        ) from error
    if metadata.get("format") != FORMAT:
        raise OutputError(
            f"run: expected a file of format {FORMAT}, got {metadata.get('format')!r} in "
            f"{str(path)!r}"
        )
    try:
        return _built(kind, json.loads(metadata["run"]), tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, error, REMEDY) from error


def _built(kind: Any, header: dict[str, Any], tensors: dict[str, Tensor]) -> Run:
    """A run from what its file holds; its curves have one length."""
    weights = [tensors.pop(f"weights_{x}") for x in SUFFIXES if f"weights_{x}" in tensors]
    metrics = unnest("metrics", tensors)
    curves = {name: x for name, x in tensors.items() if not name.startswith("metrics.")}
    epochs = curves["loss"].shape[:1]
    for name, curve in {**curves, **metrics}.items():
        if name in _CURVES | metrics.keys() and curve.shape != epochs:
            raise ValueError(f"{name} has shape {list(curve.shape)}")
    run: Run = kind(
        config=TrainConfig(**header["config"]),
        **{name: header[name] for name in PLAIN},
        **curves,
        metrics=metrics,
        _weights=tuple(weights) or None,
        _made_with=header["made_with"],
    )
    return run


def made_with(run: Run) -> dict[str, Any]:
    """Versions, machine and commit that a run was made with; of this process unless it was read."""
    if run._made_with is not None:
        return run._made_with
    return environment(run.config.device) | {"commit": source_commit()}


__all__ = ["FORMAT", "load_run", "made_with", "save_run"]
