"""Which binaries of `kernels/contrast_products.py` are compiled for GPUs that are not here."""

from __future__ import annotations

from typing import Any

from mmcl_fast.kernels import contrast_products
from mmcl_fast.kernels._tiles import Tile, tile_for

from .aot import Case

_RULE = {"SIGMOID": False, "POSITIVE": "diagonal", "EXCLUDE_SELF": False}


def case(kernel: str, arch: str, tile: Tile | None = None, **options: Any) -> Case:
    """A kernel of bfloat16 features: "statistics", of rows and columns, or "weights", of both."""
    tile = tile or tile_for(f"contrast_product_{kernel}", arch, 2, "any")
    names = ("row_max", "row_sum", "positive_score", "column_max", "column_sum")
    if kernel == "weights":
        names = ("row_max", "row_scale", "column_max", "column_scale")
    pointers = {f"{name}_ptr": "*fp32" for name in ("temperature", *names)}
    if options.pop("labels", False):
        pointers |= {"query_label_ptr": "*i64", "key_label_ptr": "*i64"}
    blocks = {"query": (tile.block_n, tile.block_k), "key": (tile.block_m, tile.block_k)}
    if kernel == "weights":
        blocks["weights"] = (tile.block_n, tile.block_m)
    descriptors = {name: f"tensordesc<bf16[{n}, {k}]>" for name, (n, k) in blocks.items()}
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m, "BLOCK_K": tile.block_k}
    return Case(
        getattr(contrast_products, f"_contrast_product_{kernel}_kernel"),
        arch,
        descriptors | pointers,
        {**_RULE, **options, "GROUP": contrast_products._GROUP, **sizes},
        tile.num_warps,
        {"num_stages": tile.num_stages, "enable_fp_fusion": True},
    )


CASES = [
    *(case(kernel, arch) for kernel in ("statistics", "weights") for arch in ("sm_90", "sm_100")),
    case("statistics", "sm_90", labels=True),
    case("weights", "sm_90", labels=True, POSITIVE="none"),
]
