"""The gate that needs no GPU: each binary fits its chip, spills nothing, rounds as specified."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import triton
import triton.language as tl

from mmcl_fast.kernels import normal

from . import aot

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)


@pytest.mark.parametrize("case", aot.by_lane(aot.CASES), ids=lambda case: case.id)
def test_fits_the_chip(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0
    assert needs.shared <= aot.SHARED_LIMIT[case.arch]


@pytest.mark.parametrize("case", aot.by_lane(aot.CASES), ids=lambda case: case.id)
def test_rounds_as_specified(case: aot.Case) -> None:
    ptx = aot.compiled(case).asm["ptx"]
    assert aot.inexact_operations(ptx) == []
    assert "sqrt.rn.f32" in ptx  # the float operations were found at all
    assert "mul.hi.u64" not in ptx  # Philox4x64


@pytest.mark.parametrize("case", aot.by_lane(aot.CASES), ids=lambda case: case.id)
def test_offsets_have_64_bits(case: aot.Case) -> None:
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []


@triton.jit
def _careless_kernel(out_ptr, n: tl.int32, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(out_ptr + offs, mask=offs < n)
    tl.store(out_ptr + offs, tl.sqrt(x) * x + tl.exp(x), mask=offs < n)


CARELESS = aot.Case(
    _careless_kernel,
    "sm_90",
    pointers={"out_ptr": "*fp32"},
    constexprs={"BLOCK": 256},
    num_warps=4,
    options={"enable_fp_fusion": True},
)


def test_gate_sees_inexact_operations() -> None:
    found = aot.inexact_operations(aot.compiled(CARELESS).asm["ptx"])
    assert any(op.startswith("sqrt.approx") for op in found), found
    assert any(op.startswith("ex2.approx") for op in found), found


def test_gate_sees_contraction() -> None:
    case = replace(aot.CASES[0], options={"enable_fp_fusion": True})
    assert "mul.f32" in aot.inexact_operations(aot.compiled(case).asm["ptx"])


def test_gate_sees_narrow_offsets() -> None:
    assert aot.narrow_offsets(aot.compiled(CARELESS).asm["ttir"])


@pytest.mark.aot
def test_gate_sees_spills() -> None:
    wide = {"OWN": False, "BLOCK_N": 64, "LANES": 64}
    options = {**normal.LAUNCH_OPTIONS, "maxnreg": 32}
    case = replace(aot.CASES[-1], constexprs=wide, num_warps=1, options=options)
    assert aot.resources(case).spilled > 0
