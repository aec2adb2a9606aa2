"""Steps of `bench.gpu` on the losses: correctness gate, and timings against peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast import losses

from ..peers import losses as loss_peers
from .timing import CUDA, DRY, HALF, Report, Row, compiled, distance, rows_like

OURS, DENSE, LINEAR, COMPILED = "mmcl_fast", "dense", "linear_cross_entropy", "dense, compiled"
SYMMETRIC, ONE_WAY = "symmetric", "paper (6), the query as key"
GATE_N = 70 if DRY else 2048 + 37
LIMITS = {HALF: 2e-2, torch.float32: 1e-4}  # of gradients, relative to their size
SHARE = 0.09  # of the memory, for a process that compiles beside others


@dataclass(frozen=True)
class Case:
    """A loss at a size; without peers it is repeated once."""

    loss: str
    n: int
    d: int
    peers: bool = True

    @property
    def settings(self) -> Row:
        """As in the results."""
        return {"loss": self.loss, "n": self.n, "d": self.d, "dtype": "bfloat16"}


CASES = (
    (Case(SYMMETRIC, 70, 40), Case(ONE_WAY, 70, 40), Case(SYMMETRIC, 48, 80))
    if DRY
    else (
        # The most important ones first: time may be over.
        Case(SYMMETRIC, 32768, 128),
        Case(SYMMETRIC, 65536, 768),
        Case(SYMMETRIC, 16384, 512),
        Case(ONE_WAY, 32768, 128),
        Case(SYMMETRIC, 16384, 128),
        Case(SYMMETRIC, 32768, 512),
        Case(SYMMETRIC, 262144, 512, peers=False),
        Case(SYMMETRIC, 16384, 64),
        Case(SYMMETRIC, 16384, 256),
        Case(SYMMETRIC, 16384, 1024),
    )
)


def _ours(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return losses.info_nce(x, y, temperature=1 / scale, symmetric=True, backend="triton")


def _ours_one_way(x: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    return losses.info_nce(
        x, x, positive_key=positive, labels=same[0].int(), negatives="other_label",
        stop_gradient="key", temperature=loss_peers.T, backend="triton",
    )  # fmt: skip


def _dense_one_way(x: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    return loss_peers.masked_single(x, x, positive, same)


VARIANTS: Mapping[str, Mapping[str, Callable[..., Tensor]]] = {
    SYMMETRIC: {OURS: _ours, DENSE: loss_peers.dense_clip, LINEAR: loss_peers.linear_clip},
    ONE_WAY: {OURS: _ours_one_way, DENSE: _dense_one_way},
}


def inputs_of(case: Case, dtype: torch.dtype = HALF) -> list[Tensor]:
    """Features, and what else the case's losses take; labels are taken to be known as a mask."""
    x = rows_like(case.n, case.d, dtype, 0).requires_grad_()
    if case.loss == SYMMETRIC:
        y = rows_like(case.n, case.d, dtype, 1).requires_grad_()
        return [x, y, torch.tensor(20.0, device=CUDA, requires_grad=True)]  # scale: float32
    labels = torch.rand(case.n, device=CUDA, generator=torch.Generator(CUDA).manual_seed(2)) < 0.5
    return [x, rows_like(case.n, case.d, dtype, 1), labels[:, None] == labels]


def gradients(loss: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward."""
    requested = [x for x in inputs if x.requires_grad]
    return torch.autograd.grad(loss(*inputs), requested)


def gate_loss(report: Report) -> None:
    """The losses of the Triton backend against dense autograd in float64."""
    for dtype in LIMITS:
        for loss, d in ((SYMMETRIC, 64), (SYMMETRIC, 80 if DRY else 512), (ONE_WAY, 128)):
            case = Case(loss, GATE_N, d)
            settings = {**case.settings, "dtype": str(dtype).split(".")[1]}
            report.add("gate_loss", OURS, settings, **gated(case, VARIANTS[loss][OURS], dtype))


def gated(case: Case, variant: Callable[..., Tensor], dtype: torch.dtype = HALF) -> Row:
    """How far value and gradients are from dense autograd in float64, and whether that is right."""
    ours = inputs_of(case, dtype)
    exact = [
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for x in ours
    ]
    dense = VARIANTS[case.loss][DENSE]
    value, truth = variant(*ours).item(), dense(*exact).item()
    pairs = zip(gradients(variant, ours), gradients(dense, exact), strict=True)
    far = max(distance(a, b) for a, b in pairs)
    off = abs(value / truth - 1)
    return {"gradient": far, "loss": off, "ok": far < LIMITS[dtype] and off < 1e-4}


def loss(report: Report) -> None:
    """Forward and backward, ours and peers; compiled peers last, which may take time to compile."""
    if report.once:  # the other variants have nothing to compile
        torch.cuda.set_per_process_memory_fraction(SHARE)
        for case in report.assigned(CASES):
            for name in (OURS, COMPILED) if case.peers else (OURS,):
                _attempt(report, case, name)
        return
    for case in CASES:
        for name in VARIANTS[case.loss] if case.peers else (OURS,):
            _attempt(report, case, name)
    for case in CASES:
        if case.peers:
            _attempt(report, case, COMPILED)


def _attempt(report: Report, case: Case, name: str) -> None:
    def measured() -> Row:
        variants = VARIANTS[case.loss]
        dense = name == COMPILED
        variant = compiled(variants[DENSE], fullgraph=True) if dense else variants[name]
        inputs = inputs_of(case)
        most = 30 if case.peers else 1
        return report.timed(lambda: gradients(variant, inputs), seconds=0.2, most=most)

    report.attempt("loss", name, case.settings, measured)


__all__ = ["CASES", "VARIANTS", "Case", "gate_loss", "gradients", "inputs_of", "loss"]
