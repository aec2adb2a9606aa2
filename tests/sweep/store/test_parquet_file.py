"""Reading Parquet files without Arrow's threads, which may outlive the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.sweep import load, make_plan, read_status
from mmcl_fast.sweep.store.plan_file import read_plan

BASE = TrainConfig(n=12, d=60, m=4, epochs=3, n_test=10, data="reduced", evaluate_every=3)


def test_no_reader_leaves_threads_of_arrow_behind(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They drop Python's buffers late: `mmcl status` aborted after one in ten calls."""
    compute(make_plan(BASE, grid={"m": [4, 8]}, seeds=2), tmp_path)
    readers = []
    for name in ("read", "read_row_group"):
        whole = getattr(pq.ParquetFile, name)

        def alone(*given: Any, whole: Callable = whole, **options: Any) -> Any:
            readers.append(options.get("use_threads", True))
            return whole(*given, **options)

        monkeypatch.setattr(pq.ParquetFile, name, alone)
    load(tmp_path)
    read_status(tmp_path, verify=True)
    read_plan(tmp_path)
    assert len(readers) > 3
    assert not any(readers)
