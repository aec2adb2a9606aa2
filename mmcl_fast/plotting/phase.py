"""The picture of a phase diagram: accuracy of both modalities, the theory's boundaries on it."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmcl_fast.experiments.phase.axis import DETERMINES
from mmcl_fast.experiments.phase.diagram import Phase, half_way
from mmcl_fast.experiments.phase.overlay import overlay
from mmcl_fast.experiments.probe import head_text
from mmcl_fast.experiments.scaling import FIGURE_1_START
from mmcl_fast.plotting.heat import (
    LINES,
    Floats,
    border_handles,
    draw_border,
    edges,
    heat_panel,
)
from mmcl_fast.plotting.legend import label
from mmcl_fast.plotting.style import (
    CAPTION,
    COLOURS,
    NAMES,
    STYLE,
    accuracy_limits,
    number,
    settings_caption,
)
from mmcl_fast.theory import MAX_N_SNR2_SINGLE, MIN_C_MU_N_SNR2_MULTI, MIN_N_SNR2_MULTI

FINE = 120  # points along an axis for the theory's curves
MARK = COLOURS["multi"]
WINDOW = SimpleNamespace(colour=MARK, halo="white", width=1.6, dashes="-.")
FIGURE_1 = SimpleNamespace(
    n=100,
    d=2000,
    m=50,
    sigma_eps=0.1,
    snr=math.sqrt(1.25 / 100),
    n_snr2=1.25,
    c_mu=3.0,
    noise_rate=0.2,
    noise_start=FIGURE_1_START,
)
GUIDES = (0.1, 1.0, 10.0)


def phase(result: Phase) -> Figure:
    """A map for each modality, one scale of colours.

    Solid: where T1 of signal (Lemma 5.4) and of noise (Lemma 5.2) are equal. Dots: where accuracy
    was measured half-way. Dashed: the border of Assumption 4.1. Dotted: n SNR^2 of 0.1, 1, 10.
    Dash-dotted: the border of the window in which the proof of Lemma 5.2 (single-modal) or 5.4
    holds. Star: Figure 1's values of the two axes. Planes of another model than the paper's have
    the dots alone.
    """
    plane, count = result.plane, len(result.maps)
    linear = (plane.x.is_linear, plane.y.is_linear)
    with mpl.rc_context(STYLE):
        wide = count > 1
        figure = Figure(figsize=(1.6 + 3.5 * count, 4.1 if wide else 4.9), layout="constrained")
        axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for axis, modality in zip(axes, result.maps, strict=True):
            shown = result.maps[modality].mean
            mesh = heat_panel(axis, result.xs, result.ys, shown, _limits(result), linear)
            if plane.is_of_the_paper:
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
            axis.set_xlim(*edges(result.xs, linear=linear[0])[[0, -1]])
            axis.set_ylim(*edges(result.ys, linear=linear[1])[[0, -1]])
        axes[0].set_ylabel(label(result.plane.y.name))
        figure.colorbar(mesh, ax=list(axes), label="OOD test accuracy")
        legend: dict[str, Any] = {
            "loc": "outside lower center",
            "ncols": 3 if wide else 1,
            "fontsize": CAPTION,
        }
        figure.legend(
            handles=_handles(result),
            title=_fixed(result),
            title_fontsize=CAPTION,
            **legend,
        )
    return figure


def _fixed(result: Phase) -> str:
    """What every cell has in common."""
    drawn = (result.plane.x.name, result.plane.y.name)
    plane, fixed = result.plane, dict(result.plane.fixed)
    base = vars(plane.base) | {"epochs": result.epochs} | fixed
    names = ("n", "d", "m", "n_snr2", "c_mu", "noise_rate", "epochs")
    left = {name: base[name] for name in names if name not in drawn}
    taken = {plane.x.determines, plane.y.determines, *fixed}
    left = {k: v for k, v in left.items() if k in fixed or DETERMINES.get(k, k) not in taken}
    if "multi" not in plane.modalities:
        left.pop("c_mu", None)
    cell = plane.cell(result.xs[0], result.ys[0])
    tau = r"$\tau = 1/m$" if plane.temperature is None else rf"$\tau$ = {number(plane.temperature)}"
    if "tau" in {*drawn, *fixed}:
        tau = ""
    others = {k: v for k, v in fixed.items() if k not in {*names, "modality"}}
    parts = [settings_caption(left, names), tau, settings_caption(others, others)]
    between = "; " if len(plane.modalities) > 1 else "\n"
    return ", ".join(part for part in parts if part) + between + head_text(cell)


def _theory(axis: Axes, result: Phase, modality: str) -> None:
    plane = result.plane
    xs = _fine(result.xs, linear=plane.x.is_linear)
    ys = _fine(result.ys, linear=plane.y.is_linear)
    values = overlay(plane, xs.tolist(), ys.tolist(), modality)
    for grid, style in zip(values, (*LINES, WINDOW), strict=True):
        draw_border(axis, (xs.tolist(), ys.tolist()), grid, style)
    if place := _figure_1(result):
        axis.plot(*place, ls="", marker="*", ms=11, mfc=MARK, mec="white")
    if (plane.x.name, plane.y.name) == ("n", "snr"):
        for guide in GUIDES:
            axis.plot(xs, np.sqrt(guide / xs), color="white", ls=":", lw=1.2)


def _limits(result: Phase) -> tuple[float, float]:
    """Ends of the colour scale: chance, or 0 where accuracy can be below it, to 1."""
    cell = result.plane.cell(result.xs[-1], result.ys[-1])
    return accuracy_limits(below_half=cell.has_spurious or (cell.classes or 2) > 2)


def _half_way(result: Phase) -> str:
    """The accuracy half-way to 1, or what it is half-way between where cells differ in it."""
    corners = itertools.product((result.xs[0], result.xs[-1]), (result.ys[0], result.ys[-1]))
    levels = {half_way(result.plane.cell(x, y)) for x, y in corners}
    return f"{levels.pop():.4g}" if len(levels) == 1 else "half-way from $1/K$ to 1"


def _figure_1(result: Phase) -> list[float]:
    """Figure 1's place on a plane; none where an axis or a fixed setting is not among its own."""
    names = (result.plane.x.name, result.plane.y.name)
    known = [getattr(FIGURE_1, name) for name in names if hasattr(FIGURE_1, name)]
    own = {name for name, _ in result.plane.fixed} <= {"modality"}
    return known if own and len(known) == len(names) else []


