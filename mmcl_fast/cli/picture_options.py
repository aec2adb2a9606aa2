"""Options of the commands that draw what a store holds: fields of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmcl_fast.cli.parser import POSITIONAL, REPEATABLE
from mmcl_fast.experiments.phase.names import PlaneName


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Plot the rows of a sweep: curves over epochs, lines over a setting, a heatmap of two."""

    store: Path = field(metadata=POSITIONAL)
    """Directory of the store."""
    kind: Literal["curves", "lines", "heatmap"] = "curves"
    """Curves over epochs, lines over --x, or a heatmap over --x and --y; bands: 1 s.d."""
    x: str | None = None
    """Horizontal axis: a setting, or snr, n_snr2, c_mu, noise_rate, noise_start."""
    y: str | None = None
    """Vertical axis of a heatmap: as --x."""
    value: str | None = None
    """Loss, ood_accuracy, signal or noise; final_... of it. Default: all, or final_ood_accuracy."""
    hue: str = "modality"
    """Setting that distinguishes the lines, or the panels of a heatmap: as --x."""
    where: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """Filter of the rows: m=16. A setting that varies and is no axis needs one."""
    out: Path
    """Output file, .png or .pdf."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        from mmcl_fast.cli.commands.plot import plot_command

        return plot_command(
            self.store,
            self.kind,
            x=self.x,
            y=self.y,
            value=self.value,
            hue=self.hue,
            where=self.where,
            out=self.out,
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML file to explore the runs of a sweep in a browser, without a network."""

    store: Path = field(metadata=POSITIONAL)
    """Directory of the store."""
    where: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """Filter of the rows: m=16, or several values: m=16,64."""
    out: Path
    """Output file, .html."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        from mmcl_fast.cli.commands.report import report_command

        return report_command(self.store, self.out, self.where)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Map OOD accuracy of both modalities with the theory's boundaries; re-running resumes."""

    plane: PlaneName = "cmu-nsnr2"
    """Axes: n and SNR, C_mu and n SNR^2, d and n SNR^2, or m and n SNR^2."""
    seeds: int = 5
    """Seeds of each cell, from --first-seed upwards. At least 1."""
    points: int = 16
    """Values of each axis. 3 to 512."""
    epochs: int = 200
    """Epochs of training; accuracy is evaluated after the last. At least 1."""
    first_seed: int = 0
    """First seed."""
    workers: int | None = None
    """Runs side by side, one thread each. Default: one per core."""
    out: Path = Path("phase")
    """Directory of the results: phase.png, phase.pdf, phase.json, store."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        from mmcl_fast.cli.commands.phase import phase_command

        return phase_command(
            self.plane,
            seeds=range(self.first_seed, self.first_seed + self.seeds),
            points=self.points,
            epochs=self.epochs,
            workers=self.workers,
            out=self.out,
        )


__all__ = ["Phase", "Plot", "Report"]
