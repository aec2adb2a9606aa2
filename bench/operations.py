"""The table of operations: name, module, peers and correctness check of each benchmark.

A module's `main` takes --json FILE, --short and --quick, appends one row a variant, and returns 1
without a timing if a value is wrong. A row has `op`, `variant`, `settings`, a time with quantiles
and, for each peer, `times PEER` or `times_peer`: how often faster the variant is. A new operation
is a module like that and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mmcl_fast.config import TrainConfig

Row = Mapping[str, Any]
TIMES = ("cpu_ms", "cpu_ms_per_run", "wall_ms", "wall_ms_per_run")


@dataclass(frozen=True)
class LeastWork:
    """Lower bound on the work of an operation: floating-point operations, bytes read or written."""

    flop: float
    least_bytes: float


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: Name on the command line.
        module: In this package.
        inputs: Inputs, in words.
        peers: Names in `peers.registry.PEERS`.
        check: Correctness check that precedes any timing.
        work: Least work of a row; None where unknown.
    """

    name: str
    module: str
    inputs: str
    peers: tuple[str, ...]
    check: str
    work: Callable[[Row], LeastWork | None]

    def why_not(self) -> str | None:
        """Why it cannot be measured, or None."""
        spec = find_spec(f"{__package__}.{self.module}")
        path = self.module.replace(".", "/")
        return None if spec else f"bench/{path}.py: not in this version"


def loss_work(row: Row) -> LeastWork | None:
    """Products of `bench.cpu.loss`; two feature matrices read and two gradients written."""
    s = row["settings"]
    return LeastWork(row["flop"], 4 * 4 * s["n"] * s["d"])


def train_work(row: Row) -> LeastWork | None:
    """A run in coefficient space, per run: its products; inner products read once.

    Each epoch moves the pre-activations, 2 m (n + 1) views flop, and makes one pass of the loss
    over pairs of other label, two products of n^2 / 2 scores with 2 m features. The native engine
    skips the part of inactive neurons, whose change is 0, and so can pass the ceiling.
    """
    s = row["settings"]
    cfg = TrainConfig(n=s["n"], d=s["d"], m=s["m"], modality=s.get("modality", "single"))
    sides, views = (2, cfg.n + 1) if cfg.is_multi else (1, 2 * cfg.n + 1)
    epoch = 2 * cfg.m * (cfg.n + 1) * views + 2 * 2 * (cfg.n**2 / 2) * 2 * cfg.m
    return LeastWork(s["epochs"] * sides * epoch, 4 * sides * views * (cfg.n + 1))


def data_work(row: Row) -> LeastWork | None:
    """Every value is written once; what a normal costs in flop depends on the method."""
    values = row["settings"].get("values")
    return LeastWork(0.0, 4.0 * values) if row["op"] == "normals" and values else None


def primal_work(row: Row) -> LeastWork | None:
    """Products of `bench.cpu.primal`; data read once, weights read and written."""
    s = row["settings"]
    sides = 2 if s["modality"] == "multi" else 1
    return LeastWork(row["flop"], 4.0 * sides * s["d"] * (s["n"] + 2 * s["m"]))


def unknown_work(row: Row) -> LeastWork | None:
    """No least work is stated."""
    del row
    return None


