"""The kernels of small batches fit every chip and spill nothing; no GPU needed."""

from __future__ import annotations

import os

import pytest
import triton

from . import aot
from .small_batch_aot import CASES

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)


@pytest.mark.parametrize("case", aot.by_lane(CASES), ids=lambda case: case.id)
def test_fits_the_chip(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0
    assert needs.shared <= aot.SHARED_LIMIT[case.arch]
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []
    assert "atom" not in aot.compiled(case).asm["ptx"]
