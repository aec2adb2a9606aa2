"""Sweeps: a grid of settings times seeds, computed in shards, kept in Parquet, never lost.

plan = sweep.make_plan(TrainConfig(data="reduced"), grid={"m": [16, 64], "modality": ["both"]},
                       seeds=100)
sweep.run_sweep(plan, "store")       # killed at any moment, the same call goes on
table = sweep.load("store")          # pyarrow, one row a run
cube = sweep.to_xarray("store")      # one dimension per swept setting
"""

from __future__ import annotations

from mmcl_fast.sweep.cube import to_xarray
from mmcl_fast.sweep.driver import Policy, SweepResult, run_sweep
from mmcl_fast.sweep.plan import Plan, make_plan
from mmcl_fast.sweep.spec import Spec, read_spec
from mmcl_fast.sweep.survey import Status, read_status
from mmcl_fast.sweep.table import load

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
    "to_xarray",
]
