"""The tile table answers for every architecture from sm_80 on, and for no older one."""

from __future__ import annotations

import pytest

from mmcl_fast.kernels._tiles import TILES, tile_for


def test_newer_architecture_takes_the_newest_rows_before_it() -> None:
    assert (
        tile_for("normal_fill", "sm_103", 4, "many") is TILES[("normal_fill", "sm_80", 4, "many")]
    )


def test_older_architecture_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"normal_fill: expected a GPU of sm_80 or later, got sm_75"
    ):
        tile_for("normal_fill", "sm_75", 4, "many")