OPERATIONS = (
    Operation(
        name="loss",
        module="cpu.loss",
        inputs="unit rows [N, D] of two views, float32; a scale that learns, or labels",
        peers=(
            "eager",
            "compile",
            "linear_cross_entropy",
            "open_clip",
            "lightly",
            "pytorch-metric-learning",
            "cut-cross-entropy",
            "inf-cl",
            "memeff",
            "siglip-kernel",
        ),
        check="value and every gradient against float64, to 2e-5 of the largest entry",
        work=loss_work,
    ),
    Operation(
        name="train",
        module="cpu.train",
        inputs="Figure 1's data and weights, drawn; n = 100, d = 2000, m = 50, 200 epochs",
        peers=("eager", "jax", "vmap"),
        check="the loss of every epoch against float64 autograd, to 1e-4 of the first",
        work=train_work,
    ),
    Operation(
        name="train",
        module="cpu.end_to_end",
        inputs="a config; data are drawn in the time, at d = 2000 and d = 200,000",
        peers=("eager",),
        check="the first losses against float64 autograd, to 1e-4 of the first",
        work=unknown_work,
    ),
    Operation(
        name="train",
        module="cpu.many_runs",
        inputs="64 configs of reduced data, evaluated every 20 epochs, in one call of train_many",
        peers=("eager",),
        check="every curve against the same run alone, bit for bit",
        work=unknown_work,
    ),
    Operation(
        name="data",
        module="cpu.data",
        inputs="a buffer of 1M or 64M float32; 100 rows of 1M coordinates",
        peers=("eager", "numpy", "mkl", "randomgen"),
        check="bits of every instruction set against the NumPy oracle; Gram in float64",
        work=data_work,
    ),
    Operation(
        name="sweep",
        module="cpu.sweep",
        inputs="a plan of runs at the paper's size, reduced data, evaluated every 20 epochs",
        peers=("eager",),
        check="every curve against the same run alone, bit for bit",
        work=unknown_work,
    ),
    Operation(
        name="variants",
        module="cpu.variants",
        inputs="data and weights of each option of a model variant, at Figure 1's size",
        peers=("eager",),
        check="the loss of every epoch against float64 autograd, to 1e-4 of the first",
        work=unknown_work,
    ),
    Operation(
        name="variants",
        module="cpu.gram_variants",
        inputs="the same of what only the engine gram trains: minibatches, fresh label noise",
        peers=("eager",),
        check="the loss of every epoch against float64 autograd, to 1e-4 of the first",
        work=unknown_work,
    ),
    Operation(
        name="primal",
        module="cpu.primal",
        inputs="data and weights, n = d = 2048, m = 512; one full-batch step on the weights",
        peers=("eager", "compile"),
        check="losses of three steps against float64 autograd, to 1e-4 of the first",
        work=primal_work,
    ),
    Operation(
        name="sizes",
        module="cpu.scaling",
        inputs="the symmetric loss over N and D, a training run over n, d and m",
        peers=("eager",),
        check="as for loss and train, at every size",
        work=unknown_work,
    ),
    Operation(
        name="startup",
        module="cpu.startup",
        inputs="nothing: fresh processes",
        peers=("eager",),
        check="every command succeeds",
        work=unknown_work,
    ),
    Operation(
        name="variants",
        module="cpu.variant_sweeps",
        inputs="a plan of runs of each option of a model variant, evaluated every 20 epochs",
        peers=(),
        check="every curve against the same run alone, bit for bit",
        work=unknown_work,
    ),
)
NAMES = tuple(dict.fromkeys(operation.name for operation in OPERATIONS))


def median_ms(row: Row) -> float | None:
    """The median time of a row in milliseconds, or None where it has none."""
    quantiles = next((row[key] for key in TIMES if key in row), None)
    return (
        None
        if not isinstance(quantiles, Mapping) or "p50" not in quantiles
        else float(quantiles["p50"])
    )


def judged(row: Row, operation: Operation, ceiling: Row) -> dict[str, Any]:
    """A row with its least work, its rate, and the share of what this machine could do.

    The share is the time that the least work would take at the machine's measured rate of matrix
    products, or of memory where that is longer, over the time that was taken.
    """
    work, ms = operation.work(row), median_ms(row)
    judged_row = dict(row)
    if work is None or not ms:
        return judged_row
    least_s = max(
        work.flop / (ceiling["gflop_s"] * 1e9), work.least_bytes / (ceiling["gbyte_s"] * 1e9)
    )
    judged_row |= {"flop": work.flop, "least_bytes": work.least_bytes}
    judged_row["gflop_s"] = round(work.flop / ms / 1e6, 3)
    judged_row["of_ceiling"] = round(1e3 * least_s / ms, 4)
    return judged_row


__all__ = ["NAMES", "OPERATIONS", "LeastWork", "Operation", "judged", "median_ms"]
