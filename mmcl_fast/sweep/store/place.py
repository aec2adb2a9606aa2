"""Where a store keeps its plan; loads no torch, so a wrong path is refused at once."""

from __future__ import annotations

from pathlib import Path

from mmcl_fast.errors import OutputError

PLAN_FILE = "plan.parquet"


def require_plan(store: Path) -> Path:
    """The file of a store's plan.

    Raises: OutputError: there is none.
    """
    path = store / PLAN_FILE
    if not path.exists():
        raise OutputError(f"store: expected a directory with {PLAN_FILE}, got {str(store)!r}")
    return path


__all__ = ["PLAN_FILE", "require_plan"]
