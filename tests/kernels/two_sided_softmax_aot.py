"""Which binaries of `kernels/two_sided_softmax.py` are compiled for GPUs that are not here."""

from __future__ import annotations

from mmcl_fast.kernels import two_sided_softmax
from mmcl_fast.kernels._tiles import ARCHS, tile_for

from .aot import Case

_SUMS = ("row_max", "row_sum", "column_max", "column_sum")


def _case(arch: str, name: str, pointers: dict[str, str]) -> Case:
    tile = tile_for(f"two_sided_{name}", arch, 4, "any")
    return Case(
        getattr(two_sided_softmax, f"_two_sided_{name}_kernel"),
        arch,
        {"scores_ptr": "*fp32"} | pointers,
        {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m},
        tile.num_warps,
        two_sided_softmax.LAUNCH_OPTIONS,
        aligned=frozenset({"P", "stride_n", "stride_wn"}),
    )


CASES = [
    case
    for arch in ARCHS
    for case in (
        _case(arch, "statistics", {f"{x}_ptr": "*fp32" for x in _SUMS}),
        _case(
            arch,
            "weights",
            {"row_max_ptr": "*fp32", "column_max_ptr": "*fp32"}
            | {"row_weights_ptr": "*bf16", "column_weights_ptr": "*bf16"},
        ),
    )
]
