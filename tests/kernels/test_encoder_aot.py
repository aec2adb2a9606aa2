"""The encoder kernels fit every chip, spill nothing and use its matrix units; no GPU needed."""

from __future__ import annotations

import os
import re

import pytest
import triton

from . import aot
from .encoder_aot import MATRIX_CASES, PLAIN_CASES, SLOW_CASES
from .test_contrast_aot import UNITS

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)
CASES = [
    *MATRIX_CASES,
    *PLAIN_CASES,
    *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW_CASES),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_fits_the_chip(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0, needs
    assert needs.shared <= aot.SHARED_LIMIT[case.arch], needs
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []
    assert "atom" not in aot.compiled(case).asm["ptx"]


@pytest.mark.parametrize("case", MATRIX_CASES, ids=lambda case: case.id)
def test_uses_the_matrix_unit(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert re.search(UNITS[case.arch], ptx)
    assert "cp.async" in ptx  # the next blocks are fetched meanwhile


@pytest.mark.parametrize("case", PLAIN_CASES[:2], ids=lambda case: case.id)
def test_float32_is_no_tf32(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert "tf32" not in ptx
    assert "mma" not in ptx
