"""Rows of different arithmetic or versions do not mix, unless that is allowed and marked."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from mmcl_fast import _native
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.store import PartInfo

MARKED = "any_engine"
"""Metadata of a part: another engine, processor or version than the plan's was allowed."""


def check_numerics(plan: Plan, shard: int) -> None:
    """Raise ConfigError where this process would compute a shard with other arithmetic."""
    for k in np.unique(plan.point_of[plan.runs_of(shard)]):
        here = numerics_of(plan.points[k], measures=bool(plan.metrics))
        if here != plan.numerics[k]:
            raise ConfigError(
                f"engine: expected a worker with what the plan was made with ({plan.numerics[k]}), "
                f"got {here}; rows would agree to rounding only: --allow-other-engine accepts it, "
                "and marks them"
            )


def check_cpu_target() -> None:
    """Raise ConfigError where the environment names an instruction set that is none of here."""
    try:
        _native.active_target()
    except ValueError as error:  # it names MMCL_CPU_TARGET, what is expected, and what is given
        raise ConfigError(str(error)) from error


def versions_of(plan: Plan) -> set[str]:
    """Versions of mmcl_fast whose arithmetic a plan has."""
    return {how.partition(",")[0].removeprefix("mmcl_fast ") for how in set(plan.numerics)}


def check_version(info: PartInfo, known: Set[str], name: str) -> None:
    """Raise OutputError for a part of a version that the plan does not have.

    Args:
        info: Metadata of the part.
        known: `versions_of` the plan of the store.
        name: File name of the part.
    """
    if info.provenance.get(MARKED):
        return
    made = info.provenance.get("environment", {}).get("mmcl_fast", "unknown")
    if made not in known:
        raise OutputError(
            f"{name}: expected rows of mmcl_fast {', '.join(sorted(known))}, as in the plan, got "
            f"a part of {made}; remove it, and re-running the sweep recomputes it, or "
            "--allow-other-engine accepts it"
        )


__all__ = ["MARKED", "check_cpu_target", "check_numerics", "check_version", "versions_of"]
