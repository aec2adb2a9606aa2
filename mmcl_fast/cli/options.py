"""Options of every command: fields of frozen dataclasses. torch loads when a command runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from mmcl_fast.cli.checks import CHECKPOINT, at_least, check_file_to_append
from mmcl_fast.cli.example_options import Example
from mmcl_fast.cli.parser import POSITIONAL, REPEATABLE
from mmcl_fast.cli.picture_options import Phase, Plot, Report
from mmcl_fast.cli.sweep_options import Sweep
from mmcl_fast.config import Device, DType, EngineName, ProbeOn, TrainConfig
from mmcl_fast.config_presets import PRESETS
from mmcl_fast.derived import DERIVED, check_derived
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.table1.protocol import ARMS, ArmName, Table1Config, quick
from mmcl_fast.experiments.theory_checks.names import CHECK_NAMES, CheckName
from mmcl_fast.sweep.store.place import require_plan

MAX_THREADS = 4096


class Command(Protocol):
    """A command with its options."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        ...


@dataclass(frozen=True, kw_only=True)
class Figure1:
    """Reproduce the paper's Figure 1: writes figure1.png, figure1.pdf, figure1.json."""

    seeds: int = 10
    """Number of seeds (data and weights), from --first-seed upwards. At least 1."""
    out: Path = Path()
    """Directory of the results."""
    engine: EngineName = "auto"
    """Training engine; auto takes the cheapest that is exact."""
    device: Device = "auto"
    """Training device; auto takes CUDA where there is one."""
    dtype: DType = "float32"
    """Floating-point type."""
    epochs: int = 200
    """Epochs of training (paper: 200)."""
    first_seed: int = 0
    """First seed."""
    probe_on: ProbeOn = "train"
    """Fit the head on training data (as the printed Figure 1) or on OOD data (section 3.3)."""
    probe_samples: int | None = None
    """OOD samples of the fit, of --probe-on ood alone. At least 2; default: 100."""
    probe_penalty: float | None = None
    """The head's l2. > 0; default: 1 / the samples of the fit."""
    data: bool = False
    """Write figure1.csv as well: every curve of every seed, one row an epoch."""
    threads: int | None = None
    """CPU threads; the curves do not depend on them. Default: torch's choice."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        at_least(1, seeds=self.seeds, epochs=self.epochs)
        TrainConfig(seed=self.first_seed + self.seeds - 1)  # raises beyond the largest
        from mmcl_fast.cli.commands.figure1 import figure1_command

        _set_threads("threads", self.threads)
        cfg = PRESETS["figure1"].replace(
            engine=self.engine,
            device=self.device,
            dtype=self.dtype,
            epochs=self.epochs,
            seed=self.first_seed,
            probe_on=self.probe_on,
            probe_samples=self.probe_samples,
            probe_penalty=self.probe_penalty,
        )
        return figure1_command(cfg, self.seeds, self.out, with_data=self.data)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one run: writes run.json, curves.npz, curves.png, weights.safetensors."""

    preset: str = "figure1"
    """Settings that the other flags change: figure1 or figure1-multi."""
    out: Path = Path("run")
    """Directory of the results."""
    snr: float | None = None
    """Signal-to-noise ratio |mu| / (sigma_xi sqrt(d)), in place of --mu-norm."""
    n_snr2: float | None = None
    """The product n SNR^2, in place of --mu-norm."""
    c_mu: float | None = None
    """The ratio |mu~| / |mu| of the signals, in place of --mu-b-norm."""
    overwrite: bool = False
    """Train into a directory that holds a run of other settings, whose files are replaced."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints, from which a re-run resumes. Default: each minute; 0: none."""
    metric: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """An own metric, module:function or name=module:function; mmcl_fast.metrics has some."""
    threads: int | None = None
    """CPU threads; above 1 GFLOP an epoch, curves depend on them by rounding."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """Settings of the run."""

    @staticmethod
    def base(given: Mapping[str, Any]) -> TrainConfig:
        """The preset on the command line."""
        preset = given.get("preset", "figure1")
        if preset not in PRESETS:
            raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        asked = {name: given[name] for name in DERIVED if given.get(name) is not None}
        check_derived(asked, given)  # raises where its setting is given, too
        return PRESETS[preset]

    def can_resume(self) -> bool:
        """Whether the same command goes on where an interrupted one ended."""
        return (self.out / CHECKPOINT).exists()

    def run(self) -> int:
        """Run the command and return its exit status."""
        at_least(0, checkpoint_every=self.checkpoint_every)
        from mmcl_fast.cli.commands.train import train_command

        _set_threads("threads", self.threads)
        asked = {name: getattr(self, name, None) for name in DERIVED}
        return train_command(
            self.config.replace(**{name: x for name, x in asked.items() if x is not None}),
            self.out,
            self.checkpoint_every,
            metrics=self.metric,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True, kw_only=True)
class Table1:
    """Reproduce the paper's Table 1 on MNIST: writes table1.json, table1.md, table1.png."""

    data: Path
    """Directory of the four MNIST files, gzipped or unpacked."""
    seeds: int | None = None
    """Number of seeds (data, weights, views), from --first-seed upwards. Default: 3; quick: 1."""
    out: Path = Path()
    """Directory of the results; re-running the same command resumes an interrupted run."""
    quick: bool = False
    """A trial in under a minute: 6000 images, 3 epochs, arms multi and single, one seed."""
    colour_only: bool = False
    """Only say what a decision by colour alone gets, and train nothing; writes
    table1_colour_only.json."""
    download: bool = False
    """Download files that are absent from --data, verified by checksum."""
    arms: tuple[ArmName, ...] = ARMS
    """Arms to train: the paper's multi and single; SimCLR's full augmentations; two controls."""
    checksums: Literal["mnist", "none"] = "mnist"
    """Require the genuine MNIST files, or accept any of their format (Fashion-MNIST)."""
    device: Device = "auto"
    """Training device; auto takes CUDA where there is one."""
    first_seed: int = 0
    """First seed."""
    workers: int | None = None
    """Jobs side by side, one thread each; results do not depend on it. Default: one per core."""
    config: Table1Config = field(default_factory=Table1Config)
    """Settings of the experiment."""

    def can_resume(self) -> bool:
        """Whether the same command goes on where an interrupted one ended."""
        return (self.out / "table1.partial.json").exists()

    def run(self) -> int:
        """Run the command and return its exit status."""
        at_least(1, seeds=self.seeds)
        _distinct("arms", self.arms)
        from mmcl_fast.cli.commands.table1 import colour_only_command, table1_command

        count = self.seeds if self.seeds is not None else (1 if self.quick else 3)
        if self.colour_only:
            self._check_nothing_to_train()
            return colour_only_command(
                self.config,
                range(self.first_seed, self.first_seed + count),
                folder=self.data,
                out=self.out,
                checksums=self.checksums,
                download=self.download,
            )
        _set_threads("workers", self.workers)
        fewer = self.quick and self.arms == ARMS
        return table1_command(
            quick(self.config) if self.quick else self.config,
            range(self.first_seed, self.first_seed + count),
            ARMS[:2] if fewer else self.arms,
            folder=self.data,
            out=self.out,
            checksums=self.checksums,
            download=self.download,
            device=self.device,
        )

    def _check_nothing_to_train(self) -> None:
        """Refuse flags that say how to train beside --colour-only."""
        given = {"quick": self.quick, "device": self.device != "auto"}
        given |= {"arms": self.arms != ARMS, "workers": self.workers is not None}
        for name, is_given in given.items():
            if is_given:
                raise ConfigError(
                    f"{name}: expected none with --colour-only, which trains nothing, "
                    f"got {getattr(self, name)!r}"
                )


