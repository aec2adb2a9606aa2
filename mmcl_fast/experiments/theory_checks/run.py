"""The table of checks, and running them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Protocol

from mmcl_fast.experiments.theory_checks import (
    c_mu,
    concentration,
    convergence,
    couplings,
    first_stage,
    generalisation,
    growth,
    pairs,
    scale,
    signs,
    stage2,
)
from mmcl_fast.experiments.theory_checks.check import Finding
from mmcl_fast.experiments.theory_checks.names import CheckName


class Check(Protocol):
    """A function that trains and judges."""

    def __call__(self, seeds: Sequence[int]) -> Finding:
        """Run it for these seeds."""
        ...


CHECKS: MappingProxyType[CheckName, Check] = MappingProxyType(
    {
        "growth": growth.check,
        "first_stage": first_stage.check,
        "scale": scale.check,
        "signs": signs.check,
        "c_mu": c_mu.check,
        "test_error": generalisation.check,
        "convergence": convergence.check,
        "stage2": stage2.check,
        "pairs": pairs.check,
        "concentration": concentration.check,
        "couplings": couplings.check,
    }
)


def run_checks(
    names: Sequence[CheckName],
    seeds: Sequence[int],
    on_progress: Callable[[str, int], None] | None = None,
) -> list[Finding]:
    """Run checks in the order given.

    Args:
        names: Checks of `CHECKS`.
        seeds: Seeds of data and weights.
        on_progress: Told the check that starts and how many are done.
    """
    findings = []
    for done, name in enumerate(names):
        if on_progress:
            on_progress(name, done)
        findings.append(CHECKS[name](seeds))
    return findings


__all__ = ["CHECKS", "run_checks"]
