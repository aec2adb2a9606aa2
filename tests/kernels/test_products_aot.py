"""Products with an epilogue fit the chips that copy tensors on their own; no GPU needed."""

from __future__ import annotations

import os
import re

import pytest
import triton

from . import aot
from .products_aot import CASES

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)
UNITS = {"sm_90": r"wgmma\.mma_async\S*\.bf16", "sm_100": r"tcgen05\.mma\S*\.kind::f16"}


@pytest.mark.parametrize("case", aot.by_lane(CASES), ids=lambda case: case.id)
def test_fits_the_chip(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0
    assert needs.shared <= aot.SHARED_LIMIT[case.arch]
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []


@pytest.mark.parametrize("case", aot.by_lane(CASES), ids=lambda case: case.id)
def test_uses_the_matrix_unit_and_the_copy_engine(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert re.search(UNITS[case.arch], ptx)
    assert "cp.async.bulk.tensor" in ptx
    assert "atom" not in ptx
    c = case.constexprs
    stage = 2 * c["BLOCK_K"] * (c["BLOCK_N"] + c["BLOCK_M"])  # bytes
    assert aot.resources(case).shared >= case.options["num_stages"] * stage  # fetched ahead
