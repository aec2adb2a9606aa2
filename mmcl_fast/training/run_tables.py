"""A run as a pandas table, an xarray dataset, or a few lines of text."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.training.decomposition import FIELDS
from mmcl_fast.training.run_file import made_with

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from mmcl_fast.training.run import Run

LONG_NAMES = {
    "loss": "full-batch training loss",
    "ood_accuracy": "accuracy of the logistic head on out-of-distribution test data",
    "signal": "max_r |<w_r, mu>|",
    "noise": "max_{r,i} <w_r, xi_i>",
    "tau": "learned temperature",
    "gamma": "signal learning gamma_r",
    "rho": "noise memorisation rho_{r,i}",
    "gamma_spurious": "learning of the spurious signal",
    "rho_views": "memorisation of the views' noise patches",
}


def run_to_pandas(run: Run) -> pd.DataFrame:
    """Curves as columns, epochs as index."""
    pandas = _package("pandas", "to_pandas")
    columns = {name: curve.numpy() for name, curve in run.curves().items()}
    index = pandas.RangeIndex(len(run.loss), name="epoch")
    frame: pd.DataFrame = pandas.DataFrame(columns, index=index)
    return frame


def run_to_xarray(run: Run) -> xr.Dataset:
    """Curves along `epoch`, coefficients along `neuron` and others, settings as attributes."""
    xarray = _package("xarray", "to_xarray")
    data: dict[str, Any] = {
        name: ("epoch", curve.numpy(), _attributes(name)) for name, curve in run.curves().items()
    }
    of_gamma = ("neuron",) if run.config.classes is None else ("neuron", "label")
    dims: dict[str, tuple[str, ...]] = {
        "gamma": of_gamma,
        "rho": ("neuron", "sample"),
        "gamma_spurious": ("neuron",),
        "rho_views": ("neuron", "sample"),
    }
    for name, symbol in FIELDS.items():
        if (value := getattr(run, name)) is not None:
            data[name] = (dims[symbol], value.numpy(), _attributes(symbol))
        if (value := getattr(run, f"{name}_curve")) is not None:
            stored = ("coefficient_epoch", *dims[symbol])
            data[f"{name}_curve"] = (stored, value.numpy(), _attributes(symbol))
    coords: dict[str, Any] = {"epoch": list(run.epochs)}
    if run.coefficient_epochs:
        coords["coefficient_epoch"] = run.coefficient_epochs
    made = made_with(run)
    found = settings_attributes(run.config.to_dict()) | {
        "status": run.status,
        "mmcl_fast": made["mmcl_fast"],
        "commit": made["commit"] or "",
    }
    dataset: xr.Dataset = xarray.Dataset(data, coords, attrs=found)
    return dataset


def settings_attributes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as attributes of a dataset: those with a value, and in types that files can hold."""
    # netCDF has no integer beyond 64 bits with a sign; a seed may need one.
    return {
        name: str(value) if isinstance(value, int) and value > 2**63 - 1 else value
        for name, value in settings.items()
        if value is not None
    }


def summary(run: Run) -> str:
    """A run in one line."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in run.final().items())
    at = {"diverged": run.diverged_at, "stopped": run.stopped_at}.get(run.status)
    status = run.status if at is None else f"{run.status} at epoch {at}"
    return f"Run({sizes(run.config)}, engine {run.config.engine}: {status}; {values})"


def summary_html(run: Run) -> str:
    """A run as a small table: settings, status, first and last values of the curves."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{curve[0].item():.4g}</td>"
        f"<td>{curve[-1].item():.4g}</td></tr>"
        for name, curve in run.curves().items()
    )
    heading = html.escape(f"{sizes(run.config)}, engine {run.config.engine}: {run.status}")
    return (
        f"<table><caption>{heading}</caption>"
        f"<tr><th>curve</th><th>epoch 0</th><th>epoch {len(run.loss) - 1}</th></tr>{rows}</table>"
    )


def sizes(cfg: TrainConfig) -> str:
    """The settings that a reader looks for first."""
    return f"{cfg.modality}-modal, n={cfg.n}, d={cfg.d}, m={cfg.m}, seed {cfg.seed}"


def _attributes(name: str) -> dict[str, str]:
    return {"long_name": LONG_NAMES[name]} if name in LONG_NAMES else {}


def _package(name: str, asked_for: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{asked_for}: expected the package {name} (pip install 'mmcl-fast[{name}]'), got none"
        ) from error


__all__ = [
    "run_to_pandas",
    "run_to_xarray",
    "settings_attributes",
    "sizes",
    "summary",
    "summary_html",
]
