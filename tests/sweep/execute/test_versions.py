"""Parts record the version that made them; a plan's rows are of its own arithmetic."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import OutputError
from mmcl_fast.sweep import make_plan
from mmcl_fast.sweep.execute.worker_pool import Broken, Done, Job, perform
from mmcl_fast.sweep.store.parquet_file import KEY, write_parquet
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.store import Store

PLAN = make_plan(TrainConfig(n=12, m=4, epochs=2, data="reduced"), grid={"m": [2, 3]})


def test_a_part_of_another_version_is_refused(tmp_path: Path, compute: Callable) -> None:
    compute(PLAN, tmp_path)
    part = Store(tmp_path).part(1)
    table = pq.read_table(part)
    told = json.loads(table.schema.metadata[KEY])
    told["environment"]["mmcl_fast"] = "9.9.9"
    write_parquet(table, part, told)
    with pytest.raises(OutputError, match=r"part-000001.parquet: expected rows .* 9.9.9;"):
        compute(PLAN, tmp_path)
    compute(PLAN, tmp_path, any_engine=True)  # allowed, as for rows that were marked
    told["any_engine"] = True
    write_parquet(table, part, told)
    compute(PLAN, tmp_path)


def test_a_worker_with_other_arithmetic_computes_nothing(tmp_path: Path) -> None:
    """A cluster's machines may differ from the driver's, which is checked before."""
    Store(tmp_path).prepare()
    write_plan(replace(PLAN, numerics=("mmcl_fast 0.0.9, native",) * 2), tmp_path)
    outcome = perform(Job(str(tmp_path), 0, 1))
    assert isinstance(outcome, Broken)
    assert "expected a worker with what the plan was made with (mmcl_fast 0.0.9" in outcome.reason
    assert not list(Store(tmp_path).parts.iterdir())
    assert isinstance(perform(Job(str(tmp_path), 0, 1, any_engine=True)), Done)
