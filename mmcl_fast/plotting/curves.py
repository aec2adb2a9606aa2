"""Every picture. Figures are drawn without pyplot: no display, no global state, quick to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.figure1 import MODALITIES, Figure1
from mmcl_fast.experiments.probe import head_text
from mmcl_fast.files import write_atomically
from mmcl_fast.plotting.style import (
    COLOURS,
    NAMES,
    STYLE,
    caption,
    draw_curve,
    look,
    mark_chance,
    read_style,
    seeds_text,
    settings_caption,
)
from mmcl_fast.training.run import Run

# Title and axis of each panel as printed in the paper's Figure 1.
PANELS = {
    "loss": ("Training loss", (0.0, 8.0)),
    "ood_accuracy": ("OOD test accuracy", (0.5, 1.0)),
    "signal": ("Signal learning", (0.0, 1.0)),
    "noise": ("Noise memorisation", (0.0, 3.0)),
}

CANVASES: dict[str, tuple[type[FigureCanvasBase], dict[str, None]]] = {
    ".png": (FigureCanvasAgg, {"Software": None}),
    ".pdf": (FigureCanvasPdf, {"CreationDate": None}),
    ".svg": (FigureCanvasSVG, {"Date": None}),
}
DPI, MIN_DPI, MAX_DPI = 200, 10, 2400


def save(figure: Figure, path: Path, *, dpi: float = DPI, style: Path | None = None) -> Path:
    """Write a figure as PNG, PDF or SVG, by the suffix, whole or not at all.

    Args:
        figure: The figure.
        path: The file, named `*.png`, `*.pdf` or `*.svg`.
        dpi: Dots per inch of a PNG, and of what is drawn as pixels in the others. 10 to 2400.
        style: The style file with which it was drawn.

    Raises: ConfigError: another suffix, or dpi out of range. OutputError: it cannot be written.
    """
    check_file(path, dpi)
    # No creation date, and no random names: equal runs leave equal files.
    canvas, metadata = CANVASES[path.suffix]
    style_of_it: dict[Any, Any] = STYLE if style is None else STYLE | read_style(style)
    with mpl.rc_context(style_of_it | {"svg.hashsalt": "mmcl"}):
        drawn = canvas(figure)
        kind = path.suffix.removeprefix(".")
        return write_atomically(
            path,
            lambda temporary: drawn.print_figure(
                temporary, format=kind, dpi=dpi, metadata=metadata
            ),
        )


def check_file(path: Path, dpi: float = DPI) -> None:
    """Raise ConfigError for a file that `save` does not write."""
    if path.suffix not in CANVASES:
        known = ", ".join(CANVASES)
        raise ConfigError(f"out: expected a file ending in {known}, got {str(path)!r}")
    if not MIN_DPI <= dpi <= MAX_DPI:
        raise ConfigError(f"dpi: expected a number in {MIN_DPI} .. {MAX_DPI}, got {dpi:g}")


def figure1(result: Figure1) -> Figure:
    """The four panels of Figure 1: mean and one standard deviation over seeds, T1 dash-dotted."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.75), layout="constrained")
        axes = figure.subplots(1, len(PANELS))
        for axis, (name, (title, limits)) in zip(axes, PANELS.items(), strict=True):
            low, high = limits
            for modality in MODALITIES:
                curves = result.curve(modality, name).double().numpy()
                band = _band(axis, curves, modality)
                low, high = min([low, *band[0]]), max([high, *band[1]])
            if name in ("signal", "noise"):
                _mark_t1(axis, result)
            room = 0.03 * (high - low)
            axis.set(title=title, xlabel="epoch", ylim=(low - room, high + room))
            axis.set_xlim(0, max(1, result.config.epochs))
        mark_chance(axes[1], result.config.classes)
        axes[0].legend(loc="upper right", fontsize=8)
        if marks := axes[2].get_lines()[len(MODALITIES) :]:
            axes[2].legend(handles=marks, loc=(0.36, 0.3), fontsize=7)
        bands = f"{seeds_text(len(result.seeds))}; $T_1$: end of the first stage by Lemmas 5.2, 5.4"
        head = f"; {head_text(result.config)}" if result.config.probe_on == "ood" else ""
        caption(
            figure,
            f"{bands}; dotted: chance{head}",
            _settings(result.config.replace(modality="multi")),
        )
    return figure


def run_curves(run: Run) -> Figure:
    """The four curves of one run, and the temperature where it is learned."""
    titles = {name: title for name, (title, _) in PANELS.items()}
    if run.tau is not None:
        titles["tau"] = r"Temperature $\tau$"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.25 * len(titles), 2.75), layout="constrained")
        axes = figure.subplots(1, len(titles))
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            curve = getattr(run, name).double().numpy()
            seen = np.flatnonzero(np.isfinite(curve))
            draw_curve(axis, seen, curve[seen], look(run.config.modality))
            axis.set(title=title, xlabel="epoch")
            axis.set_xlim(0, max(1, run.config.epochs))
            if not len(seen):
                axis.text(0.5, 0.5, "not evaluated", ha="center", transform=axis.transAxes)
        if axes[1].get_lines()[0].get_xdata().size:
            mark_chance(axes[1], run.config.classes)
        about = f"{NAMES[run.config.modality]}, seed {run.config.seed}; dotted: chance"
        caption(figure, about, _settings(run.config))
    return figure


def _settings(cfg: TrainConfig) -> str:
    """What was held fixed, as captions say it."""
    settings = cfg.to_dict() | {"tau": cfg.tau_value}
    if not cfg.is_multi:
        del settings["mu_b_norm"]
    return settings_caption(settings)


def _band(axis: Axes, curves: np.ndarray, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw mean and band over seeds at the epochs that were evaluated; return the band's edges."""
    seen = np.flatnonzero(np.isfinite(curves).all(axis=0))
    curves = curves[:, seen]
    mean = curves.mean(axis=0)
    sd = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
    draw_curve(axis, seen, mean, look(modality) | {"label": NAMES[modality]})
    axis.fill_between(seen, mean - sd, mean + sd, color=COLOURS[modality], alpha=0.2, lw=0)
    return mean - sd, mean + sd


def _mark_t1(axis: Axes, result: Figure1) -> None:
    for modality, t1 in result.t1.items():
        if t1 is not None and t1 <= result.config.epochs:
            axis.axvline(
                t1,
                color=COLOURS[modality],
                ls="-.",
                lw=0.9,
                label=f"$T_1$ {NAMES[modality]}: {t1:.1f}",
            )


__all__ = [
    "COLOURS",
    "NAMES",
    "PANELS",
    "STYLE",
    "check_file",
    "figure1",
    "run_curves",
    "save",
]
