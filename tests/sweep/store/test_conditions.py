"""Conditions on rows: one value, several, none, and one error for each that no row meets."""

import pyarrow as pa
import pytest

from mmcl_fast import ConfigError
from mmcl_fast.sweep.store.conditions import filtered

TABLE = pa.table(
    {
        "m": [2, 2, 3, 5],
        "snr": [1 / 3, 0.5, 0.5, 0.5],
        "modality": ["single", "multi", "multi", "multi"],
        "negatives_per_sample": pa.array([None, 4, None, 8], pa.int64()),
        "row": [0, 1, 2, 3],
    }
)


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        ([], [0, 1, 2, 3]),
        (["m=2"], [0, 1]),
        (["m=2,5"], [0, 1, 3]),
        (["m=2", "m=5"], [0, 1, 3]),
        (["m = 2 , 3", "modality=multi"], [1, 2]),
        (["snr=0.333333"], [0]),
        (["negatives_per_sample=none"], [0, 2]),
        (["negatives_per_sample=none,8"], [0, 2, 3]),
    ],
    ids=str,
)
def test_rows(conditions: list[str], rows: list[int]) -> None:
    assert filtered(TABLE, conditions)["row"].to_pylist() == rows


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["m=2,7"], r"where: expected a value of m in the store \(2, 3, 5\), got 7"),
        (["m=2,"], "where: expected name=value or name=value,value, got 'm=2,'"),
        (["m=x"], "where: expected a number for m, got 'x'"),
        (["mm=2"], r"mm: unknown column; did you mean m\?"),
        (["negatives_per_sample=3"], r"in the store \(4, 8, none\), got 3"),
        (["modality=both"], r"in the store \(multi, single\), got both"),
        (["m=none"], "got none"),
        (["m=3", "snr=0.333333"], r"value of snr in the store \(0.5\), got 0.333333"),
    ],
    ids=str,
)
def test_errors(conditions: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        filtered(TABLE, conditions)
