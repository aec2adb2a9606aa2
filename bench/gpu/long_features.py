"""A step of `bench.gpu`: losses of long features whose scores would not be kept.

Each size has the loss as it runs by default, and by products with an epilogue
(`Policy(pipelined=True)`). The gate compares the second form with float64; before a time of it is
taken, value and gradients at that size are compared with those of the first, whose gate is another
step.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from unittest import mock

import torch

from mmcl_fast.losses.triton_backend import pipelined
from mmcl_fast.losses.triton_backend.policy import Policy, using

from .loss import LIMITS, OURS, SYMMETRIC, VARIANTS, Case, gated, gradients, inputs_of
from .timing import DRY, HALF, Report, Row, distance

PIPELINED = "mmcl_fast, pipelined"
CASES = (Case(SYMMETRIC, 70, 80),) if DRY else (
    Case(SYMMETRIC, 65536, 768), Case(SYMMETRIC, 32768, 512), Case(SYMMETRIC, 32768, 1024),
)  # fmt: skip
GATE = Case(SYMMETRIC, 70 if DRY else 2048 + 40, 80 if DRY else 768)


def gate_long(report: Report) -> None:
    """Value and gradients against dense autograd in float64."""
    with policy_of(PIPELINED), mock.patch.object(pipelined, "MAX_KEPT", 0):
        report.add("gate_long", PIPELINED, GATE.settings, **gated(GATE, VARIANTS[SYMMETRIC][OURS]))


def long(report: Report) -> None:
    """Forward and backward by both forms."""
    for case in report.assigned(CASES):
        for name in (OURS, PIPELINED):
            _attempt(report, case, name)


def policy_of(name: str) -> AbstractContextManager[None]:
    """What may run for a variant; of a dry run's sizes all scores would be kept."""
    stack = ExitStack()
    if name == PIPELINED:
        stack.enter_context(using(Policy(pipelined=True)))
        if DRY:
            stack.enter_context(mock.patch.object(pipelined, "MAX_KEPT", 0))
    return stack


def _attempt(report: Report, case: Case, name: str) -> None:
    def measured() -> Row:
        variant, inputs = VARIANTS[case.loss][OURS], inputs_of(case)
        found: Row = {}
        if name == PIPELINED and not report.once:
            found = _beside(case)
            if not found["ok"]:
                return found
        with policy_of(name):
            return {**found, **report.timed(partial(gradients, variant, inputs), seconds=0.5)}

    report.attempt("long", name, case.settings, measured)


def _beside(case: Case) -> Row:
    """How far value and gradients are from those of the default form."""
    variant, inputs = VARIANTS[case.loss][OURS], inputs_of(case)
    with torch.no_grad():
        value = float(variant(*inputs))
    expected = gradients(variant, inputs)
    with policy_of(PIPELINED):
        with torch.no_grad():
            off = abs(float(variant(*inputs)) / value - 1)
        far = max(map(distance, gradients(variant, inputs), expected))
    return {"gradient": far, "loss": off, "ok": far < LIMITS[HALF] and off < 1e-4}


__all__ = ["CASES", "PIPELINED", "gate_long", "long", "policy_of"]
