"""The losses against dense autograd, torch's own chunked one and other libraries: time and memory.

`python -m bench.cpu.loss [--json FILE] [--short | --quick] [--peers A,B]`; where installed, `python
-m mmcl_fast.bench.cpu.loss`.

Forward and backward, float32, one thread, CPU time, variants interleaved; glibc's allocator as it
is. Values and gradients of all variants are compared with float64 first, and nothing is timed if
one is wrong. Memory is that of a fresh process, above its inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mmcl_fast.losses.torch_backend.matmul import product

from .. import record
from ..arguments import make_parser
from ..peers.losses import Loss
from ..peers.registry import usable
from ..timing.measure import Quantiles, added_mib, interleaved, paired_ratio, single_thread
from ..timing.memory import in_fork, saved_mib
from .loss_cases import (
    CASES,
    COMPILED,
    CUT,
    GATE_N,
    LINEAR,
    OPEN_CLIP,
    OURS,
    Case,
    make_inputs,
    step,
    wrong,
)

ROUNDS = 15
SLOW_TO_START = (COMPILED, CUT)  # seconds of compilation for every case: a short run has them once
LARGE = 4096  # dense forms take seconds there; a short run has one of them, three times
Row = dict[str, Any]
Chosen = tuple[Case, dict[str, Loss], int]


def choose(*, short: bool, quick: bool, peers: Sequence[str] | None) -> list[Chosen]:
    """Cases with the variants that can run here, and their rounds."""
    cases = [case for case in CASES if case.short] if short else CASES[: 1 if quick else None]
    chosen = []
    for case in cases:
        variants = usable({OURS: case.ours, **case.others}, peers)
        if short and case is not CASES[0]:
            left_out = SLOW_TO_START if case.n <= LARGE else (*SLOW_TO_START, LINEAR, OPEN_CLIP)
            variants = {name: v for name, v in variants.items() if name not in left_out}
        rounds = 3 if quick or (short and case.n > LARGE) else 7 if short else ROUNDS
        chosen.append((case, variants, rounds))
    return chosen


def product_rate(n: int, d: int) -> float:
    """GFLOP/s of the scores' product in the losses' own choice of library, and in torch's."""
    x, y = torch.randn(512, d), torch.randn(n, d)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: product(x, y),
        "torch": lambda: torch.mm(x, y.T),
    }
    seconds = interleaved(calls, 7)
    return max(2e-9 * 512 * n * d / Quantiles.of(s).p50 for s in seconds.values())


def memory(case: Case, loss: Loss) -> dict[str, float]:
    """Peak of a step above its inputs and what autograd keeps, in MiB, in a process of its own."""

    def measure() -> list[float]:
        for n in (64, 96):  # libraries are loaded; the second size is compiled for any
            step(loss, make_inputs(case, n))
        inputs = make_inputs(case, case.n)
        peak = added_mib(lambda: step(loss, inputs))
        return [peak, saved_mib(loss, inputs)]

    peak, saved = in_fork(measure)
    return {"peak_mib": round(peak, 1), "saved_mib": round(saved, 1)}


def run_case(chosen: Chosen, weights: Mapping[str, dict[str, float]]) -> list[Row]:
    """Time one case.

    Args:
        chosen: From `choose`.
        weights: From `memory`, by variant.
    """
    case, variants, rounds = chosen
    inputs = make_inputs(case, case.n)
    calls = {name: partial(step, loss, inputs) for name, loss in variants.items()}
    seconds = {} if case.memory_only else interleaved(calls, rounds)
    flop = case.units * 2 * case.n**2 * case.d
    rate = product_rate(case.n, case.d)
    rows = []
    for name in variants:
        row: Row = {
            "op": "loss",
            "variant": name,
            "settings": {"loss": case.name, "n": case.n, "d": case.d, "dtype": "float32"},
            "flop": flop,
            "product_gflop_s": round(rate, 1),
            **weights[name],
        }
        row["settings"] |= {"threads": 1, "rounds": rounds, "gate_n": min(case.n, GATE_N)}
        if seconds:
            quantiles = Quantiles.of(seconds[name])
            row["cpu_ms"] = quantiles.to_dict(scale=1e3)
            row["of_product_rate"] = round(flop / quantiles.p50 / rate / 1e9, 3)
            for peer in seconds:
                if peer != OURS:
                    row[f"times {peer}"] = round(paired_ratio(seconds[peer], seconds[name]), 2)
        rows.append(row)
    show(case, rows)
    return rows


def show(case: Case, rows: Sequence[Row]) -> None:
    """Print one case."""
    print(
        f"\n{case.name}, N = {case.n}, D = {case.d}; products {rows[0]['product_gflop_s']} GFLOP/s"
    )
    others = [row["variant"] for row in rows if row["variant"] != OURS]
    print(f"{'':24}{'ms':>9}" + "".join(f"{'× ' + p:>24}" for p in others) + "   peak  saved MiB")
    for row in rows:
        ms = f"{row['cpu_ms']['p50']:9.1f}" if "cpu_ms" in row else f"{'-':>9}"
        times = "".join(f"{row.get(f'times {p}', 0.0):24.2f}" for p in others)
        print(f"{row['variant']:24}{ms}{times}{row['peak_mib']:7.0f}{row['saved_mib']:7.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any variant is wrong."""
    args = make_parser("loss", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    chosen = choose(short=args.short, quick=args.quick, peers=args.peers)
    weights = [{name: memory(case, loss) for name, loss in vs.items()} for case, vs, _ in chosen]
    for case, variants, _ in chosen:
        if bad := wrong(case, variants):
            print(f"{case.name}, N = {case.n}: wrong: {'; '.join(bad)}", file=sys.stderr)
            return 1
    pairs = zip(chosen, weights, strict=True)
    rows = [row for one, weighed in pairs for row in run_case(one, weighed)]
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["choose", "main", "run_case"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
