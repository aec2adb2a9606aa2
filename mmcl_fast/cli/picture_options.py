"""Options of the commands that draw what a store holds: fields of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from mmcl_fast.cli.checks import at_least
from mmcl_fast.cli.parser import POSITIONAL, REPEATABLE
from mmcl_fast.config import ProbeOn
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.sweep.store.place import PLAN_FILE


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Plot the rows of a sweep: curves over epochs, lines over a setting, a heatmap of two."""

    store: Path = field(metadata=POSITIONAL)
    """Directory of the store."""
    kind: Literal["curves", "lines", "heatmap"] = "curves"
    """Curves over epochs, lines over --x, or a heatmap over --x and --y."""
    x: str | None = None
    """Horizontal axis: a setting, or snr, n_snr2, c_mu, noise_rate, noise_start."""
    y: str | None = None
    """Vertical axis of a heatmap: as --x."""
    value: str | None = None
    """Loss, ood_accuracy, signal, noise or an own metric; final_... of it. Default: all four."""
    hue: str | None = None
    """Setting of the lines, or of a heatmap's columns: as --x. Default: modality, unless used."""
    col: str | None = None
    """Setting of the columns of panels: as --x."""
    row: str | None = None
    """Setting of the rows of panels: as --x."""
    where: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """Filter of the rows: m=16 or m=16,64. A setting that varies and is no axis needs one."""
    band: Literal["sd", "se", "quantiles", "none"] = "sd"
    """Bands: 1 s.d., the standard error, 25 % to 75 % around the median, or none."""
    theory: bool = False
    """Draw the theory's borders on a heatmap: equal T1 of signal and noise, Assumption 4.1."""
    log: Literal["auto", "none", "x", "y", "xy"] = "auto"
    """Logarithmic axes; auto: axes of settings with geometric or wide values."""
    title: str | None = None
    """Title of the figure."""
    xlabel: str | None = None
    """Label of the horizontal axes. Default: the setting's symbol."""
    ylabel: str | None = None
    """Label of the vertical axes. Default: as --xlabel."""
    size: str | None = None
    """Width and height in inches: 7,3. Default: by the number of panels."""
    dpi: float = 200.0
    """Dots per inch of a .png. 10 to 2400."""
    style: Path | None = None
    """Matplotlib style file (.mplstyle), applied over ours."""
    data: bool = False
    """Write the numbers of the picture too, to a .csv beside it."""
    out: Path
    """Output file, .png, .pdf or .svg."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        from mmcl_fast.cli.commands.plot import plot_command

        own = {"store", "size", "dpi", "data", "out"}
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return plot_command(
            self.store, chosen, size=self.size, dpi=self.dpi, data=self.data, out=self.out
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
    """Map OOD accuracy over two settings, with the theory's boundaries; re-running resumes."""

    plane: PlaneName = "cmu-nsnr2"
    """Axes: n and SNR; C_mu, d, m, sigma_eps or pair_noise and n SNR^2; spurious_correlation and
    |spurious| / |mu|; classes and n; C_mu and |mu_c| / |mu| of a third modality."""
    x: str | None = None
    """Another horizontal axis, NAME=LOW,HIGH: a number among the settings, snr, n_snr2, c_mu,
    noise_rate, noise_start, nu_share = |nu| / |mu|, spurious_share = |spurious| / |mu|,
    third_share = |mu_c| / |mu|."""
    y: str | None = None
    """Another vertical axis: as --x."""
    fix: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """A setting of every cell, NAME=VALUE: negatives=all, or a name as of --x."""
    seeds: int = 5
    """Seeds of each cell, from --first-seed upwards. At least 1."""
    points: int = 16
    """Values of each axis. 3 to 512."""
    epochs: int = 200
    """Epochs of training; accuracy is evaluated after the last. At least 1."""
    first_seed: int = 0
    """First seed."""
    probe_on: ProbeOn = "train"
    """Fit the head on training data (as the printed Figure 1) or on OOD data (section 3.3)."""
    probe_samples: int | None = None
    """OOD samples of the fit, of --probe-on ood alone. At least 2; default: 100."""
    probe_penalty: float | None = None
    """The head's l2. > 0; default: 1 / the samples of the fit."""
    workers: int | None = None
    """Runs side by side, one thread each. Default: one per core."""
    out: Path = Path("phase")
    """Directory of the results: phase.png, phase.pdf, phase.json, store."""

    def can_resume(self) -> bool:
        """Whether the same command goes on where an interrupted one ended."""
        return (self.out / "store" / PLAN_FILE).exists()

    def run(self) -> int:
        """Run the command and return its exit status."""
        at_least(1, seeds=self.seeds, epochs=self.epochs, workers=self.workers)
        from mmcl_fast.cli.commands.phase import chosen_plane, phase_command

        probe = {
            "on": self.probe_on,
            "samples": self.probe_samples,
            "penalty": self.probe_penalty,
        }
        return phase_command(
            chosen_plane(self.plane, self.x, self.y, probe, self.fix),
            seeds=range(self.first_seed, self.first_seed + self.seeds),
            points=self.points,
            epochs=self.epochs,
            workers=self.workers,
            out=self.out,
        )


__all__ = ["Phase", "Plot", "Report"]