def _fine(centres: list[float], *, linear: bool) -> Floats:
    ends = edges(centres, linear=linear)
    spaced = np.linspace if linear else np.geomspace
    return spaced(float(ends[0]), float(ends[-1]), FINE)


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
        label=f"measured: mean over {count} seed{'s' * (count > 1)} passes {_half_way(result)}",
    )
    if not result.plane.is_of_the_paper:
        return [dots, *_left_out(result)]
    handles = [*border_handles(), dots]
    if {"snr", "n_snr2", "c_mu"} & {result.plane.x.name, result.plane.y.name}:
        balance, product = label("n_snr2"), f"{label('c_mu')} {label('n_snr2')}"
        window = (
            f"proofs' window: {balance} $\\leq$ {MAX_N_SNR2_SINGLE} (Lemma 5.2);\n"
            f"$\\geq$ {MIN_N_SNR2_MULTI}, {product} $\\geq$ {MIN_C_MU_N_SNR2_MULTI} (Lemma 5.4)"
        )
        handles.append(Line2D([], [], color=MARK, ls=WINDOW.dashes, lw=WINDOW.width, label=window))
    if _figure_1(result):
        star = Line2D([], [], ls="", marker="*", ms=9, mfc=MARK, mec="white", label="Figure 1")
        handles.append(star)
    if (result.plane.x.name, result.plane.y.name) == ("n", "snr"):
        told = ", ".join(f"{g:g}" for g in GUIDES)
        handles.append(Line2D([], [], color="0.6", ls=":", label=f"{label('n_snr2')} = {told}"))
    return [*handles, *_left_out(result)]


def _left_out(result: Phase) -> list[Line2D]:
    """The entry of runs that diverged, if any."""
    text = f"{result.left_out} runs that diverged left out"
    return [Line2D([], [], ls="", label=text)] if result.left_out else []


__all__ = ["phase"]
