"""Every row of a part against the plan: `mmcl status --verify`."""

from __future__ import annotations

from pathlib import Path

from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.parquet_file import open_parquet
from mmcl_fast.sweep.store.part_checks import check_rows, check_settings, check_types
from mmcl_fast.sweep.store.plan_file import Outline
from mmcl_fast.sweep.store.schema import SETTING_TYPES, part_schema, with_later_columns
from mmcl_fast.sweep.store.store import PART_REMEDY, PartInfo, checked_info


def verified_info(path: Path, outline: Outline, plan: Plan) -> PartInfo:
    """`part_info` of a part that is read whole.

    Args:
        path: The part.
        outline: The plan's outline, with its runs.
        plan: The same plan.

    Raises: OutputError: the part, which is named, is damaged, of another plan, or has rows with
        other run ids, statuses, settings or seeds than the plan.
    """
    with open_parquet(path, PART_REMEDY, whole=True) as file:
        info = checked_info(path, outline, file)
        table = with_later_columns(file.read(), tuple(SETTING_TYPES))
        check_types(table.schema, part_schema(outline.dtype, outline.metric_names))
        check_rows(table, info.shard, info.counts, outline)
        check_settings(table, info.shard, plan)
    return info


__all__ = ["verified_info"]
