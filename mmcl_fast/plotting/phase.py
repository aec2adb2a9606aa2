"""The picture of a phase diagram: accuracy of both modalities, the theory's boundaries on it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmcl_fast.experiments.figure1 import MODALITIES
from mmcl_fast.experiments.phase.diagram import HALF_WAY, Phase
from mmcl_fast.experiments.phase.planes import overlay
from mmcl_fast.experiments.probe import head_text
from mmcl_fast.experiments.scaling import FIGURE_1_START
from mmcl_fast.plotting.heat import (
    ACCURACY,
    LINES,
    Floats,
    border_handles,
    draw_border,
    edges,
    heat_panel,
)
from mmcl_fast.plotting.legend import label
from mmcl_fast.plotting.style import CAPTION, COLOURS, NAMES, STYLE, settings_caption
from mmcl_fast.theory import MAX_N_SNR2_SINGLE, MIN_C_MU_N_SNR2_MULTI, MIN_N_SNR2_MULTI

FINE = 120  # points along an axis for the theory's curves
MARK = COLOURS["multi"]
WINDOW = SimpleNamespace(colour=MARK, halo="white", width=1.6, dashes="-.")
FIGURE_1 = SimpleNamespace(
    n=100,
    d=2000,
    m=50,
    snr=math.sqrt(1.25 / 100),
    n_snr2=1.25,
    c_mu=3.0,
    noise_rate=0.2,
    noise_start=FIGURE_1_START,
)
GUIDES = (0.1, 1.0, 10.0)


def phase(result: Phase) -> Figure:
    """Two maps side by side, one scale of colours.

    Solid: where T1 of signal (Lemma 5.4) and of noise (Lemma 5.2) are equal. Dots: where accuracy
    was measured half-way. Dashed: the border of Assumption 4.1. Dotted: n SNR^2 of 0.1, 1, 10.
    Dash-dotted: the border of the window in which the proof of Lemma 5.2 (single-modal) or 5.4
    holds. Star: Figure 1's values of the two axes.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.1), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, modality in zip(axes, MODALITIES, strict=True):
            mesh = heat_panel(axis, result.xs, result.ys, result.maps[modality].mean, ACCURACY)
            _theory(axis, result, modality)
            axis.plot(
                result.xs,
                result.maps[modality].measured,
                ls="",
                marker="o",
                ms=3.5,
                mfc="white",
                mec="black",
            )
            axis.set(title=NAMES[modality], xlabel=label(result.plane.x.name))
            axis.set_xlim(*edges(result.xs)[[0, -1]])
            axis.set_ylim(*edges(result.ys)[[0, -1]])
        axes[0].set_ylabel(label(result.plane.y.name))
        figure.colorbar(mesh, ax=list(axes), label="OOD test accuracy")
        legend: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "fontsize": CAPTION}
        figure.legend(
            handles=_handles(result), title=_fixed(result), title_fontsize=CAPTION, **legend
        )
    return figure


def _fixed(result: Phase) -> str:
    """What every cell has in common."""
    drawn = (result.plane.x.name, result.plane.y.name)
    base = vars(result.plane.base) | {"epochs": result.epochs}
    names = ("n", "d", "m", "n_snr2", "c_mu", "noise_rate", "epochs")
    left = {name: base[name] for name in names if name not in drawn}
    if "snr" in drawn:
        del left["n_snr2"]
    head = head_text(result.plane.cell(result.xs[0], result.ys[0]))
    return settings_caption(left, names) + rf", $\tau = 1/m$; {head}"


def _theory(axis: Axes, result: Phase, modality: str) -> None:
    plane = result.plane
    xs = _fine(result.xs)
    ys = _fine(result.ys)
    values = overlay(plane, xs.tolist(), ys.tolist(), modality)
    for grid, style in zip(values, (*LINES, WINDOW), strict=True):
        draw_border(axis, (xs.tolist(), ys.tolist()), grid, style)
    place = [getattr(FIGURE_1, name) for name in (plane.x.name, plane.y.name)]
    axis.plot(*place, ls="", marker="*", ms=11, mfc=MARK, mec="white")
    if (plane.x.name, plane.y.name) == ("n", "snr"):
        for guide in GUIDES:
            axis.plot(xs, np.sqrt(guide / xs), color="white", ls=":", lw=1.2)


def _fine(centres: list[float]) -> Floats:
    ends = edges(centres)
    return np.geomspace(float(ends[0]), float(ends[-1]), FINE)


def _handles(result: Phase) -> list[Line2D]:
    count = len(result.seeds)
    dots = Line2D(
        [],
        [],
        ls="",
        marker="o",
        ms=3.5,
        mfc="white",
        mec="black",
        label=f"measured: mean over {count} seeds passes {HALF_WAY}",
    )
    handles = [*border_handles(), dots]
    if {"snr", "n_snr2", "c_mu"} & {result.plane.x.name, result.plane.y.name}:
        balance, product = label("n_snr2"), f"{label('c_mu')} {label('n_snr2')}"
        window = (
            f"proofs' window: {balance} $\\leq$ {MAX_N_SNR2_SINGLE} (Lemma 5.2);\n"
            f"$\\geq$ {MIN_N_SNR2_MULTI}, {product} $\\geq$ {MIN_C_MU_N_SNR2_MULTI} (Lemma 5.4)"
        )
        handles.append(Line2D([], [], color=MARK, ls=WINDOW.dashes, lw=WINDOW.width, label=window))
    star = Line2D([], [], ls="", marker="*", ms=9, mfc=MARK, mec="white", label="Figure 1")
    handles.append(star)
    if (result.plane.x.name, result.plane.y.name) == ("n", "snr"):
        told = ", ".join(f"{g:g}" for g in GUIDES)
        handles.append(Line2D([], [], color="0.6", ls=":", label=f"{label('n_snr2')} = {told}"))
    if result.left_out:
        handles.append(
            Line2D([], [], ls="", label=f"{result.left_out} runs that diverged left out")
        )
    return handles


__all__ = ["phase"]