@dataclass(frozen=True, kw_only=True)
class Status:
    """Print the progress of a sweep from its store, during or after it."""

    store: Path = field(metadata=POSITIONAL)
    """Directory of the store."""
    verify: bool = False
    """Read every file whole, and compare every row with the plan."""
    watch: bool = False
    """Go on until every row is there, and show what changes."""
    json: bool = False
    """Print one JSON object, with --watch one a line."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        require_plan(self.store)
        from mmcl_fast.cli.commands.status import status_command

        return status_command(self.store, verify=self.verify, watch=self.watch, as_json=self.json)


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Check the paper's lemmas and theorems on runs: writes theory.json, theory.md, theory.png."""

    checks: tuple[CheckName, ...] = CHECK_NAMES
    """Checks: growth rates, T1, sizes at T1, signs, the threshold C_mu, the test error, the loss by
    T*, the second stage, pairs of a neuron and a sample, the start, softmax weights."""
    seeds: int = 10
    """Number of seeds (data and weights), from --first-seed upwards. At least 2."""
    out: Path = Path()
    """Directory of the results."""
    first_seed: int = 0
    """First seed."""
    threads: int = 1
    """CPU threads; results do not depend on them, and runs this short gain little."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        if self.seeds < 2:
            raise ConfigError(f"seeds: expected an integer >= 2 (for a spread), got {self.seeds}")
        _distinct("checks", self.checks)
        from mmcl_fast.cli.commands.theory import theory_command

        _set_threads("threads", self.threads)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return theory_command(self.checks, seeds, self.out)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure this library against PyTorch and other peers: writes bench.jsonl, bench.png."""

    operations: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    """Operations: loss, train, data, sweep, variants, primal, sizes, startup. Default: all."""
    peers: tuple[str, ...] | None = None
    """Peers to compare with. Default: all that are installed; others are skipped with a reason."""
    json: Path | None = None
    """JSON Lines file to append the measurements to. Default: bench.jsonl in --out."""
    out: Path = Path()
    """Directory of the results."""
    quick: bool = False
    """A trial with the smallest sizes and fewest repeats."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        check_file_to_append("json", self.json)
        from mmcl_fast.cli.commands.bench import bench_command

        return bench_command(
            self.operations, self.peers, json_file=self.json, out=self.out, quick=self.quick
        )


@dataclass(frozen=True, kw_only=True)
class Info:
    """Print versions, devices, and the engines and backends that can run here."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        from mmcl_fast.cli.commands.info import info_command

        return info_command()


COMMANDS: MappingProxyType[str, type[Command]] = MappingProxyType(
    {
        "figure1": Figure1,
        "table1": Table1,
        "train": Train,
        "sweep": Sweep,
        "status": Status,
        "plot": Plot,
        "report": Report,
        "phase": Phase,
        "theory": Theory,
        "example": Example,
        "bench": Bench,
        "info": Info,
    }
)
RENAMED = MappingProxyType(
    {
        ("sweep", "--max-deaths"): "--max-worker-failures",
        ("table1", "--threads"): "--workers",
    }
)
"""Former flags of commands, which are refused, and their present names."""


def _distinct(option: str, names: tuple[str, ...]) -> None:
    """Refuse a name that is given twice."""
    if len(set(names)) < len(names):
        raise ConfigError(f"{option}: expected each once, got {' '.join(names)!r}")


def _set_threads(option: str, count: int | None) -> None:
    """Limit torch's threads to `count`, which the user gave as `option`."""
    if count is None:
        return
    if not 1 <= count <= MAX_THREADS:
        raise ConfigError(f"{option}: expected an integer in 1 .. {MAX_THREADS}, got {count}")
    import torch

    torch.set_num_threads(count)


__all__ = ["COMMANDS", "RENAMED", "Command"]
