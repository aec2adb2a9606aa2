"""What the specification is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmcl_fast.report.dimensions import CONSTANT, Dimension
from mmcl_fast.sweep.store.schema import CURVES

QUANTITIES = dict(
    zip(CURVES, ("training loss", "OOD accuracy", "signal", "noise memorisation"), strict=True)
)


@dataclass(frozen=True)
class Content:
    """The data of a report.

    Attributes:
        axes: Dimensions, at least two; a sweep of fewer has constant ones.
        modalities: Those that the sweep has.
        epochs: Epochs at which curves are stored.
        accuracies: Ends of the map's colours of accuracy.
        settings: CSV of `tables.settings_csv`.
        runs: CSV of `tables.runs_csv`.
    """

    axes: Sequence[Dimension]
    modalities: Sequence[str]
    epochs: Sequence[int]
    accuracies: tuple[float, float]
    settings: str
    runs: str

    def elsewhere(self, *free: str) -> str:
        """Condition of a row that it is at the chosen value of every axis but the free ones.

        Args:
            free: Expressions that hold for the axis `{k}` where that axis is free.
        """
        tests = []
        for k in range(len(self.axes)):
            test = " || ".join([f"datum.a{k} === fix_{k}", *(f.format(k=k) for f in free)])
            tests.append(f"({test})")
        return " && ".join(tests)

    @property
    def named(self) -> list[tuple[int, str]]:
        """Index and name of every axis that is a setting."""
        return [(k, axis.name) for k, axis in enumerate(self.axes) if axis.name != CONSTANT]

    @property
    def header(self) -> str:
        """First line of the CSV files of settings."""
        names = [name for _, name in self.named]
        return ",".join([*names, "finished,diverged,failed,epoch,quantity,mean,sd"])

    @property
    def not_modality(self) -> list[str]:
        """The argument of `elsewhere` that leaves the modality free."""
        return [f"{{k}} === {k}" for k, name in self.named if name == "modality"]


__all__ = ["QUANTITIES", "Content"]
