"""The kernel of whole runs fits every chip, spills nothing and rounds as asked; no GPU needed."""

from __future__ import annotations

import os
import re
from itertools import product
from typing import Any

import pytest
import triton

from mmcl_fast.kernels import trajectory
from mmcl_fast.kernels._tiles import ARCHS, PRECISIONS, Tile, tile_for

from . import aot

pytestmark = pytest.mark.skipif(
    not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
    reason="this Triton carries no cuobjdump",
)
FLOATS = (
    *("gram", "along_mu", "norm", "z", "signal", "coefficients", "signal_coefficients"),
    *("scale", "weight", "work", "curves"),
)


def case(arch: str, precision: str, tile: Tile | None = None, **constants: Any) -> aot.Case:
    tile = tile or tile_for("trajectory", arch, 4, precision)
    return aot.Case(
        trajectory._trajectory_kernel,
        arch,
        {f"{name}_ptr": "*fp32" for name in FLOATS}
        | {"order_ptr": "*i32", "positives_ptr": "*i32"},
        {"SIDES": 1, "Q": 1, "PRECISION": precision}
        | {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
        | constants,
        tile.num_warps,
        {"num_stages": tile.num_stages, **trajectory.LAUNCH_OPTIONS},
        frozenset({"M", "S", "stride", "stride_work"}),
    )


def small(arch: str, precision: str, n: int, m: int, **constants: Any) -> aot.Case:
    tile = trajectory.small_tile(n, m, tile_for("trajectory", arch, 4, precision))
    return case(arch, precision, tile, **constants)


CASES = [
    *(case(arch, "ieee", SIDES=sides) for arch in ARCHS for sides in (1, 2)),
    # A cubic needs most registers of the activations.
    case("sm_90", "ieee", SIDES=2, Q=3),
    *(case(arch, p, SIDES=2) for arch in ARCHS for p in ("tf32", "tf32x3")),
    small("sm_90", "ieee", 20, 10),
    small("sm_90", "tf32", 20, 10, SIDES=2),
    small("sm_90", "tf32x3", 60, 30, Q=2),
    # Narrow blocks of samples, which `bench.gpu --tune` times.
    *(case("sm_90", p, Tile(16, 4, 64, 1, 16), SIDES=2) for p in PRECISIONS),
]
SLOW_CASES = [
    *(
        case(arch, p, SIDES=sides, Q=q)
        for arch, p, sides, q in product(ARCHS, PRECISIONS, (1, 2), (1, 2, 3))
    ),
    *(
        small(arch, p, n, m, SIDES=sides)
        for arch, p, (n, m), sides in product(
            ARCHS, PRECISIONS, ((8, 8), (60, 100), (200, 8)), (1, 2)
        )
    ),
]
UNITS = {"sm_80": r"mma\.sync\S*\.tf32", "sm_90": r"(wgmma\.mma_async|mma\.sync)\S*\.tf32",
         "sm_100": r"(tcgen05\.mma\S*\.kind::tf32|mma\.sync\S*\.tf32)"}  # fmt: skip


def label(case: aot.Case) -> str:
    return "-".join([case.arch, *(str(x) for x in case.constexprs.values())])


@pytest.mark.parametrize(
    "case",
    [*aot.by_lane(CASES), *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW_CASES)],
    ids=label,
)
def test_fits_the_chip(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0, needs
    assert needs.shared <= aot.SHARED_LIMIT[case.arch], needs
    assert aot.narrow_offsets(aot.compiled(case).asm["ttir"]) == []
    ptx = aot.compiled(case).asm["ptx"]
    assert "atom" not in ptx
    # What one thread wrote another reads in the next step: never through the read-only cache.
    assert "ld.global.nc" not in ptx
    assert "cp.async" not in ptx
    if case.constexprs["PRECISION"] == "ieee":
        assert "tf32" not in ptx
        assert "mma" not in ptx
    else:
        assert re.search(UNITS[case.arch], ptx)


def test_steps_are_separated_by_barriers() -> None:
    # Five in an epoch: after the positives, rows, columns, changes and moves.
    assert aot.compiled(CASES[0]).asm["ttir"].count("barrier") == 5
