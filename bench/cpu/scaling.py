"""Growth of time and memory with N and D of the loss, and with n, d and m of a training run.

`python -m bench.cpu.scaling [--json FILE] [--quick] [--peers A,B]`; where installed, `python -m
mmcl_fast.bench.cpu.scaling`.

One thread, CPU time. Ours against dense autograd (symmetric InfoNCE, forward and backward) and
against tuned eager PyTorch (a single-modal run of 200 epochs, data given, of which eager is timed
for some and scaled). Every point is compared with float64 before it is timed. Memory is the peak,
inputs or data counted, each in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.sampling import sample

from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import eager_losses
from ..timing.measure import Quantiles, added_mib, interleaved, paired_ratio, single_thread
from ..timing.memory import in_fork
from .loss_cases import CASES, DENSE, OURS, Case, make_inputs, step, wrong
from .train import EAGER, GATE, engine_losses

Row = dict[str, Any]
Calls = dict[str, Callable[[], object]]
NATIVE = "native, 1 run"
LOSS_AXES = {"N": (256, 512, 1024, 2048, 4096), "D": (64, 128, 256, 512, 1024)}
LOSS_BASE = {"N": 1024, "D": 128}
TRAIN_AXES = {
    "n": (50, 100, 200, 400),
    "d": (500, 2000, 8000, 32000),
    "m": (25, 50, 100, 200),
}
EPOCHS_TIMED, ROUNDS = 5, 3
GATE_EPOCHS = 3


def loss_case(axis: str, value: int) -> Case:
    """The symmetric loss at one size."""
    sizes = {**LOSS_BASE, axis: value}
    first = CASES[0]
    others = {DENSE: first.others[DENSE]}
    return Case("symmetric", sizes["N"], sizes["D"], first.inputs, first.ours, others, 4)


def loss_calls(case: Case) -> Calls:
    """Forward and backward of both."""
    inputs = make_inputs(case, case.n)
    variants = {OURS: case.ours, **case.others}
    return {name: partial(step, loss, inputs) for name, loss in variants.items()}


def loss_wrong(case: Case) -> list[str]:
    """Variants with a wrong value or gradient."""
    return wrong(case, {OURS: case.ours, **case.others})


def train_config(axis: str, value: int) -> TrainConfig:
    """A single-modal run; eta follows the sizes, as the speed of learning depends on them."""
    base = TrainConfig(device="cpu", evaluate_every=0)
    cfg = base.replace(**{axis: value})
    return cfg.replace(eta=base.eta * base.d * cfg.n * cfg.m / (cfg.d * base.n * base.m))


def train_calls(cfg: TrainConfig) -> Calls:
    """All epochs of ours, `EPOCHS_TIMED` of eager."""
    data, short = sample(cfg), cfg.replace(epochs=EPOCHS_TIMED)
    return {
        NATIVE: partial(engine_losses, "native", cfg, [data]),
        EAGER: partial(eager_losses, short, data),
    }


def train_wrong(cfg: TrainConfig) -> list[str]:
    """Variants whose first losses differ from float64 autograd."""
    few = cfg.replace(epochs=GATE_EPOCHS)
    exact, data = few.replace(dtype="float64"), sample(few)
    truth = engine_losses("reference", exact, [as_data(exact, data)])[0]
    losses = {NATIVE: engine_losses("native", few, [data])[0], EAGER: eager_losses(few, data)}
    limit = GATE * float(truth[0])
    return [k for k, got in losses.items() if not float((got - truth).abs().max()) <= limit]


def weigh(name: str, make: Callable[[int], Calls], value: int, small: int) -> float:
    """Peak MiB of one variant with its inputs, in a process of its own."""

    def measure() -> list[float]:
        make(small)[name]()  # libraries are loaded
        return [added_mib(lambda: make(value)[name]())]

    return round(in_fork(measure)[0], 2)


@dataclass(frozen=True)
class Kind:
    """One of the two operations: its sizes, and how a size becomes calls and is checked."""

    op: str
    axes: Mapping[str, tuple[int, ...]]
    peer: str
    calls: Callable[[str, int], Calls]
    wrong: Callable[[str, int], list[str]]


KINDS = (
    Kind(
        "loss",
        LOSS_AXES,
        DENSE,
        lambda axis, value: loss_calls(loss_case(axis, value)),
        lambda axis, value: loss_wrong(loss_case(axis, value)),
    ),
    Kind(
        "train",
        TRAIN_AXES,
        EAGER,
        lambda axis, value: train_calls(train_config(axis, value)),
        lambda axis, value: train_wrong(train_config(axis, value)),
    ),
)


def point(kind: Kind, axis: str, value: int, peaks: Mapping[str, float]) -> list[Row]:
    """Rows of one size."""
    calls = {name: call for name, call in kind.calls(axis, value).items() if name in peaks}
    seconds = interleaved(calls, ROUNDS)
    if EAGER in seconds:
        seconds[EAGER] = [s * TrainConfig().epochs / EPOCHS_TIMED for s in seconds[EAGER]]
    rows = []
    for name, samples in seconds.items():
        row: Row = {
            "op": "sizes",
            "variant": name,
            "settings": {"of": kind.op, "axis": axis, "value": value, "rounds": ROUNDS},
            "cpu_ms": Quantiles.of(samples).to_dict(scale=1e3),
            "peak_mib": peaks[name],
        }
        if kind.peer in seconds:
            row[f"times {kind.peer}"] = round(paired_ratio(seconds[kind.peer], samples), 2)
        rows.append(row)
        print(
            f"{axis} = {value:<8}{name:16}{row['cpu_ms']['p50']:10.2f} ms{peaks[name]:10.1f} MiB"
            f"{row.get(f'times {kind.peer}', 1.0):10.2f} × {kind.peer}"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if anything is wrong."""
    args = make_parser("sizes", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    points = [
        (kind, axis, value)
        for kind in KINDS
        for axis, values in kind.axes.items()
        for value in values[: 2 if args.quick else None]
    ]
    peaks = []  # before anything is computed here: see `memory`
    for kind, axis, value in points:
        make, small = partial(kind.calls, axis), kind.axes[axis][0]
        peaks.append(
            {
                name: weigh(name, make, value, small)
                for name in usable(dict.fromkeys(kind.calls(axis, small)), args.peers)
            }
        )
    rows: list[Row] = []
    for (kind, axis, value), weights in zip(points, peaks, strict=True):
        if bad := kind.wrong(axis, value):
            print(f"{kind.op}, {axis} = {value}: wrong: {', '.join(bad)}", file=sys.stderr)
            return 1
        rows += point(kind, axis, value, weights)
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["KINDS", "Kind", "main", "point", "weigh"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
