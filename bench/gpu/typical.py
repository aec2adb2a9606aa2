"""A step of `bench.gpu`: losses of typical batches, where the host may be what is measured.

Each size has the loss as it runs by default, the small-batch form (`Policy(small_batch=True)`),
dense autograd, and the last two captured in a graph, whose replay needs no host; dense autograd
through torch.compile comes last. What is ours is compared with float64 before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from mmcl_fast.losses.triton_backend.policy import Policy, using

from .loss import COMPILED, DENSE, OURS, SYMMETRIC, VARIANTS, Case, gated, gradients, inputs_of
from .timing import DRY, Report, Row, compiled

SMALL = "mmcl_fast, small batch"
CAPTURED = "{}, captured".format
ROWS = (48,) if DRY else (64, 128, 256, 512, 1024, 2048, 4096, 8192)
FEATURES = (40, 80) if DRY else (768, 512, 1024, 256)  # the most important ones first
CASES = tuple(Case(SYMMETRIC, n, d) for d in FEATURES for n in ROWS)
SHARE = 0.05  # of the memory, for a process that compiles beside others


def gate_typical(report: Report) -> None:
    """Value and gradients of both forms against dense autograd in float64."""
    for case in (CASES[0], Case(SYMMETRIC, 70 if DRY else 512 + 37, 80), Case(SYMMETRIC, 64, 512)):
        for name in (OURS, SMALL):
            with policy_of(name):
                found = gated(case, VARIANTS[SYMMETRIC][OURS])
            report.add("gate_typical", name, case.settings, **found)


def typical(report: Report) -> None:
    """Forward and backward, by size."""
    if report.once:
        torch.cuda.set_per_process_memory_fraction(SHARE)
        for case in report.assigned(CASES):
            for name in (OURS, SMALL, COMPILED):
                _attempt(report, case, name)
        return
    for case in CASES:
        for name in (OURS, SMALL, DENSE, CAPTURED(SMALL), CAPTURED(DENSE)):
            _attempt(report, case, name)
    for case in CASES:
        _attempt(report, case, COMPILED)


def policy_of(name: str) -> AbstractContextManager[None]:
    """What may run for a variant; entered once, not in every call that is timed."""
    return using(Policy(small_batch=True)) if name.startswith(SMALL) else nullcontext()


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The replay of a call, which has been made before."""
    if DRY:
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _attempt(report: Report, case: Case, name: str) -> None:
    def measured() -> Row:
        ours = name.startswith(OURS)
        variant = VARIANTS[case.loss][OURS if ours else DENSE]
        with policy_of(name):
            if ours and not report.once:
                found = gated(case, variant)
                if not found["ok"]:
                    return found
            else:
                found = {}
            if name == COMPILED:
                variant = compiled(variant, fullgraph=True)
            call = partial(gradients, variant, inputs_of(case))
            if name in (CAPTURED(SMALL), CAPTURED(DENSE)):
                call()
                return {**found, **report.timed(captured(call), seconds=0.05, most=30)}
            return {**found, **report.timed(call, seconds=0.05, most=30)}

    report.attempt("typical", name, case.settings, measured, spare=1.0)


__all__ = ["CAPTURED", "CASES", "SMALL", "captured", "gate_typical", "policy_of", "typical"]
