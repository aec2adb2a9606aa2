"""The losses against dense autograd, torch's own chunked one and torch.compile: time and memory.

`python -m bench.loss [--json FILE] [--quick]`; where installed, `python -m mmcl_fast.bench.loss`.

Forward and backward, float32, one thread, CPU time, variants interleaved; glibc's allocator as it
is. Values and gradients of all variants are compared with float64 first, and nothing is timed if
one is wrong. Memory is that of a fresh process, above its inputs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mmcl_fast import losses
from mmcl_fast.torch_impl.products import product

from . import loss_peers as peers
from . import record
from .loss_peers import Loss, T
from .measure import Quantiles, added_mib, interleaved, paired_ratio, single_thread

OURS, DENSE, LINEAR, COMPILED = "mmcl_fast", "dense", "linear_cross_entropy", "dense, compiled"
ROUNDS, GATE_N = 15, 512
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One loss at one size; `units` are products of 2 N N D flop that it takes at least.

    `inputs` names what of `make_inputs` the losses get, in their order.
    """

    name: str
    n: int
    d: int
    inputs: str
    ours: Loss
    others: Mapping[str, Loss]
    units: float
    memory_only: bool = False


def _ours_clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return losses.info_nce(x, y, temperature=1 / scale, symmetric=True)


def _ours_one_way(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return losses.info_nce(x, y, temperature=1 / scale)


def _ours_paper(x: Tensor, y: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    return losses.info_nce(
        x,
        y,
        positive_key=positive,
        labels=same[0].int(),
        negatives="other_label",
        stop_gradient="key",
        temperature=T,
    )


def _ours_both(x: Tensor, y: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    return 2 * losses.info_nce(
        x,
        y,
        symmetric=True,
        labels=same[0].int(),
        negatives="other_label",
        stop_gradient="key",
        temperature=T,
    )


def _ours_siglip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return losses.siglip(x, y, temperature=1 / scale, bias=bias)


def _same(loss: Loss) -> Loss:
    """Query and key are one tensor."""
    return lambda x, positive, same: loss(x, x, positive, same)


_CLIP = {
    DENSE: peers.dense_clip,
    LINEAR: peers.linear_clip,
    COMPILED: peers.compiled(peers.dense_clip),
}
_ONE_WAY = {
    DENSE: peers.dense_one_way,
    LINEAR: peers.linear_one_way,
    COMPILED: peers.compiled(peers.dense_one_way),
}
CASES = (
    Case("symmetric", 2048, 256, "xys", _ours_clip, _CLIP, 4),
    Case("symmetric", 128, 128, "xys", _ours_clip, _CLIP, 4),
    Case("symmetric", 8192, 128, "xys", _ours_clip, _CLIP, 4),
    Case("symmetric", 32768, 128, "xys", _ours_clip, {}, 4, memory_only=True),
    Case("one way", 2048, 256, "xys", _ours_one_way, _ONE_WAY, 3),
    Case(
        "paper (6), another key", 2048, 256, "xypm", _ours_paper,
        {DENSE: peers.masked_single, COMPILED: peers.compiled(peers.masked_single)}, 1,
    ),
    Case(
        "paper (6), the query as key", 2048, 256, "xpm", _same(_ours_paper),
        {DENSE: _same(peers.masked_single), COMPILED: _same(peers.compiled(peers.masked_single))},
        3 / 4,
    ),
    Case(
        "paper (9)", 2048, 256, "xypm", _ours_both,
        {DENSE: peers.masked_both, COMPILED: peers.compiled(peers.masked_both)}, 3 / 2,
    ),
    Case(
        "NT-Xent", 1024, 256, "xy", partial(losses.nt_xent, temperature=T),
        {DENSE: peers.dense_nt_xent, COMPILED: peers.compiled(peers.dense_nt_xent)}, 8,
    ),
    Case(
        "SigLIP", 2048, 256, "xysb", _ours_siglip,
        {DENSE: peers.dense_siglip, COMPILED: peers.compiled(peers.dense_siglip)}, 3,
    ),
)  # fmt: skip


def make_inputs(case: Case, n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Unit rows, a scale, a bias, a positive and the mask of equal labels, as the case needs."""
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(3, n, case.d, generator=g), dim=2).to(dtype)
    labels = torch.randint(0, 2, (n,), generator=g)
    labels[:2] = torch.tensor([0, 1])
    made = {
        "x": rows[0].clone().requires_grad_(),
        "y": rows[1].clone().requires_grad_(),
        "p": rows[2],
        "s": torch.tensor(1 / T, dtype=dtype, requires_grad=True),
        "b": torch.tensor(-10.0, dtype=dtype, requires_grad=True),
    }
    if "m" in case.inputs:
        made["m"] = labels[:, None] == labels
    return [made[letter] for letter in case.inputs]


def step(loss: Loss, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Forward and backward: the value and all gradients."""
    wanted = [x for x in inputs if x.requires_grad]
    value = loss(*inputs)
    return [
        value.detach(),
        *torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True),
    ]


def wrong(case: Case) -> list[str]:
    """Variants whose value or gradients are off by more than float32 explains."""
    n = min(case.n, GATE_N)
    exact = step(next(iter(case.others.values())), make_inputs(case, n, torch.float64))
    found = []
    for name, loss in {OURS: case.ours, **case.others}.items():
        got = step(loss, make_inputs(case, n))
        far = [
            float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30))
            for a, b in zip(got, exact, strict=True)
            if float(b.abs().max()) > 0
        ]
        if not all(x < 2e-5 for x in far):
            found.append(f"{name}: {max(far):.1e}")
    return found


def saved_mib(loss: Loss, inputs: Sequence[Tensor]) -> float:
    """What autograd keeps between forward and backward, inputs not counted."""
    known = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        value = loss(*inputs)
    total = sum(kept.values())
    value.backward()
    return total / 2**20


def peak_mib(loss: Loss, case: Case) -> float:
    """Largest resident memory of this process above what it had with its inputs (Linux)."""
    step(loss, make_inputs(case, 64))  # libraries are loaded, code is compiled
    inputs = make_inputs(case, case.n)
    return added_mib(lambda: step(loss, inputs))


def memory(index: int, variant: str) -> Row:
    """Peak and saved memory of one variant, measured in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--memory", str(index), variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, saved = map(float, done.stdout.split())
    return {"peak_mib": round(peak, 1), "saved_mib": round(saved, 1)}


def product_rate(n: int, d: int) -> float:
    """GFLOP/s of the scores' product in the losses' own choice of library, and in torch's."""
    x, y = torch.randn(512, d), torch.randn(n, d)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: product(x, y),
        "torch": lambda: torch.mm(x, y.T),
    }
    seconds = interleaved(calls, ROUNDS)
    return max(2e-9 * 512 * n * d / Quantiles.of(s).p50 for s in seconds.values())


