"""Options of `mmcl sweep`, and the checks of them that need no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mmcl_fast.cli.checks import at_least, check_axes_against_flags, parse_axes, parse_shard
from mmcl_fast.cli.parser import POSITIONAL, REPEATABLE
from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.execute.policy import Policy
from mmcl_fast.sweep.plan.axes import make_axes
from mmcl_fast.sweep.plan.modalities import modality_of
from mmcl_fast.sweep.plan.spec_file import Spec, read_spec
from mmcl_fast.sweep.store.place import PLAN_FILE, require_plan

SPEC_SUFFIX = ".toml"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run a grid of settings times seeds; re-running the same command resumes."""

    spec: Path | None = field(default=None, metadata=POSITIONAL)
    """TOML file of the sweep: seeds, [base], [grid], [zip]. Flags override it."""
    grid: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """An axis: m=16,64,256, snr=linspace(0.05,0.5,10), n=geomspace(10,1000,5), modality=both."""
    zip: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """An axis that varies jointly with the other --zip axes."""
    metric: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """An own metric, module:function or name=module:function; mmcl_fast.metrics has some."""
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
    """i/N: compute only the i-th of N parts of the shards (1 <= i <= N), for job arrays."""
    extend: bool = False
    """Add runs to the stored plan; existing rows stay."""
    allow_other_engine: bool = False
    """Resume where the plan's engine or processor is unavailable; computed_on marks the rows."""
    retry_failed: bool = False
    """Recompute shards with failed rows."""
    max_worker_failures: int = 5
    """Worker deaths after which a shard is quarantined."""
    worker_timeout: float | None = None
    """Seconds without CPU time after which a worker counts as hung: it is killed, and its shard
    given to another. Default: 300; executor local."""
    dry_run: bool = False
    """Print the number of runs, core-hours and bytes, and compute nothing."""
    add: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """Add to the plan in --out, in place of a grid: a value m=32, or seeds=20 in all."""
    slurm: int | None = None
    """Write sweep.sbatch for an array of this many jobs instead; --workers: cores of each."""
    sbatch: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """A further #SBATCH option of that script, such as --sbatch=--partition=cpu."""
    setup: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    """A line of shell in that script before the sweep, such as --setup="module load cuda"."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """Settings of every run, unless an axis sets them."""

    @staticmethod
    def base(given: Mapping[str, Any]) -> TrainConfig:
        """[base] of the TOML file on the command line."""
        spec: Path | None = given.get("spec")
        if "add" in given:
            known = {f.name for f in fields(TrainConfig)}
            for name in given:
                if name in known | {"spec", "grid", "zip", "metric", "seeds", "first_seed"}:
                    raise ConfigError(f"{name}: expected none with --add, which takes the plan's")
        grid, zipped = (parse_axes(kind, given.get(kind, ())) for kind in ("grid", "zip"))
        axes = [*grid, *zipped]
        if spec is None:
            check_axes_against_flags(axes, given)
            modality = modality_of(given, grid)
            return TrainConfig(modality=modality) if modality else TrainConfig()
        if spec.suffix != SPEC_SUFFIX:
            raise ConfigError(f"spec: expected a file named *{SPEC_SUFFIX}, got {str(spec)!r}")
        of_file = read_spec(spec)
        check_axes_against_flags([*axes, *of_file.grid, *of_file.zipped], given)
        modality = modality_of(given, of_file.grid | grid)
        return of_file.base.replace(modality=modality) if modality else of_file.base

    def can_resume(self) -> bool:
        """Whether the same command goes on where an interrupted one ended."""
        return (self.out / PLAN_FILE).exists()

    def run(self) -> int:
        """Run the command and return its exit status."""
        at_least(1, max_worker_failures=self.max_worker_failures, slurm=self.slurm)
        at_least(1, seeds=self.seeds)
        for name in ("sbatch", "setup"):
            if getattr(self, name) and self.slurm is None:
                raise ConfigError(f"{name}: expected --slurm, whose script it is for, got none")
        at_least(0, first_seed=self.first_seed)
        policy = Policy(
            executor=self.executor,
            address=self.address,
            workers=self.workers,
            part=None if self.shard is None else parse_shard(self.shard),
            extend=self.extend,
            any_engine=self.allow_other_engine,
            retry_failed=self.retry_failed,
            max_deaths=self.max_worker_failures,
            worker_timeout=self.worker_timeout,
        )
        grid, zipped = parse_axes("grid", self.grid), parse_axes("zip", self.zip)
        spec = Spec(self.config) if self.spec is None else read_spec(self.spec)
        make_axes(spec.grid | grid, spec.zipped | zipped)  # raises on wrong ones
        additions = parse_axes("add", self.add)
        if self.extend or additions:
            require_plan(self.out)
        from mmcl_fast.cli.commands.sweep import SlurmRequest, job_command, sweep_command

        slurm = None
        if self.slurm is not None:
            command = job_command(sys.argv[1:])
            slurm = SlurmRequest(self.slurm, self.sbatch, self.setup, command)
        return sweep_command(
            self.config,
            spec,
            grid=grid,
            zipped=zipped,
            additions=additions,
            metrics=self.metric,
            seeds=self.seeds,
            first_seed=self.first_seed,
            out=self.out,
            policy=policy,
            dry_run=self.dry_run,
            slurm=slurm,
        )


__all__ = ["Sweep"]
