"""Chosen implementations against their alternatives: the measurements behind constants.

`python -m bench.cpu.choices [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.cpu.choices`. Comments beside the constants name this command instead of a number,
since the number is another on every machine.

One thread, CPU time, variants interleaved. The first variant of a choice is what the code does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.engines import primal
from mmcl_fast.experiments.table1.encoders import ConvEncoder
from mmcl_fast.losses import info_nce
from mmcl_fast.losses.torch_backend import dense, matmul, score_blocks
from mmcl_fast.training import linear_probe, linear_probe_newton

from .. import record
from ..arguments import make_parser
from ..timing.measure import Quantiles, interleaved, paired_ratio, single_thread
from .train import engine_losses

ROUNDS, QUICK_ROUNDS = 9, 1
EPOCHS = 100
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Choice:
    """A decision.

    Attributes:
        name: What is decided.
        where: File that decided it.
        make: Variants on inputs of their own; the first is what the code does.
    """

    name: str
    where: str
    make: Callable[[], Calls]


@contextmanager
def changed(module: object, **values: object) -> Iterator[None]:
    """Constants of a module, for a while."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def with_constant(module: object, name: str, value: object, call: Callable[[], object]) -> object:
    """A call under another constant."""
    with changed(module, **{name: value}):
        return call()


def by_constant(
    module: object, name: str, values: Mapping[str, object], call: Callable[[], object]
) -> Calls:
    """The same call under each value of a constant."""
    return {
        title: partial(with_constant, module, name, value, call) for title, value in values.items()
    }


def randn(*shape: int) -> Tensor:
    """Normals of a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def onednn(x: Tensor, w: Tensor) -> Tensor:
    """The product of oneDNN, whatever the sizes."""
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


def mkl(x: Tensor, w: Tensor) -> Tensor:
    """The product of torch itself."""
    return torch.mm(x, w.T)


def libraries(n: int, m: int, k: int) -> Calls:
    """The library chosen at a size, and the other one where there are two."""
    x, w = randn(n, k), randn(m, k)
    both: Calls = {"oneDNN": partial(onednn, x, w), "torch's own": partial(mkl, x, w)}
    if not matmul.has_onednn():
        return {"torch's own": both["torch's own"]}
    return both if matmul._suits_onednn(x, w) else dict(reversed(both.items()))


def strided_factor() -> Calls:
    """A factor whose rows and columns both have gaps."""
    x, w = randn(128, 128), randn(512, 256)[:, ::2]
    calls: Calls = {"copied first": partial(matmul.product, x, w)}
    return calls | ({"oneDNN as it is": partial(onednn, x, w)} if matmul.has_onednn() else {})


def subnormal_factor() -> Calls:
    """A product of powers that were cut, and of powers that were not."""
    w, ordinary = randn(256, 1024), randn(512, 1024).abs()
    small = torch.full((512, 1024), 1e-40)
    return {
        "ordinary": partial(matmul.product, ordinary, w),
        "subnormal": partial(matmul.product, small, w),
    }


def in_rows(rows: int) -> Callable[[], object]:
    """512 rows of a product, some at a time."""
    x, w = randn(512, 256), randn(2048, 256)
    return lambda: [matmul.product(part, w) for part in x.split(rows)]


def loss_step() -> object:
    """Forward and backward of a symmetric loss."""
    u, v = (torch.nn.functional.normalize(randn(2048, 256), dim=1).requires_grad_() for _ in "uv")
    return info_nce(u, v, temperature=0.1, symmetric=True).backward()


def masks() -> Calls:
    """Scores of one's own label hidden."""
    block, codes = randn(512, 2048), (torch.arange(2048) % 2).float()
    low, same = score_blocks.masked(block.dtype), torch.empty(512, 2048)
    row_codes = codes[:512, None]
    return {
        "comparison and sum": lambda: block.add_(torch.eq(row_codes, codes, out=same), alpha=low),
        "boolean mask": lambda: block.masked_fill_(row_codes == codes, low),
    }


def heads(problems: int, n: int, p: int) -> Calls:
    """The head by the native core and by torch."""
    features, labels = randn(problems, n, p), (torch.arange(n) % 2 * 2 - 1).float()
    fit = partial(linear_probe.fit_logistic, features, labels)
    limits = {"native": n * p, "torch": 0}
    if n * p > linear_probe.NATIVE_ELEMENTS:
        limits = dict(reversed(limits.items()))
    return by_constant(linear_probe, "NATIVE_ELEMENTS", limits, fit)


def chunks() -> Calls:
    """Chunks of Newton's method in torch."""
    features, labels = randn(1000, 100, 50), (torch.arange(100) % 2 * 2 - 1).float()
    fit = partial(linear_probe_newton.fit_chunks, features, labels.expand(1000, -1), 0.01)
    sizes = {f"{mib:g} MiB": int(mib * 2**20) for mib in (2, 0.125, 0.5, 8, 32)}
    return by_constant(linear_probe_newton, "CHUNK_BYTES", sizes, fit)


def engines(n: int) -> Calls:
    """Half a run of Figure 1's settings, but for n, with its inner products."""
    cfg = TrainConfig(n=n, epochs=EPOCHS, evaluate_every=0, device="cpu")
    data = [sample(cfg)]
    return {name: partial(engine_losses, name, cfg, data) for name in ("native", "gram")}


def halves(n: int) -> Calls:
    """Ten primal epochs by label halves, and with one masked block."""
    cfg = TrainConfig(n=n, epochs=10, evaluate_every=0, device="cpu")
    step = partial(engine_losses, "primal", cfg, [sample(cfg)])
    ways = {"halves": 0, "one block": n + 1}
    order = ways if n >= primal._HALVES_FROM else dict(reversed(ways.items()))
    return by_constant(primal, "_HALVES_FROM", order, step)


