"""Options of every command: fields of frozen dataclasses; torch loads when a command runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tyro

from mmcl_fast.config import PRESETS, Device, DType, EngineName, TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.experiments.table1.protocol import ARMS, ArmName, Table1Config, quick
from mmcl_fast.experiments.theory_checks.names import CHECK_NAMES, CheckName

MAX_THREADS = 4096
SPEC_SUFFIX = ".toml"


@dataclass(frozen=True, kw_only=True)
class Figure1:
    """Reproduce the paper's Figure 1: leaves figure1.png, figure1.pdf, figure1.json."""

    seeds: int = 10
    """Number of seeds (data and weights), from --first-seed upwards. At least 1."""
    out: Path = Path()
    """Directory of the results."""
    engine: EngineName = "auto"
    """How to train: coefficient space, weights, autograd, or the cheapest that is exact."""
    device: Device = "auto"
    """Where to train; auto takes CUDA when there is one."""
    dtype: DType = "float32"
    """Floating-point type."""
    epochs: int = 200
    """Epochs of training (paper: 200)."""
    first_seed: int = 0
    """First seed."""
    threads: int | None = None
    """Processor threads; the curves do not depend on it. Default: torch's choice."""

    def run(self) -> int:
        """Do it."""
        cfg = PRESETS["figure1"].replace(
            engine=self.engine,
            device=self.device,
            dtype=self.dtype,
            epochs=self.epochs,
            seed=self.first_seed,
        )
        return _command("figure1", self.threads)(cfg, self.seeds, self.out)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one run, any setting: leaves run.json, curves.npz, curves.png, weights.safetensors."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    preset: str = "figure1"
    """Settings to start from: figure1 or figure1-multi; other flags change them."""
    out: Path = Path("run")
    """Directory of the results."""
    checkpoint_every: int = 0
    """Epochs between checkpoints; the same command continues from the last one. 0: none."""
    threads: int | None = None
    """Processor threads; from 1 GFLOP an epoch on, curves depend on it by rounding."""

    def run(self) -> int:
        """Do it."""
        return _command("train", self.threads)(self.config, self.out, self.checkpoint_every)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Table1:
    """Reproduce the paper's Table 1 on MNIST: leaves table1.json, table1.md, table1.png."""

    config: tyro.conf.OmitArgPrefixes[Table1Config] = field(default_factory=Table1Config)
    data: Path
    """Directory of the four MNIST files, gzipped or unpacked."""
    seeds: int | None = None
    """Number of seeds (data, weights, views), from --first-seed upwards. Default: 3; quick: 1."""
    out: Path = Path()
    """Directory of the results; an interrupted run in it is continued."""
    quick: bool = False
    """A look in under a minute: 6000 images, 3 epochs, arms multi and single, one seed."""
    download: bool = False
    """First fetch the files that are missing into --data, with checksums."""
    arms: tuple[ArmName, ...] = ARMS
    """What to train. The paper's two: multi, single. More views, and two controls: the others."""
    checksums: Literal["mnist", "none"] = "mnist"
    """Take the genuine MNIST files only, or any of their format (Fashion-MNIST)."""
    device: Device = "auto"
    """Where to train; auto takes CUDA when there is one."""
    first_seed: int = 0
    """First seed."""
    threads: int | None = None
    """Jobs side by side, one thread each; the numbers do not depend on it. Default: all cores."""

    def run(self) -> int:
        """Do it."""
        count = self.seeds if self.seeds is not None else (1 if self.quick else 3)
        fewer = self.quick and self.arms == ARMS
        status: int = _command("table1", self.threads)(
            quick(self.config) if self.quick else self.config,
            range(self.first_seed, self.first_seed + count),
            ARMS[:2] if fewer else self.arms,
            folder=self.data,
            out=self.out,
            checksums=self.checksums,
            download=self.download,
            device=self.device,
        )
        return status


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run a grid of settings times seeds; the same command goes on where it was stopped."""

    spec: tyro.conf.Positional[Path | None] = None
    """TOML file of the sweep: seeds, [base], [grid], [zip]; flags go before it."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An axis: m=16,64,256, snr=linspace(0.05,0.5,10), n=geomspace(10,1000,5), modality=both."""
    zip: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An axis that moves together with the other --zip axes."""
    seeds: int | None = None
    """Seeds of each combination, from --first-seed upwards. Default: 1."""
    first_seed: int | None = None
    """First seed. Default: --seed."""
    out: Path
    """Directory of the store: plan.parquet and one Parquet part per shard."""
    executor: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray (extra mmcl-fast[ray])."""
    address: str | None = None
    """Ray cluster to join. Default: one on this machine, on the loopback interface only."""
    workers: int | None = None
    """Runs side by side, one thread each. Default: one per core, or per GPU."""
    shard: str | None = None
    """i/N: compute the i-th of N parts only (1 <= i <= N), for arrays of jobs."""
    extend: bool = False
    """Add runs to the plan of the store; what is there stays."""
    allow_other_engine: bool = False
    """Go on where the plan's engine or processor is not to be had; computed_on marks the rows."""
    retry_failed: bool = False
    """Also compute shards with failed rows again."""
    max_deaths: int = 5
    """Workers a shard may cost before it is put away."""
    dry_run: bool = False
    """Only say how many runs, hours and bytes it would be."""
    slurm: int | None = None
    """Write sweep.sbatch for an array of this many jobs instead; --workers: cores of each."""
    sbatch: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A further #SBATCH option of that script, such as --sbatch=--partition=cpu."""

    def run(self) -> int:
        """Do it."""
        if self.spec is not None and self.spec.suffix != SPEC_SUFFIX:
            raise ConfigError(f"spec: expected a file named *{SPEC_SUFFIX}, got {str(self.spec)!r}")
        part = None if self.shard is None else _part(self.shard)
        run = _command("sweep", None)
        home = import_module("mmcl_fast.cli.commands.sweep")
        sweep = import_module("mmcl_fast.sweep")
        spec = sweep.Spec(self.config) if self.spec is None else sweep.read_spec(self.spec)
        request = None
        if self.slurm is not None:
            request = home.SlurmRequest(self.slurm, self.sbatch, home.command_line(sys.argv[1:]))
        return run(  # type: ignore[no-any-return]
            self.config,
            spec,
            grid=self.grid,
            zipped=self.zip,
            seeds=self.seeds,
            first_seed=self.first_seed,
            out=self.out,
            policy=sweep.Policy(
                executor=self.executor,
                address=self.address,
                workers=self.workers,
                part=part,
                extend=self.extend,
                any_engine=self.allow_other_engine,
                retry_failed=self.retry_failed,
                max_deaths=self.max_deaths,
            ),
            dry_run=self.dry_run,
            slurm=request,
        )


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a sweep is, from its store alone, while it runs or afterwards."""

    store: tyro.conf.Positional[Path]
    """Directory of the store."""

    def run(self) -> int:
        """Do it."""
        return _command("status", None)(self.store)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the rows of a sweep: curves over epochs, lines over a setting, a heat map of two."""

    store: tyro.conf.Positional[Path]
    """Directory of the store."""
    kind: Literal["curves", "lines", "heat"] = "curves"
    """Curves over epochs, lines over --x, or a map over --x and --y; bands: 1 s.d. over seeds."""
    x: str | None = None
    """Horizontal axis: a setting, or snr, n_snr2, c_mu, noise_rate, noise_start."""
    y: str | None = None
    """Vertical axis of a map: as --x."""
    value: str | None = None
    """Loss, ood_accuracy, signal or noise; final_... of it. Default: all, or final_ood_accuracy."""
    hue: str = "modality"
    """What tells lines, or maps, apart: as --x."""
    where: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Rows to draw: m=16. What varies and is no axis must be fixed so; nothing is averaged over."""
    out: Path
    """The picture, .png or .pdf."""

    def run(self) -> int:
        """Do it."""
        return _command("plot", None)(  # type: ignore[no-any-return]
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
class Phase:
    """Map OOD accuracy of both modalities with the theory's boundaries; run again = resume."""

    plane: PlaneName = "cmu-nsnr2"
    """Axes: n and SNR, C_mu and n SNR^2, d and n SNR^2, or m and n SNR^2."""
    seeds: int = 5
    """Seeds of each cell, from --first-seed upwards. At least 1."""
    points: int = 16
    """Values of each axis. 3 to 512."""
    epochs: int = 200
    """Epochs of training; accuracy is taken at their end. At least 1."""
    first_seed: int = 0
    """First seed."""
    workers: int | None = None
    """Runs side by side, one thread each. Default: one per core."""
    out: Path = Path("phase")
    """Directory of the results: phase.png, phase.pdf, phase.json, store."""

    def run(self) -> int:
        """Do it."""
        return _command("phase", None)(  # type: ignore[no-any-return]
            self.plane,
            seeds=range(self.first_seed, self.first_seed + self.seeds),
            points=self.points,
            epochs=self.epochs,
            workers=self.workers,
            out=self.out,
        )


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Check the paper's lemmas and theorems on runs: leaves theory.json, theory.md, theory.png."""

    checks: tuple[CheckName, ...] = CHECK_NAMES
    """What to check: growth rates, T1, sizes at T1, signs, the threshold C_mu, the test error."""
    seeds: int = 10
    """Number of seeds (data and weights), from --first-seed upwards. At least 2."""
    out: Path = Path()
    """Directory of the results."""
    first_seed: int = 0
    """First seed."""
    threads: int = 1
    """Processor threads; the numbers do not depend on it. Runs this short gain little by more."""

    def run(self) -> int:
        """Do it."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return _command("theory", self.threads)(self.checks, seeds, self.out)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure this library against PyTorch and other peers: leaves bench.jsonl, bench.png."""

    operations: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure: loss, train, data, sweep, primal, sizes, startup. Default: all."""
    peers: tuple[str, ...] | None = None
    """What to compare with. Default: all that are installed; the others are named with a reason."""
    json: Path | None = None
    """File to which one JSON object a measurement is appended. Default: bench.jsonl in --out."""
    out: Path = Path()
    """Directory of the results."""
    quick: bool = False
    """A trial: least sizes and repeats."""

    def run(self) -> int:
        """Do it."""
        status: int = _command("bench", None)(
            self.operations, self.peers, json_file=self.json, out=self.out, quick=self.quick
        )
        return status


@dataclass(frozen=True, kw_only=True)
class Info:
    """Versions, devices, and what can run here and why the rest cannot."""

    def run(self) -> int:
        """Do it."""
        return _command("info", None)()  # type: ignore[no-any-return]


COMMANDS = {
    "figure1": Figure1,
    "table1": Table1,
    "train": Train,
    "sweep": Sweep,
    "status": Status,
    "plot": Plot,
    "phase": Phase,
    "theory": Theory,
    "bench": Bench,
    "info": Info,
}


def flags_of(kind: Any) -> list[str]:
    """Every flag of a command: fields of its dataclass, and of fields that are dataclasses."""
    found: list[str] = []
    hints = get_type_hints(kind)
    for f in fields(kind):
        inner = hints[f.name]
        found += flags_of(inner) if is_dataclass(inner) else [f"--{f.name.replace('_', '-')}"]
    return found


def _part(text: str) -> tuple[int, int]:
    """`i/N` as numbers."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"shard: expected i/N, such as 3/10, got {text!r}")
    return int(index), int(count)


def _command(name: str, threads: int | None) -> Any:
    module = import_module(f"mmcl_fast.cli.commands.{name}")
    if threads is not None:
        if not 1 <= threads <= MAX_THREADS:
            raise ConfigError(f"threads: expected an integer in 1 .. {MAX_THREADS}, got {threads}")
        import_module("torch").set_num_threads(threads)
    return getattr(module, f"{name}_command")


__all__ = ["COMMANDS", "SPEC_SUFFIX", "Sweep", "Train", "flags_of"]
