"""The picture of Table 1: sample images, accuracies under both accountings, confusion by colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from mmcl_fast.data.mnist.colored_mnist import CLASSES, ColouredDigits
from mmcl_fast.experiments.table1.accounting import zero_one_name
from mmcl_fast.experiments.table1.experiment import MAIN_READOUT, ZERO_ONE_READOUT, Table1
from mmcl_fast.experiments.table1.protocol import PAPER, SETS, ArmName
from mmcl_fast.experiments.table1.report import SET_NAMES, SHORT_NAMES, mean_confusion
from mmcl_fast.plotting.style import CAPTION, COLOURS, HATCHES, STYLE, seeds_text

EXAMPLES = 5  # images of each class
# Okabe and Ito (2008), safe for colour-blind; the two of Figure 1 keep their colours.
COLOUR_ONLY = "colour_only"  # its key in the JSON; drawn beside the arms
ARM_COLOURS = COLOURS | {
    "single_full": "#56B4E9",
    "two_head": "#E69F00",
    "supervised": "#999999",
    COLOUR_ONLY: "#CC79A7",
}
ARM_HATCHES = HATCHES | {
    "single_full": "..",
    "two_head": "\\\\\\",
    "supervised": "xx",
    COLOUR_ONLY: "oo",
}
ORDER: tuple[ArmName, ...] = ("single", "single_full", "multi", "two_head", "supervised")
ENDS = ("train", "rev")  # the sets that the paper prints


def table1(table: Table1, found: dict[str, Any], sets: dict[str, ColouredDigits]) -> Figure:
    """Three rows: images of the three sets, bars, confusion by colour.

    Args:
        table: All results.
        found: Its JSON.
        sets: Images of the first seed.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 9.2), layout="constrained")
        ratios = (2.3, 2.6, 3.4)
        top, middle, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=ratios)[:, 0]
        _samples(top, sets)
        _bars(middle, found)
        _confusions(bottom, table, sets["rev"].palette.numpy())
    return figure


