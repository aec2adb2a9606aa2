"""The contrastive kernels fit every chip, and use its matrix units; no GPU needed.

Where blocks without masks go by, nothing spills. Blocks with masks are few, and may spill where
registers are limited for the others' sake: the programs that take turns then were quicker, measured
on an H100, than fewer programs that spill nothing.
"""

from __future__ import annotations

import os
import re

import pytest
import triton

from . import aot
from .contrast_aot import PLAIN_CASES, SLOW_CASES, TENSOR_CASES

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)
CASES = [
    *aot.by_lane([*TENSOR_CASES, *PLAIN_CASES]),
    *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW_CASES),
]
# Bytes a thread, outside of the loop without masks. Most is one pass on sm_80, 112, but for
# statistics, whose program keeps both loops' sums: with sm_90's limit of 128 registers 272; sm_100,
# whose tile nobody has measured, 272 with Triton 3.9 and 696 with 3.6.
FEW, STATISTICS = 112, {"sm_90": 272, "sm_100": 696}
# Instructions of the matrix units for 16-bit factors, by architecture.
UNITS = {"sm_80": r"mma\.sync\S*\.bf16", "sm_90": r"wgmma\.mma_async\S*\.bf16",
         "sm_100": r"tcgen05\.mma\S*\.kind::f16"}  # fmt: skip


def check(case: aot.Case) -> None:
    needs = aot.resources(case)
    statistics = case.kernel.__name__ == "_contrast_statistics_kernel"
    # With labels every block has a mask, and sm_100's statistics spill there.
    masked = "*i64" in case.pointers.values() and statistics and case.arch == "sm_100"
    if needs.spilled:
        assert needs.spilled <= (STATISTICS if statistics else {}).get(case.arch, FEW), needs
    if needs.spilled and not masked:
        main = min((x for x in aot.loops(case) if any("MUFU.EX2" in y for y in x)), key=len)
        assert sum("STL" in y for y in main) == 0, needs
        # What the loop does not change: the addresses of the columns' results.
        assert sum("LDL" in y for y in main) <= (4 if statistics else 1), needs
    assert needs.shared <= aot.SHARED_LIMIT[case.arch], needs
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_fits_the_chip(case: aot.Case) -> None:
    check(case)


@pytest.mark.parametrize("case", aot.by_lane(TENSOR_CASES), ids=lambda case: case.id)
def test_uses_the_matrix_unit(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert re.search(UNITS[case.arch], ptx)
    assert "cp.async" in ptx  # the next block is fetched meanwhile
    assert "atom" not in ptx


@pytest.mark.parametrize("case", aot.by_lane(PLAIN_CASES), ids=lambda case: case.id)
def test_float32_is_no_tf32(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert "tf32" not in ptx
    assert "mma" not in ptx
    assert "atom" not in ptx
