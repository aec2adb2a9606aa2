"""`Picture`: what a picture of a sweep shows, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmcl_fast.errors import ConfigError
from mmcl_fast.plotting.style import check_text, read_style
from mmcl_fast.sweep.store.conditions import KEYS
from mmcl_fast.sweep.store.reader import check_column
from mmcl_fast.sweep.store.schema import CURVES
from mmcl_fast.sweep.store.seed_statistics import Band

PictureKind = Literal["curves", "lines", "heatmap"]
LogAxes = Literal["auto", "none", "x", "y", "xy"]
AXES: dict[PictureKind, tuple[str, ...]] = {"curves": (), "lines": ("x",), "heatmap": ("x", "y")}
INCHES = (1.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a picture of a sweep shows.

    Attributes:
        kind: Curves over epochs, lines over a setting, or a heat map of two.
        x: Setting of the horizontal axis (lines, heatmap).
        y: Setting of the vertical axis (heatmap).
        value: A curve or an own metric of the sweep (curves), or `final_` and its name; which there
            are is a matter of the store. Default: the four curves side by side, or
            final_ood_accuracy.
        hue: Setting that distinguishes the lines of a panel; of a heat map, that of its columns.
            Default: modality, where it is no row or column.
        col: Setting of the columns of panels.
        row: Setting of the rows of panels.
        where: Conditions `name=value` or `name=value,value` on the rows.
        band: sd, standard error, quartiles around the median, or none.
        theory: Draw the theory's borders on a heat map: equal T1 of signal and noise, Assumption
            4.1. Their place is interpolated between cells.
        log: Logarithmic axes. auto: x of lines, x and y of a heat map where the values are
            geometric or wide.
        title: Title of the figure; formulas in dollar signs, as in all texts. Default: none.
        xlabel: Label of the horizontal axes. Default: the setting's symbol.
        ylabel: Label of the vertical axes.
        size: Width and height in inches. Default: by the number of panels.
        style: Matplotlib style file, applied over ours.

    Raises: ConfigError: a name that no column has, one used twice, or one that the kind does not
        take; a formula that matplotlib cannot typeset.
    """

    kind: PictureKind = "curves"
    x: str | None = None
    y: str | None = None
    value: str | None = None
    hue: str | None = None
    col: str | None = None
    row: str | None = None
    where: tuple[str, ...] = ()
    band: Band = "sd"
    theory: bool = False
    log: LogAxes = "auto"
    title: str | None = None
    xlabel: str | None = None
    ylabel: str | None = None
    size: tuple[float, float] | None = None
    style: Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in AXES:
            raise ConfigError(f"kind: expected one of {', '.join(AXES)}, got {self.kind!r}")
        self._check_axes()
        if self.value is None and self.kind == "curves" and self.col is not None:
            raise ConfigError(
                f"col: expected none with four curves side by side, got {self.col}; choose one "
                "with --value"
            )
        if self.theory and self.kind != "heatmap":
            raise ConfigError(f"theory: expected --kind heatmap, got {self.kind}")
        if self.kind == "heatmap":
            self._check_heatmap()
        if self.size is not None and not all(INCHES[0] <= v <= INCHES[1] for v in self.size):
            raise ConfigError(
                f"size: expected width and height of {INCHES[0]:g} to {INCHES[1]:g} inches, got "
                f"{self.size[0]:g}, {self.size[1]:g}"
            )
        for name in ("title", "xlabel", "ylabel"):
            if (text := getattr(self, name)) is not None:
                check_text(name, text)
        if self.style is not None:
            read_style(self.style)

    def check_value(self, metrics: Sequence[str]) -> None:
        """The value is a curve or one of these own metrics of a store.

        Raises: ConfigError: it is not; the message has the nearest name.
        """
        if self.value is None:
            return
        names = (*CURVES, *metrics)
        known = names if self.kind == "curves" else tuple(f"final_{name}" for name in names)
        check_column(self.value, known)

    def _check_axes(self) -> None:
        for flag in ("x", "y"):
            name = getattr(self, flag)
            if (flag in AXES[self.kind]) != (name is not None):
                wanted = "a setting" if name is None else "none"
                got = "none" if name is None else name
                raise ConfigError(f"{flag}: expected {wanted} with --kind {self.kind}, got {got}")
        used: dict[str, str] = {}
        for flag in ("x", "y", "hue", "col", "row"):
            name = getattr(self, flag)
            if name is None:
                continue
            check_column(name, KEYS)
            if name in used:
                raise ConfigError(
                    f"{flag}: expected another setting than --{used[name]}, got {name}"
                )
            used[name] = flag

    def _check_heatmap(self) -> None:
        if self.hue is not None and self.col is not None:
            raise ConfigError(f"hue: expected none with --col of a heatmap, got {self.hue}")
        if self.band != "sd":
            raise ConfigError(f"band: expected none with --kind heatmap, got {self.band}")

    @property
    def values(self) -> tuple[str, ...]:
        """Columns that are drawn."""
        if self.value is not None:
            return (self.value,)
        return CURVES if self.kind == "curves" else ("final_ood_accuracy",)

    @property
    def lines(self) -> str | None:
        """Setting of the lines of a panel."""
        return None if self.kind == "heatmap" else self.hue or self._modality()

    @property
    def columns(self) -> str | None:
        """Setting of the columns of panels."""
        return self.col or self.hue or self._modality() if self.kind == "heatmap" else self.col

    @property
    def keys(self) -> list[str]:
        """Columns that define a point of the picture, x and y first."""
        given = (self.x, self.y, self.lines, self.columns, self.row)
        return [name for name in given if name is not None]

    def _modality(self) -> str | None:
        return None if "modality" in (self.x, self.y, self.col, self.row) else "modality"


__all__ = ["AXES", "LogAxes", "Picture", "PictureKind"]