def _row(figure: SubFigure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _samples(figure: SubFigure, sets: dict[str, ColouredDigits]) -> None:
    shown = ("train", "rand", "rev")
    for axis, kind in zip(_row(figure, len(shown)), shown, strict=True):
        axis.imshow(_mosaic(sets[kind]), interpolation="nearest")
        axis.set_title({"train": "training (ID test alike)"}.get(kind, SET_NAMES[kind]))
        axis.set_xlabel("columns: label 0 to 9", fontsize=7)
        axis.set(xticks=[], yticks=[])


def _mosaic(data: ColouredDigits) -> np.ndarray:
    """The first images of each label, one column a label, [H, W, 3]; black where there are none."""
    side = data.grey.shape[-1]
    canvas = np.zeros((EXAMPLES * side, CLASSES * side, 3), dtype=np.float32)
    for label in range(CLASSES):
        which = torch.nonzero(data.labels == label)[:EXAMPLES, 0]
        for row, image in enumerate(data.images(which).permute(0, 2, 3, 1).numpy()):
            place = slice(row * side, (row + 1) * side), slice(label * side, (label + 1) * side)
            canvas[place] = image
    return canvas


@dataclass(frozen=True)
class _Panel:
    """Bars of one accounting.

    Attributes:
        title: What is counted.
        readout: Readout by arm.
        sets: Sets along the axis.
        rename: Key of a set's accuracy.
        chance: Accuracy of a guess, in percent, and in words.
    """

    title: str
    readout: Mapping[str, str]
    sets: tuple[str, ...]
    rename: Callable[[str], str]
    chance: float


PANELS = (
    _Panel("ten classes, all images", MAIN_READOUT, SETS, str, 10.0),
    _Panel("0 against 1, images labelled so", ZERO_ONE_READOUT, ENDS, zero_one_name, 50.0),
)


def _bars(figure: SubFigure, found: dict[str, Any]) -> None:
    """A panel an accounting, both with the paper's values, which do not say theirs."""
    widths = [len(panel.sets) for panel in PANELS]
    axes = figure.subplots(1, len(PANELS), sharey=True, width_ratios=widths)
    for axis, panel in zip(axes, PANELS, strict=True):
        _panel(axis, panel, found)
    axes[0].set(ylabel="accuracy, %", ylim=(0, 112))
    handles, labels = axes[0].get_legend_handles_labels()
    axes[1].legend(handles, labels, fontsize=CAPTION, loc="center left", bbox_to_anchor=(1.0, 0.5))
    readouts = "; ".join(
        f"{panel.title.split(',')[0]}: "
        + ", ".join(f"{SHORT_NAMES[arm]} ({panel.readout[arm].replace('_', ' ')})" for arm in arms)
        for panel in PANELS
        for arms in [[arm for arm in ORDER[:3] if arm in found["config"]["arms"]]]
        if arms
    )
    seeds = seeds_text(len(found["config"]["seeds"]))
    figure.supxlabel(
        f"{seeds}; our values stand at the foot of the bars; the paper does not say what it "
        f"counts\n{readouts}",
        fontsize=CAPTION,
    )


def _panel(axis: Axes, panel: _Panel, found: dict[str, Any]) -> None:
    arms = [arm for arm in ORDER if arm in found["config"]["arms"]]
    width = 0.84 / (len(arms) + 1)
    for k, arm in enumerate([*arms, COLOUR_ONLY]):
        sets = found[arm][panel.readout.get(arm, "sampled")]
        places = np.arange(len(panel.sets)) + (k - len(arms) / 2) * width
        values = [sets[panel.rename(kind)] for kind in panel.sets]
        means, spreads = [v["mean"] for v in values], [v["sd"] for v in values]
        label = SHORT_NAMES.get(arm, "colour alone, no network")
        look: dict[str, Any] = {"color": ARM_COLOURS[arm], "hatch": ARM_HATCHES[arm]}
        look |= {"edgecolor": "white", "lw": 0, "label": label}
        axis.bar(places, means, 0.92 * width, yerr=spreads, **look)
        for place, mean, kind in zip(places, means, panel.sets, strict=True):
            _value(axis, place, mean)
            if kind in PAPER.get(arm, {}):
                _paper_mark(axis, place, PAPER[arm][kind], width)
    axis.plot([], [], color="black", lw=2, label="the paper's value, printed above")
    axis.axhline(panel.chance, color="0.4", lw=0.9, ls=":", label="chance")
    axis.set_xticks(range(len(panel.sets)), [SET_NAMES[kind] for kind in panel.sets])
    axis.set_title(panel.title)
    axis.grid(visible=False, axis="x")


def _value(axis: Axes, place: float, mean: float) -> None:
    """Our value at the foot of its bar, away from the paper's line and from error bars."""
    box = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.85}
    axis.text(place, 1.5, f"{mean:.0f}", ha="center", va="bottom", fontsize=6.5, bbox=box)


def _paper_mark(axis: Axes, place: float, value: float, width: float) -> None:
    ends = [place - width / 2, place + width / 2]
    axis.plot(ends, [value, value], color="black", lw=2)
    box = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.85}
    look: dict[str, Any] = {"ha": "center", "fontsize": 6.5, "weight": "bold", "bbox": box}
    axis.text(place, value + 3, f"{value:.0f}", **look)


def _confusions(figure: SubFigure, table: Table1, palette: np.ndarray) -> None:
    papers: tuple[ArmName, ...] = ("single", "multi")
    arms = [arm for arm in papers if arm in table.arms] or [table.arms[0]]
    axes = _row(figure, len(arms))
    for axis, arm in zip(axes, arms, strict=True):
        axis.imshow(mean_confusion(table, arm), vmin=0, vmax=1, cmap="cividis")
        axis.set_title(
            f"{SHORT_NAMES[arm]}: what an image of a colour is called, reversed test set"
        )
        axis.title.set_fontsize(8)
        axis.set(xlabel="predicted class", xticks=range(CLASSES), yticks=range(CLASSES))
        axis.set_yticklabels([f"■ {k}" for k in range(CLASSES)])
        for tick, colour in zip(axis.get_yticklabels(), palette, strict=True):
            tick.set_color(tuple(0.85 * colour))
        axis.set_ylabel("colour, and the class that trained with it")
        axis.grid(visible=False)
    figure.colorbar(axes[0].images[0], ax=axes, label="share of the images of that colour")


__all__ = ["table1"]
