"""Which binaries of the kernels of small batches are compiled for GPUs that are not here."""

from __future__ import annotations

from typing import Any

from mmcl_fast.kernels import contrast_pair_gradients, contrast_small_batch
from mmcl_fast.kernels._tiles import ARCHS, tile_for

from .aot import Case

_NAMES = ("scores", "temperature", "losses", "terms")
_RULE = {"POSITIVE": "diagonal", "EXCLUDE_SELF": False}


def batch_case(arch: str, element: str = "bf16", **options: Any) -> Case:
    """Losses and weights; by default those of a symmetric loss."""
    tile = tile_for("contrast_small_batch", arch, 4, "any")
    pointers = {f"{name}_ptr": "*fp32" for name in _NAMES} | {"weights_ptr": f"*{element}"}
    if options.pop("labels", False):
        pointers |= {"query_label_ptr": "*i64", "key_label_ptr": "*i64"}
    if options.pop("split", False):
        pointers |= {"second_ptr": f"*{element}"}
    constants = {"FORM": "softmax", "SYMMETRIC": True, "SAME_ROWS": False, **_RULE}
    return Case(
        contrast_small_batch._contrast_small_batch_kernel,
        arch,
        pointers,
        {**constants, **options, "BLOCK": tile.block_n},
        tile.num_warps,
        {"enable_fp_fusion": True},
        frozenset({"N", "M"}),
    )


def gradients_case(arch: str) -> Case:
    """Gradients of both sides of a symmetric loss."""
    names = ("query_sums", "key_sums", "weight", "second_weight", "temperature", "dots")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    return Case(
        contrast_pair_gradients._contrast_pair_gradients_kernel,
        arch,
        pointers | {"query_ptr": "*bf16", "key_ptr": "*bf16"},
        {"BACK": 1.0}
        | {
            "BLOCK_N": contrast_pair_gradients._BLOCK_N,
            "BLOCK_D": contrast_pair_gradients._BLOCK_D,
        },
        4,
        {"enable_fp_fusion": True},
        frozenset({"D", "stride_query", "stride_key"}),
    )


CASES = [
    *(batch_case(arch) for arch in ARCHS),
    batch_case("sm_90", labels=True, split=True),
    batch_case("sm_90", "fp32", SYMMETRIC=False, SAME_ROWS=True, EXCLUDE_SELF=True),
    *(gradients_case(arch) for arch in ARCHS),
]
