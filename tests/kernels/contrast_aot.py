"""Which binaries of the contrastive kernels are compiled for GPUs that are not here.

bfloat16 stands for float16: same tiles, same instructions but for the conversion. Positives on the
diagonal are the usual case; the option that takes most registers is a case of its same_rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmcl_fast.kernels import (
    contrast_gradient,
    contrast_input_gradients,
    contrast_one_pass,
    contrast_row_losses,
    contrast_score_statistics,
    contrast_statistics,
)
from mmcl_fast.kernels import contrast_score_weights as weights
from mmcl_fast.kernels import contrast_shared_exponent as shared_exponent
from mmcl_fast.kernels._tiles import ARCHS, Tile, tile_for

from .aot import Case

WIDTHS = {"bf16": (64, 128, 256), "fp32": (32, 64)}
ITEMSIZE = {"bf16": 2, "fp32": 4}
_OPTIONS = {"SIGMOID": False, "POSITIVE": "diagonal", "EXCLUDE_SELF": False}
_STRIDES = frozenset({"D", "stride_qn", "stride_km", "stride_row", "stride_column"})
_LABELS = {"query_label_ptr": "*i64", "key_label_ptr": "*i64"}


def dot_case(kernel: str, arch: str, element: str, width: int, **options: Any) -> Case:
    """A kernel that multiplies features, with the tile of its width."""
    tile = tile_for(kernel, arch, ITEMSIZE[element], width)
    function, pointers, constants = {
        "contrast_statistics": _statistics,
        "contrast_gradient": _gradient,
        "contrast_one_pass": _one_pass,
    }[kernel](f"*{element}")
    labels = options.pop("labels", False)
    if labels:
        pointers = pointers | _LABELS
    if kernel == "contrast_statistics":
        index = options.get("POSITIVE") == "index"
        registers = contrast_statistics.registers_of(tile, labels=labels, index=index)
        tile = replace(tile, registers=registers)
    if options.get("POSITIVE") == "index":
        pointers = pointers | {"positive_ptr": "*i64"}
        if kernel == "contrast_statistics":
            # A loss with statistics of columns is symmetric: its positives are on the diagonal.
            pointers = {name: x for name, x in pointers.items() if not name.startswith("column")}
    if options.get("SIGMOID"):
        pointers = pointers | {"bias_ptr": "*fp32"}
        if kernel != "contrast_statistics":
            pointers = pointers | {"weight_sum_ptr": "*fp32"}
        pointers = {n: x for n, x in pointers.items() if "factor" not in n and n != "reference_ptr"}
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m, "BLOCK_D": width}
    return _case(function, arch, pointers, _OPTIONS | constants | sizes | options, tile)


def memory_cases(arch: str) -> list[Case]:
    """The kernels that read products from memory."""
    tile = tile_for("contrast_scores", arch, 4, "any")
    names = ("row_max", "row_sum", "positive_score", "column_max", "column_sum")
    pointers = {f"{name}_ptr": "*fp32" for name in ("scores", "temperature", *names)}
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m}
    kernel = contrast_score_statistics._contrast_scores_kernel
    found = [_case(kernel, arch, pointers, _OPTIONS | sizes, tile, {"stride_n"})]
    for element, itemsize in ITEMSIZE.items():
        tile = tile_for("contrast_weights", arch, itemsize, "any")
        names = ("scores", "temperature", "row_max", "row_scale", "column_max", "column_scale")
        pointers = {f"{name}_ptr": "*fp32" for name in names} | {"weights_ptr": f"*{element}"}
        sizes = {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m}
        kernel = weights._contrast_weights_kernel
        found.append(_case(kernel, arch, pointers, _OPTIONS | sizes, tile, {"stride_n"}))
    return found


def row_cases(arch: str) -> list[Case]:
    """The kernels of one pass over rows: statistics to losses and weights, sums to gradients."""
    names = ("max", "exp_sum", "positive_score", "column_max", "column_sum", "losses", "terms")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    sizes = {"BLOCK_P": contrast_row_losses._BLOCK_P, "BLOCK_N": contrast_row_losses._BLOCK_N}
    kernel, tile = contrast_row_losses._contrast_row_losses_kernel, Tile(1, 4)
    found = [
        _case(kernel, arch, pointers, {"FORM": form, "SAME_ROWS": same_rows} | sizes, tile, {"N"})
        for form, same_rows in (("softmax", False), ("softmax", True), ("sigmoid", False))
    ]
    given = pointers | {"index_ptr": "*i64"}
    found += [
        _case(kernel, arch, given, {"FORM": "softmax", "SAME_ROWS": same_rows} | sizes, tile, {"N"})
        for same_rows in (False, True)
    ]
    names = ("sums", "part_max", "max", "scale", "weight", "second_weight", "temperature")
    names = (*names, "out", "dots")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    pointers |= {"features_ptr": "*bf16", "positive_ptr": "*bf16"}
    sizes = {
        "BLOCK_N": contrast_input_gradients._BLOCK_N,
        "BLOCK_D": contrast_input_gradients._BLOCK_D,
    }
    shares = {"MUTUAL": False, "SHARE": 1.0, "POSITIVE_SHARE": 1.0}
    kernel = contrast_input_gradients._contrast_input_gradients_kernel
    aligned = _STRIDES | {"stride_features", "stride_positive"}
    found += [
        _case(kernel, arch, taken, shares | sizes, tile, aligned)
        for taken in (pointers, pointers | {"index_ptr": "*i64"})
    ]
    return [*found, *_factor_cases(arch)]


def _factor_cases(arch: str) -> list[Case]:
    """The factors of the common exponential, for both shifts."""
    names = [f"{side}_{x}" for side in ("row", "column") for x in ("max", "scale", "factor")]
    pointers = {f"{name}_ptr": "*fp32" for name in (*names, "reference")}
    kernel, block = shared_exponent._contrast_factors_kernel, shared_exponent._BLOCK
    return [
        _case(kernel, arch, pointers, {"SHIFT": shift, "BLOCK": block}, Tile(1, 16), {"R"})
        for shift in (0.0, shared_exponent.SHIFT_FP16.value)
    ]


def _statistics(element: str) -> tuple[Any, dict[str, str], dict[str, Any]]:
    names = ("temperature", "row_max", "row_sum", "positive_score", "column_max", "column_sum")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    pointers |= {"query_ptr": element, "key_ptr": element}
    return contrast_statistics._contrast_statistics_kernel, pointers, {"TRIANGLE": False}


def _gradient(element: str) -> tuple[Any, dict[str, str], dict[str, Any]]:
    names = ("temperature", "row_max", "row_scale", "column_max", "column_scale", "out")
    names = (*names, "row_factor", "column_factor", "reference")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    pointers |= {"row_ptr": element, "column_ptr": element}
    return contrast_gradient._contrast_gradient_kernel, pointers, {"ROWS_ARE_KEYS": False}


def _one_pass(element: str) -> tuple[Any, dict[str, str], dict[str, Any]]:
    names = ("temperature", "max", "exp_sum", "positive_score", "weighted_keys")
    pointers = {f"{name}_ptr": "*fp32" for name in names}
    pointers |= {"query_ptr": element, "key_ptr": element}
    return contrast_one_pass._contrast_one_pass_kernel, pointers, {}


def _case(
    kernel: Any,
    arch: str,
    pointers: Mapping[str, str],
    constants: Mapping[str, Any],
    tile: Any,
    aligned: set[str] | frozenset[str] = _STRIDES,
) -> Case:
    return Case(
        kernel,
        arch,
        pointers,
        constants,
        tile.num_warps,
        {
            "num_stages": tile.num_stages,
            "enable_fp_fusion": True,
            "maxnreg": tile.registers,
        },
        frozenset(aligned),
    )


DOTS = ("contrast_statistics", "contrast_gradient", "contrast_one_pass")
# About a CPU second each: every width for one architecture, the extremes for the others.
_MIDDLE = [dot_case(k, arch, "bf16", 128) for k in DOTS for arch in ("sm_80", "sm_100")]
TENSOR_CASES = [
    *(dot_case(k, arch, "bf16", d) for k in DOTS for arch in ARCHS for d in (64, 256)),
    *(dot_case(k, "sm_90", "bf16", 128) for k in DOTS),
    # Labels are one more 64-bit number a row and a column, where registers are scarcest.
    dot_case("contrast_one_pass", "sm_90", "bf16", 256, labels=True, POSITIVE="none"),
    dot_case("contrast_gradient", "sm_90", "bf16", 256, labels=True, ROWS_ARE_KEYS=True),
    # The longest epilogue, and the loop that starts at the diagonal.
    dot_case("contrast_statistics", "sm_90", "bf16", 64, SIGMOID=True),
    dot_case("contrast_statistics", "sm_90", "bf16", 128, TRIANGLE=True),
    dot_case("contrast_statistics", "sm_90", "bf16", 128, labels=True),
]
# float32 has no tensor cores: one architecture's arithmetic is another's. The rest is slow.
PLAIN_CASES = [
    *(dot_case(k, "sm_90", "fp32", 64) for k in DOTS),
    *(case for arch in ("sm_80", "sm_100") for case in memory_cases(arch)),
    *row_cases("sm_90"),
]
SLOW_CASES = [
    *_MIDDLE,
    *(dot_case(k, arch, "fp32", d) for k in DOTS for arch in ARCHS for d in WIDTHS["fp32"]),
    *(
        dot_case(k, arch, "bf16", d, **options)
        for options in (
            {"SIGMOID": True},
            {"labels": True, "POSITIVE": "index", "EXCLUDE_SELF": True},
        )
        for k in DOTS
        for arch in ARCHS
        for d in WIDTHS["bf16"]
    ),
    *memory_cases("sm_90"),
    *(case for arch in ("sm_80", "sm_100") for case in row_cases(arch)),
]
