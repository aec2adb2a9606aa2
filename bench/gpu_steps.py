"""The steps of `bench/gpu.py`, one a process: `python -m bench.gpu_steps STEP FILE`.

A step appends a row to FILE for everything it finds, as soon as it is found, and exits with 1 if
one is wrong. Times are of CUDA events, medians with the L2 cache flushed before each repeat.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import record
from .measure import Quantiles

CUDA = torch.device("cuda")
FLUSH_BYTES = 1 << 28
Row = dict[str, Any]


class Report:
    """Rows of a step, written as they come."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.failed = False

    def add(self, op: str, **row: object) -> None:
        """Append a row; one with ok = False fails the step."""
        self.failed |= row.get("ok") is False
        record.append(self._file, [{"op": op, **row}])

    def attempt(self, op: str, settings: Row, call: Callable[[], Row]) -> Row | None:
        """Append what `call` measures, or the reason why it could not: peers may be missing."""
        try:
            found = call()
        except (RuntimeError, AttributeError, ImportError, TypeError, ValueError) as error:
            self.add(op, **settings, skipped=f"{type(error).__name__}: {str(error)[:300]}")
            return None
        self.add(op, **settings, **found)
        return found


def cuda_ms(call: Callable[[], object], *, seconds: float = 1.5, most: int = 50) -> list[float]:
    """Milliseconds of repeats, at least three, until the time is over."""
    for _ in range(2):
        call()
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=CUDA)
    times, begin = [], time.monotonic()
    while len(times) < 3 or (len(times) < most and time.monotonic() - begin < seconds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return times


def timed(call: Callable[[], object], **options: float) -> Row:
    """Quantiles of the time and the largest memory above what was there."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    times = cuda_ms(call, **options)  # type: ignore[arg-type]
    return {"ms": Quantiles.of(times).to_dict(), "repeats": len(times), "peak_mib": round(peak, 1)}


def rows_like(n: int, d: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random rows of norm 1."""
    generator = torch.Generator(CUDA).manual_seed(seed)
    drawn = torch.randn(n, d, generator=generator, device=CUDA)
    return torch.nn.functional.normalize(drawn, dim=1).to(dtype)


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative to the size of the exact one; NaN stays NaN."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def product_tflops(size: int = 8192) -> float:
    """Rate of a dense bfloat16 product of random factors."""
    a, b = (rows_like(size, size, torch.bfloat16, seed) for seed in (0, 1))
    return 2e-9 * size**3 / Quantiles.of(cuda_ms(lambda: a @ b)).p50


def gate_loss(report: Report) -> None:
    """The losses of the Triton backend against dense autograd in float64."""
    from mmcl_fast import losses

    from .loss_peers import dense_clip

    for dtype, limit in ((torch.bfloat16, 2e-2), (torch.float32, 1e-4)):
        for d in (64, 512):
            made = [rows_like(2048 + 37, d, dtype, seed) for seed in (0, 1)]
            exact = [x.double().requires_grad_() for x in made]
            scale = torch.tensor(20.0, dtype=torch.float64, device=CUDA)
            value = dense_clip(*exact, scale)
            value.backward()
            ours = [x.clone().requires_grad_() for x in made]
            loss = losses.info_nce(*ours, temperature=0.05, symmetric=True, backend="triton")
            loss.backward()
            far = max(distance(a.grad, b.grad) for a, b in zip(ours, exact, strict=True))  # type: ignore[arg-type]
            off = abs(loss.item() / value.item() - 1)
            report.add("gate_loss", dtype=str(dtype), d=d, gradient=far, loss=off,
                       ok=bool(far < limit and off < 1e-4))  # fmt: skip


def loss(report: Report) -> None:
    """Forward and backward of the symmetric loss, against the peers."""
    from mmcl_fast import losses

    from .loss_peers import compiled, dense_clip, linear_clip

    def ours(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return losses.info_nce(x, y, temperature=1 / scale, symmetric=True, backend="triton")

    peers = {"mmcl_fast": ours, "dense": dense_clip, "linear_cross_entropy": linear_clip,
             "dense, compiled": compiled(dense_clip)}  # fmt: skip
    bf16, fp32 = torch.bfloat16, torch.float32
    for n, d, dtype in (
        (8192, 128, bf16),
        (32768, 128, bf16),
        (32768, 512, bf16),
        (8192, 256, fp32),
    ):
        x, y = (rows_like(n, d, dtype, seed).requires_grad_() for seed in (0, 1))
        scale = torch.tensor(20.0, device=CUDA, dtype=dtype, requires_grad=True)
        for name, peer in peers.items():

            def step(peer: Callable[..., Tensor] = peer, x: Tensor = x, y: Tensor = y,
                     scale: Tensor = scale) -> object:  # fmt: skip
                return torch.autograd.grad(peer(x, y, scale), (x, y, scale))

            settings = {"variant": name, "n": n, "d": d, "dtype": str(dtype)}
            report.attempt("loss", settings, lambda step=step: timed(step, seconds=1.0))  # type: ignore[misc]
            torch.cuda.empty_cache()


def gate_encoder(report: Report) -> None:
    """Both encoder kernels against float64."""
    from mmcl_fast.kernels.encoder import encoder_bwd, encoder_fwd

    for dtype, limit in ((torch.bfloat16, 1e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)):
        x, w = rows_like(1000, 777, dtype, 0), rows_like(300, 777, dtype, 1)
        g = rows_like(1000, 300, torch.float32, 2)
        for q in (1, 2, 3):
            h = encoder_fwd(x, w, q=q)
            value = distance(h, torch.relu(x.double() @ w.double().T) ** q)
            slope = q * h.double() ** ((q - 1) / q) * (h > 0)
            exact = (g.double() * slope).T @ x.double()
            gradient = distance(encoder_bwd(x, h, g, q=q), exact)
            report.add("gate_encoder", dtype=str(dtype), q=q, value=value, gradient=gradient,
                       ok=bool(value < limit and gradient < limit))  # fmt: skip


def primal(report: Report) -> None:
    """One step of the single-modal loss on the weights, and its two products alone."""
    from mmcl_fast import losses
    from mmcl_fast.kernels.encoder import encoder_bwd, encoder_fwd
    from mmcl_fast.triton_impl.encoder import encode

    n, m, d = 65536, 2048, 4096
    rate = product_tflops()
    report.add("product", size=8192, dtype="bfloat16", tflops=rate)
    x, w = rows_like(n, d, torch.bfloat16, 0), rows_like(m, d, torch.float32, 1)
    view = (x.float() + 0.01 * rows_like(n, d, torch.float32, 2)).bfloat16()
    mu, labels = w[0].bfloat16() * 3, torch.arange(n, device=CUDA) % 2
    w.requires_grad_()
    low, h = w.detach().bfloat16(), encoder_fwd(x, w.detach().bfloat16(), q=1)

    def step() -> object:
        noise, _ = encode(x, w, mu)
        with torch.no_grad():
            key, _ = encode(view, w, mu)
        # The signal patch adds nothing between the labels: its similarity there is 0.
        value = losses.info_nce(
            noise, noise, positive_key=key, labels=labels, negatives="other_label",
            stop_gradient="key", temperature=0.1, backend="triton",
        )  # fmt: skip
        return torch.autograd.grad(value, w)

    product = 2.0 * n * m * d
    for name, call, flop in (
        ("forward", lambda: encoder_fwd(x, low, q=1), product),
        ("weight gradient", lambda: encoder_bwd(x, h, h, q=1), product),
        # Two encodings, the weight gradient, scores of pairs between the labels and their mixture.
        ("step", step, 3 * product + 2 * 2.0 * (n * n / 2) * m),
    ):

        def measured(call: Callable[[], object] = call, flop: float = flop) -> Row:
            found = timed(call, seconds=3.0, most=20)
            tflops = 1e-9 * flop / found["ms"]["p50"]
            return {**found, "tflops": tflops, "of_product_rate": tflops / rate}

        report.attempt("primal", {"variant": name, "n": n, "m": m, "d": d}, measured)


def data(report: Report) -> None:
    """Normals of the stream on the device, beside torch's."""
    from mmcl_fast.kernels.normal import normal_fill

    out = torch.empty(1, 8192, 16384, device=CUDA)
    for name, call in (
        ("mmcl_fast", lambda: normal_fill(out, seed=1, tag=1)),
        ("torch normal_", lambda: out.normal_()),
        ("zero_", lambda: out.zero_()),
    ):

        def measured(call: Callable[[], object] = call) -> Row:
            found = timed(call)
            return {**found, "gnumbers_per_s": 1e-6 * out.numel() / found["ms"]["p50"]}

        report.attempt("data", {"variant": name, "numbers": out.numel()}, measured)


def main(arguments: Sequence[str]) -> int:
    """Run a step."""
    from . import gpu_trajectory

    name, file = arguments
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    torch.manual_seed(0)
    steps = {
        f.__name__: f
        for f in (gate_loss, loss, gate_encoder, primal, data, gpu_trajectory.gate_trajectory,
                  gpu_trajectory.trajectory, gpu_trajectory.tune)
    }  # fmt: skip
    report = Report(Path(file))
    steps[name](report)
    return int(report.failed)


__all__ = ["Report", "cuda_ms", "distance", "main", "product_tflops", "rows_like", "timed"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
