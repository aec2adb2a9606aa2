"""Sweeps: a grid of settings times seeds, computed in shards and stored as Parquet.

plan = sweep.make_plan(TrainConfig(data="reduced"), grid={"m": [16, 64], "modality": ["both"]},
                       seeds=100)
sweep.run_sweep(plan, "store")       # after an interruption, the same call resumes
table = sweep.load("store")          # pyarrow, one row per run
cube = sweep.to_xarray("store")      # one dimension per swept setting

Names load on first use: a command line that is refused loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast.sweep.execute.policy import Policy as Policy
    from mmcl_fast.sweep.execute.runner import SweepResult as SweepResult
    from mmcl_fast.sweep.execute.runner import run_sweep as run_sweep
    from mmcl_fast.sweep.plan.plan import Plan as Plan
    from mmcl_fast.sweep.plan.plan import make_plan as make_plan
    from mmcl_fast.sweep.plan.spec_file import Spec as Spec
    from mmcl_fast.sweep.plan.spec_file import read_spec as read_spec
    from mmcl_fast.sweep.store.cube import to_xarray as to_xarray
    from mmcl_fast.sweep.store.frames import to_pandas as to_pandas
    from mmcl_fast.sweep.store.reader import load as load
    from mmcl_fast.sweep.store.status import Status as Status
    from mmcl_fast.sweep.store.status import read_status as read_status

_HOME = {
    "Plan": "plan.plan",
    "Policy": "execute.policy",
    "Spec": "plan.spec_file",
    "Status": "store.status",
    "SweepResult": "execute.runner",
    "load": "store.reader",
    "make_plan": "plan.plan",
    "read_spec": "plan.spec_file",
    "read_status": "store.status",
    "run_sweep": "execute.runner",
    "to_pandas": "store.frames",
    "to_xarray": "store.cube",
}


if not TYPE_CHECKING:  # a type checker would take any misspelt name for one of `Any`

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "Plan",
    "Policy",
    "Spec",
    "Status",
    "SweepResult",
    "load",
    "make_plan",
    "read_spec",
    "read_status",
    "run_sweep",
    "to_pandas",
    "to_xarray",
]