def layouts() -> Calls:
    """A training step of Table 1's CNN in both memory layouts of its weights."""
    images = torch.rand(256, 3, 28, 28)

    def step(encoder: torch.nn.Module) -> None:
        encoder(images).square().mean().backward()

    by_layout = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
    encoders = {k: ConvEncoder(28).to(memory_format=v) for k, v in by_layout.items()}
    return {name: partial(step, encoder) for name, encoder in encoders.items()}


def exponentials() -> Calls:
    """Terms of a softmax, most of which underflow."""
    terms = randn(512, 2048).mul_(30).sub_(100)
    return {"exp2": lambda: torch.exp2(terms), "exp": lambda: torch.exp(terms)}


def gathers() -> Calls:
    """Rows in another order."""
    x, order = randn(2048, 256), torch.randperm(2048)
    return {"index_select": lambda: x.index_select(0, order), "brackets": lambda: x[order]}


def finiteness() -> Calls:
    """Whether all values of an array are finite."""
    x = randn(1000, 2000)
    return {"sum": lambda: x.sum().isfinite(), "each": lambda: x.isfinite().all()}


def stored(n: int) -> Calls:
    """A step of a small symmetric loss with its scores stored, and by blocks."""
    u, v = (torch.nn.functional.normalize(randn(n, 128), dim=1).requires_grad_() for _ in "uv")

    def one() -> None:
        info_nce(u, v, symmetric=True).backward()

    limits = {"stored": n * n, "blocks": 0}
    order = limits if n * n <= dense.LIMIT else dict(reversed(limits.items()))
    return by_constant(dense, "LIMIT", order, one)


def block_sizes() -> Calls:
    """The loss in larger and smaller blocks."""
    sizes = {f"2^{k}": 2**k for k in (20, 16, 18, 21, 22)}
    return by_constant(score_blocks, "_BLOCK", sizes, loss_step)


BACKEND = "mmcl_fast/losses/torch_backend"
PRODUCTS, SCORES = f"{BACKEND}/matmul.py", f"{BACKEND}/score_blocks.py"
CHOICES = (
    Choice("product, 512 x 2048, 256 features", PRODUCTS, partial(libraries, 512, 2048, 256)),
    Choice("product, 96 x 96, 96 features", PRODUCTS, partial(libraries, 96, 96, 96)),
    Choice("product, 512 x 2048, 16 features", PRODUCTS, partial(libraries, 512, 2048, 16)),
    Choice("factor with gaps", PRODUCTS, strided_factor),
    Choice("factors", f"{BACKEND}/softmax_passes.py", subnormal_factor),
    Choice("exponential", f"{BACKEND}/softmax_passes.py", exponentials),
    *(
        Choice(f"scores of a small loss, N = {n}", f"{BACKEND}/dense.py", partial(stored, n))
        for n in (64, 256, 512, 1024)
    ),
    Choice("rows at a time", SCORES, lambda: {str(k): in_rows(k) for k in (128, 64, 256, 512)}),
    Choice("scores at a time", SCORES, block_sizes),
    Choice("mask of labels", SCORES, masks),
    Choice("rows in another order", SCORES, gathers),
    Choice(
        "head, 16 of 100 x 50", "mmcl_fast/training/linear_probe.py", partial(heads, 16, 100, 50)
    ),
    Choice(
        "head, 10,000 x 50", "mmcl_fast/training/linear_probe.py", partial(heads, 1, 10_000, 50)
    ),
    Choice("head, 600 x 1200", "mmcl_fast/training/linear_probe.py", partial(heads, 1, 600, 1200)),
    Choice(
        "head, 2000 x 1000",
        "mmcl_fast/training/linear_probe_newton.py",
        partial(heads, 1, 2000, 1000),
    ),
    Choice("Newton's chunks", "mmcl_fast/training/linear_probe_newton.py", chunks),
    Choice("engine, n = 512", "mmcl_fast/engines/native.py", partial(engines, 512)),
    Choice("engine, n = 2048", "mmcl_fast/engines/native.py", partial(engines, 2048)),
    *(
        Choice(f"primal, n = {n}", "mmcl_fast/engines/primal.py", partial(halves, n))
        for n in (100, 200, 400)
    ),
    Choice("layout of the CNN", "mmcl_fast/experiments/table1/encoders.py", layouts),
    Choice("finite values", "mmcl_fast/data/signal_noise/own_arrays.py", finiteness),
)


def compare(choice: Choice, rounds: int) -> list[dict[str, Any]]:
    """One row a variant: time, and how often longer it takes than what the code does."""
    seconds = interleaved(choice.make(), rounds)
    ours = next(iter(seconds.values()))
    return [
        {
            "op": "choices",
            "variant": variant,
            "settings": {"choice": choice.name, "where": choice.where, "rounds": rounds},
            "cpu_ms": Quantiles.of(samples).to_dict(scale=1e3),
            "times_ours": float(f"{paired_ratio(samples, ours):.3g}"),
        }
        for variant, samples in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("choices", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    rows: list[dict[str, Any]] = []
    for choice in CHOICES:
        measured = compare(choice, QUICK_ROUNDS if args.quick else ROUNDS)
        for row in measured:
            print(
                f"{choice.name:36}{row['variant']:20}{row['cpu_ms']['p50']:10.3f} ms"
                f"{row['times_ours']:10.2f}",
                flush=True,
            )
        rows += measured
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["CHOICES", "Choice", "compare", "main"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
