"""The report of a check: rows of prediction against measurement, and the curves behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One statement of the paper against runs.

    Attributes:
        statement: The claim.
        source: Lemma or theorem.
        predicted: The prediction in words or numbers.
        quantity: Name of the measured quantity.
        per_seed: The measurement, one value per seed.
        criterion: Condition for agreement.
        agrees: Whether the criterion holds.
        note: How it differs, or the interpretation under which it agrees.
    """

    statement: str
    source: str
    predicted: str
    quantity: str
    per_seed: tuple[float, ...]
    criterion: str
    agrees: bool
    note: str = ""

    @property
    def measured(self) -> str:
        """Mean ± sample standard deviation over seeds."""
        mean, sd = spread(self.per_seed)
        return f"{shown(mean)} ± {shown(sd)}" if len(self.per_seed) > 1 else shown(mean)

    @property
    def verdict(self) -> str:
        """In words."""
        return "agrees" if self.agrees else "DIFFERS"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one line of a panel.

    Attributes:
        label: Its name in the legend.
        modality: "single" or "multi", which colours it; None: the theory's own line.
        x: Abscissae.
        mean: Means over seeds.
        sd: Sample standard deviations, or empty for a prediction.
        faint: Drawn with open markers: a second quantity of the same modality.
        joined: Whether neighbours are settings of one sequence, so that a line between them has a
            meaning.
    """

    label: str
    modality: str | None
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...] = ()
    faint: bool = False
    joined: bool = True


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of the picture.

    Attributes:
        title: Above it.
        xlabel: Of the horizontal axis.
        ylabel: Of the vertical axis.
        series: What is drawn.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is.
        legend: Where the legend goes.
        fixed: What was held fixed, below the title.
        shares: Whether values are fractions, whose bars end at 0 and 1.
        chance: Where guessing is, or None.
    """

    title: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    legend: Literal["best"] | tuple[float, float] = "best"
    fixed: str = ""
    shares: bool = False
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check's result."""

    name: str
    rows: tuple[Row, ...]
    panel: Panel
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values; None where one is not finite."""
        content = asdict(self)
        for row, source in zip(content["rows"], self.rows, strict=True):
            mean, sd = spread(source.per_seed)
            row |= {"mean": mean, "sd": sd, "verdict": source.verdict}
        plain: dict[str, Any] = _finite(content)
        return plain


def measured_series(
    label: str,
    modality: str,
    x: Sequence[float],
    values: Floats,
    *,
    faint: bool = False,
    joined: bool = True,
) -> Series:
    """Mean and spread over seeds at each x: `values` is [points, seeds]."""
    pairs = [spread(v) for v in values]
    means, sds = (tuple(column) for column in zip(*pairs, strict=True))
    return Series(
        label=label,
        modality=modality,
        x=tuple(map(float, x)),
        mean=means,
        sd=sds,
        faint=faint,
        joined=joined,
    )


def spread(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def log_slope(x: Sequence[float], y: Sequence[float] | Floats) -> float:
    """Exponent of the power law through (x, y), by least squares in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def shown(value: float) -> str:
    """Three decimals; three digits where the value is large, two where it would round to 0."""
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def power_of_ten(value: float) -> str:
    """A size as panels print it."""
    exponent = round(math.log10(value))
    return f"$10^{{{exponent}}}$" if value == 10**exponent else f"{value:,.0f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = [
    "Finding",
    "Floats",
    "Panel",
    "Row",
    "Series",
    "log_slope",
    "measured_series",
    "power_of_ten",
    "shown",
    "spread",
]