def run_case(index: int, rounds: int) -> list[Row]:
    """Check, time and weigh one case."""
    case = CASES[index]
    variants = {OURS: case.ours, **case.others}
    seconds: dict[str, list[float]] = {}
    if not case.memory_only:
        inputs = make_inputs(case, case.n)
        calls = {name: partial(step, loss, inputs) for name, loss in variants.items()}
        seconds = interleaved(calls, rounds)
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
            **memory(index, name),
        }
        row["settings"] |= {"threads": 1, "rounds": rounds, "gate_n": min(case.n, GATE_N)}
        if seconds:
            quantiles = Quantiles.of(seconds[name])
            row["cpu_ms"] = quantiles.to_dict(scale=1e3)
            row["of_product_rate"] = round(flop / quantiles.p50 / rate / 1e9, 3)
            for peer in case.others:
                row[f"times {peer}"] = round(paired_ratio(seconds[peer], seconds[name]), 2)
        rows.append(row)
    show(case, rows)
    return rows


def show(case: Case, rows: Sequence[Row]) -> None:
    """Print one case."""
    print(
        f"\n{case.name}, N = {case.n}, D = {case.d}; products {rows[0]['product_gflop_s']} GFLOP/s"
    )
    print(
        f"{'':24}{'ms':>9}" + "".join(f"{'× ' + p:>24}" for p in case.others) + "   peak  saved MiB"
    )
    for row in rows:
        ms = f"{row['cpu_ms']['p50']:9.1f}" if "cpu_ms" in row else f"{'-':>9}"
        times = "".join(f"{row.get(f'times {p}', 0.0):24.2f}" for p in case.others)
        print(f"{row['variant']:24}{ms}{times}{row['peak_mib']:7.0f}{row['saved_mib']:7.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any variant is wrong."""
    parser = argparse.ArgumentParser(prog="bench.loss", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    parser.add_argument("--quick", action="store_true", help="3 rounds, the first case only")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.memory:
        case = CASES[int(args.memory[0])]
        loss = {OURS: case.ours, **case.others}[args.memory[1]]
        peak = peak_mib(loss, case)
        print(peak, saved_mib(loss, make_inputs(case, case.n)))
        return 0
    before = record.environment()
    chosen = range(1 if args.quick else len(CASES))
    for index in chosen:
        if CASES[index].others and (bad := wrong(CASES[index])):
            print(f"{CASES[index].name}: wrong: {'; '.join(bad)}", file=sys.stderr)
            return 1
    rows = [row for index in chosen for row in run_case(index, 3 if args.quick else ROUNDS)]
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["CASES", "Case", "main", "make_inputs", "run_case", "step", "wrong"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
