"""How fast the random stream is, as ratios taken in one run; output into a given buffer.

`python -m bench.cpu.data [--json FILE] [--short | --quick] [--peers A,B]`; where installed, `python
-m mmcl_fast.bench.cpu.data`.

One thread, CPU time, variants interleaved; nothing is timed unless every instruction set gives the
bits of the oracle in NumPy and the Gram matrix is that of its data. Only the two-thread scaling is
wall time, of the quickest repeat of each: other jobs can but slow it down, and where they never
pause it says nothing. It comes first, while the process still has all CPUs.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmcl_fast import _native
from mmcl_fast.config import TrainConfig
from mmcl_fast.data import normal, streaming_gram
from mmcl_fast.data.signal_noise.reduced import reduced_rows
from mmcl_fast.data.stream import stream_numpy
from mmcl_fast.data.stream.generate import normal_runs

from .. import record
from ..arguments import make_parser

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from ..peers import mkl
from ..peers.registry import usable
from ..timing.measure import Quantiles, interleaved, paired_ratio, pin, single_thread

ROUNDS = 15
GRAM_SAMPLES = 100
REDUCED_CALLS = 20  # one is too short to be timed alone
MEMSET, NUMPY, TORCH = "memset", "numpy PCG64", "torch normal_"
STREAMING, REDUCED = "streaming_gram", "reduced data"
RANDOMGEN = ("Romu", "SFC64", "Xoshiro256", "MWC128X", "AESCounter", "Philox")
Floats = npt.NDArray[np.float32]
Variants = Mapping[str, Callable[[], object]]
Row = dict[str, Any]


def ours(out: Floats, target: str, threads: int = 1) -> Callable[[], object]:
    """Ours, with the instruction set forced."""
    return lambda: _native.fill_normal(
        out, start=(0, 0, 0), seed=1, tag=1, epoch=0, scale=1.0, threads=threads, target=target
    )


def fast_targets() -> list[str]:
    """What is worth timing: all but the fallback, unless there is nothing else."""
    return [t for t in _native.targets() if t != "baseline"] or _native.targets()


def best_of_mkl(out: Floats) -> Variants:
    """The fastest of all MKL paths, found on 4M values."""
    return best(mkl.paths, out)


def best_of_randomgen(out: Floats) -> Variants:
    """The fastest of randomgen's bit generators under NumPy's float32 transform."""
    import randomgen

    kinds = {f"randomgen {name}": getattr(randomgen, name) for name in RANDOMGEN}

    def fillers(part: Floats) -> Variants:
        generators = {name: np.random.Generator(kind(1)) for name, kind in kinds.items()}
        return {
            name: partial(g.standard_normal, dtype=np.float32, out=part)
            for name, g in generators.items()
        }

    return best(fillers, out)


def best(fillers: Callable[[Floats], Variants], out: Floats) -> Variants:
    """The fastest of several ways to fill `out`, found on its first 4M values."""
    seconds = interleaved(fillers(out[: 2**22]), 7)
    name = min(seconds, key=lambda k: min(seconds[k]))
    return {name: fillers(out)[name]}


def wrong_data() -> list[str]:
    """What is not bit-equal to the oracle, or is not the Gram matrix of its own data."""
    shape = (1, 3, 5000)
    oracle = stream_numpy.standard_normal(1, "noise", shape, (0, 0, 0), epoch=0)
    wrong = []
    for target in _native.targets():
        out = np.empty(shape, np.float32)
        ours(out, target)()
        if not np.array_equal(out, oracle):
            wrong.append(f"normals of {target}")
    rows = normal(1, shape=(1, 20, 3000))[0].double()
    gram = streaming_gram(1, "noise", 20, 3000).double()
    if not torch.allclose(gram, rows @ rows.T, rtol=0, atol=1e-6 * 3000):
        wrong.append(STREAMING)
    return wrong


def cpu_row(op: str, variant: str, samples: Sequence[float], settings: Mapping[str, Any]) -> Row:
    """What the rows of all operations on one thread have in common."""
    return {
        "op": op,
        "variant": variant,
        "settings": {**settings, "threads": 1, "rounds": len(samples)},
        "cpu_ms": Quantiles.of(samples).to_dict(scale=1e3),
    }


def billions(values: int, row: Mapping[str, Any]) -> float:
    """Values per second in 10^9, of the median."""
    return round(values / float(row["cpu_ms"]["p50"]) / 1e6, 4)


def normals(values: int, rounds: int, peers: Sequence[str] | None) -> list[Row]:
    """All generators on one buffer: billions per second, and how many times faster each is."""
    tensor = torch.zeros(1, 1, values)
    out = tensor.numpy()
    flat = out.reshape(-1)
    numpy_generator = np.random.Generator(np.random.PCG64(1))
    libraries = usable({"MKL": best_of_mkl, "randomgen": best_of_randomgen}, peers)
    fastest_of = {kind: find(flat) for kind, find in libraries.items()}
    variants: Variants = {
        MEMSET: lambda: ctypes.memset(out.ctypes.data, 0, out.nbytes),
        NUMPY: lambda: numpy_generator.standard_normal(dtype=np.float32, out=flat),
        TORCH: lambda: tensor.normal_(),
        **{name: call for each in fastest_of.values() for name, call in each.items()},
        **{target: ours(out, target) for target in fast_targets()},
    }
    seconds = interleaved(usable(variants, peers), rounds)
    compared = {"times_numpy": NUMPY, "times_torch": TORCH}
    compared |= {f"times_{kind.lower()}": next(iter(each)) for kind, each in fastest_of.items()}
    compared = {key: name for key, name in compared.items() if name in seconds}
    rows = []
    for name, samples in seconds.items():
        row = cpu_row("normals", name, samples, {"values": values, "dtype": "float32"})
        row["giga_per_s"] = billions(values, row)
        row |= {k: round(paired_ratio(seconds[peer], samples), 2) for k, peer in compared.items()}
        row["of_memset"] = round(paired_ratio(seconds[MEMSET], samples), 4)
        rows.append(row)
    print(f"\n{values:,} float32 normals, one thread, CPU time")
    print(f"{'':24}{'G/s':>8}" + "".join(f"{k:>14}" for k in (*compared, "of memset")))
    for row in rows:
        times = "".join(f"{row[k]:14.2f}" for k in compared)
        print(f"{row['variant']:24}{row['giga_per_s']:8.3f}{times}{row['of_memset']:14.1%}")
    return rows


def outputs(values: int, rounds: int) -> list[Row]:
    """What dtype and scale cost, on the active target."""
    kinds = {"float32": np.float32, "float64": np.float64, "bfloat16": np.uint16}
    buffers = {n: np.zeros((1, 1, values), k) for n, k in kinds.items()}
    words = np.zeros((1, 1, values), np.uint32)
    where: dict[str, Any] = {"start": (0, 0, 0), "seed": 1, "tag": 1, "epoch": 0, "threads": 1}
    variants: dict[str, Callable[[], object]] = {
        f"{n}, scale {scale}": partial(_native.fill_normal, buffer, scale=scale, **where)
        for n, buffer in buffers.items()
        for scale in (1.0, 0.5)
    }
    variants["words"] = partial(_native.fill_words, words, **where)
    target = _native.active_target()
    print(f"\n{values:,} values on {target}")
    rows = []
    for name, samples in interleaved(variants, rounds).items():
        row = cpu_row("outputs", name, samples, {"values": values, "target": target})
        row["giga_per_s"] = billions(values, row)
        print(f"{name:24}{row['giga_per_s']:8.3f} G/s")
        rows.append(row)
    return rows


def scaling(values: int, rounds: int) -> list[Row]:
    """Wall time of one thread over that of two, the quickest of each.

    Where other jobs hold a core, the CPU time that both threads take together still shows what
    they cost each other: `gain_bound` is what that time would allow on two free cores.
    """
    out = torch.zeros(1, 1, values).numpy()
    rows = []
    print(f"\nTwo threads against one, {values:,} float32, quickest wall time")
    for target in fast_targets():
        variants = {k: ours(out, target, threads=k) for k in (1, 2)}
        named = {str(k): call for k, call in variants.items()}
        wall = interleaved(named, 4 * rounds, clock=time.perf_counter)
        work = interleaved(named, rounds)
        gain = min(wall["1"]) / min(wall["2"])
        bound = 2 * paired_ratio(work["1"], work["2"])
        print(f"{target:24}{gain:8.2f}x, {bound:.2f}x by the CPU time of both")
        settings = {"values": values, "dtype": "float32", "threads": 2, "rounds": 4 * rounds}
        rows.append(
            {
                "op": "scaling",
                "variant": target,
                "settings": settings,
                "wall_ms": {f"threads_{k}": round(min(v) * 1e3, 4) for k, v in wall.items()},
                "gain": round(gain, 3),
                "gain_bound": round(bound, 3),
            }
        )
    return rows


def gram(dims: int, rounds: int) -> list[Row]:
    """Gram matrix of noise: bare products of data that is ready, streamed, and of reduced data."""
    x = normal(1, shape=(1, GRAM_SAMPLES, dims))[0]
    ready, transposed = x.numpy(), x.numpy().T
    result = torch.empty(GRAM_SAMPLES, GRAM_SAMPLES)
    cfg = TrainConfig(n=GRAM_SAMPLES, m=1, d=dims, data="reduced")

    def reduced() -> None:
        for _ in range(REDUCED_CALLS):
            rows = reduced_rows([cfg], "a", normal_runs)[0][0]
            rows @ rows.T

    bare: Variants = {
        "torch mm, ready data": lambda: torch.mm(x, x.T, out=result),
        "numpy syrk, ready data": lambda: ready @ transposed,
    }
    streaming = {STREAMING: lambda: streaming_gram(1, "noise", GRAM_SAMPLES, dims)}
    seconds = interleaved({**bare, **streaming, REDUCED: reduced}, rounds)
    seconds[REDUCED] = [s / REDUCED_CALLS for s in seconds[REDUCED]]
    best = min(bare, key=lambda name: Quantiles.of(seconds[name]).p50)
    print(f"\nGram matrix, n = {GRAM_SAMPLES}, d = {dims:,}, one thread, CPU time")
    print(f"{'':24}{'ms':>10}{'of best bare':>14}{'x streaming':>14}")
    rows = []
    for name, samples in seconds.items():
        row = cpu_row("gram", name, samples, {"n": GRAM_SAMPLES, "d": dims})
        row["settings"]["calls"] = REDUCED_CALLS if name == REDUCED else 1
        row["of_best_bare"] = round(paired_ratio(samples, seconds[best]), 6)
        row["times bare product"] = round(paired_ratio(seconds[best], samples), 2)
        row["times_streaming"] = round(paired_ratio(seconds[STREAMING], samples), 2)
        rows.append(row)
        columns = f"{row['of_best_bare']:14.4f}{row['times_streaming']:14.2f}"
        print(f"{name:24}{row['cpu_ms']['p50']:10.3f}{columns}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; confines the process to one CPU on its way; 1 if data are wrong."""
    args = make_parser("data", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    if bad := wrong_data():
        print(f"data: wrong: {', '.join(bad)}", file=sys.stderr)
        return 1
    small = args.quick
    rounds = 3 if small or args.short else ROUNDS
    rows = scaling(2**22 if small else 2**25, rounds)
    pin()
    for values in (2**18, 2**20) if small else (2**20, 2**26):
        rows += normals(values, max(3, rounds // 3) if values > 2**24 else rounds, args.peers)
    rows += outputs(2**20, rounds)
    rows += gram(10**5 if small else 10**6, rounds)
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["gram", "main", "normals", "outputs", "scaling", "wrong_data"]

if __name__ == "__main__":
    single_thread(pinned=False)
    sys.exit(main())
