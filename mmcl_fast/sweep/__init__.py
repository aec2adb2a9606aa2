"""Sweeps: a grid of settings times seeds, computed in shards and stored as Parquet.

plan = sweep.make_plan(TrainConfig(data="reduced"), grid={"m": [16, 64], "modality": ["both"]},
                       seeds=100)
sweep.run_sweep(plan, "store")       # after an interruption, the same call resumes
table = sweep.load("store")          # pyarrow, one row per run
cube = sweep.to_xarray("store")      # one dimension per swept setting
"""

from __future__ import annotations

from mmcl_fast.sweep.execute.runner import Policy, SweepResult, run_sweep
from mmcl_fast.sweep.plan.plan import Plan, make_plan
from mmcl_fast.sweep.plan.spec_file import Spec, read_spec
from mmcl_fast.sweep.store.cube import to_xarray
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.sweep.store.status import Status, read_status

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
