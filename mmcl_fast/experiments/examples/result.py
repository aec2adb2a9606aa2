"""What an example gives: panels of curves or maps, and the settings that they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.environment import environment
from mmcl_fast.experiments.examples.names import SOURCES, ExampleName

Scale = Literal["linear", "log"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: Its name in the legend.
        mean: Over seeds, [x].
        sd: Sample standard deviation over seeds, [x]; 0 for one seed.
    """

    label: str
    mean: Floats
    sd: Floats


@dataclass(frozen=True)
class LinePanel:
    """Lines over one axis.

    Attributes:
        title: Of the panel.
        xlabel: Name of the horizontal axis.
        x: Its values, [x].
        lines: In the order of the legend.
        chance: Accuracy of guessing, drawn dotted; None: no accuracy.
        scales: Of the horizontal and the vertical axis.
    """

    title: str
    xlabel: str
    x: list[float]
    lines: tuple[Line, ...]
    chance: float | None = None
    scales: tuple[Scale, Scale] = ("linear", "linear")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        lines = {one.label: {"mean": plain(one.mean), "sd": plain(one.sd)} for one in self.lines}
        return {"x": self.xlabel, "values": self.x, "lines": lines}


@dataclass(frozen=True)
class HeatPanel:
    """A map over two axes.

    Attributes:
        title: Of the panel.
        xlabel: Name of the horizontal axis.
        ylabel: Name of the vertical axis.
        x: Values of the horizontal axis.
        y: Values of the vertical axis.
        mean: Test accuracy, over seeds, [y, x].
    """

    title: str
    xlabel: str
    ylabel: str
    x: list[float]
    y: list[float]
    mean: Floats

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "x": self.xlabel,
            "x_values": self.x,
            "y": self.ylabel,
            "y_values": self.y,
            "mean": [plain(row) for row in self.mean],
        }


Panel = LinePanel | HeatPanel


@dataclass(frozen=True)
class ExampleResult:
    """Results of an example.

    Attributes:
        name: Of the example.
        config: Settings that its runs share.
        varied: Names of what differs between its runs, beside seeds.
        seeds: Of data and weights.
        panels: In the order of the picture.
        diverged: Runs whose loss became non-finite; they are NaN in every mean that they enter.
    """

    name: ExampleName
    config: TrainConfig
    varied: tuple[str, ...]
    seeds: range
    panels: tuple[Panel, ...]
    diverged: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; None where one is not finite."""
        return {
            "example": self.name,
            "source": SOURCES[self.name],
            "config": self.config.to_dict() | {"tau": self.config.tau_value},
            "varied": list(self.varied),
            "seeds": list(self.seeds),
            "diverged": self.diverged,
            "panels": {panel.title: panel.to_json() for panel in self.panels},
            "environment": environment(),
        }


def line(label: str, per_seed: Sequence[Sequence[float]] | Floats) -> Line:
    """A line of values [seeds, x]."""
    values = np.asarray(per_seed, np.float64)
    sd = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return Line(label, values.mean(0), sd)


def plain(values: Floats) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(v) if math.isfinite(v) else None for v in values]


__all__ = [
    "ExampleResult",
    "Floats",
    "HeatPanel",
    "Line",
    "LinePanel",
    "Panel",
    "Scale",
    "line",
    "plain",
]
