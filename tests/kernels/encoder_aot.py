"""Which binaries of the encoder kernels are compiled for GPUs that are not here."""

from __future__ import annotations

from typing import Any

from mmcl_fast.kernels import encoder
from mmcl_fast.kernels._tiles import ARCHS, tile_for

from .aot import Case

ITEMSIZE = {"bf16": 2, "fp32": 4}
_ALIGNED = frozenset({"D", "stride_xn", "stride_wm", "stride_hn", "stride_gn"})


def forward_case(arch: str, element: str, **constants: Any) -> Case:
    tile = tile_for("encoder_fwd", arch, ITEMSIZE[element], "any")
    pointers = {f"{name}_ptr": f"*{element}" for name in "xwh"}
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_M": tile.block_m, "BLOCK_K": tile.block_k}
    return _case(encoder._encoder_fwd_kernel, arch, pointers, sizes | constants, tile)


def backward_case(arch: str, element: str, *, signal: bool = True, **constants: Any) -> Case:
    tile = tile_for("encoder_bwd", arch, ITEMSIZE[element], "any")
    pointers = {f"{name}_ptr": f"*{element}" for name in "xh"}
    pointers |= {"g_ptr": "*fp32", "out_ptr": "*fp32"}
    if signal:
        pointers |= {"mu_ptr": f"*{element}", "signal_ptr": "*fp32", "signal_g_ptr": "*fp32"}
    sizes = {"BLOCK_M": tile.block_m, "BLOCK_D": tile.block_n, "BLOCK_K": tile.block_k}
    return _case(encoder._encoder_bwd_kernel, arch, pointers, sizes | constants, tile)


def signal_case(arch: str, element: str) -> Case:
    tile = tile_for("encoder_signal", arch, ITEMSIZE[element], "any")
    pointers = {"w_ptr": f"*{element}", "mu_ptr": f"*{element}", "out_ptr": "*fp32"}
    sizes = {"BLOCK_M": tile.block_m, "BLOCK_K": tile.block_k, "Q": 1}
    options = {"num_stages": tile.num_stages, **encoder.LAUNCH_OPTIONS}
    return Case(
        encoder._encoder_signal_kernel, arch, pointers, sizes, tile.num_warps, options, _ALIGNED
    )


def _case(
    kernel: Any, arch: str, pointers: dict[str, str], sizes: dict[str, Any], tile: Any
) -> Case:
    constants = {"Q": 1, "PRECISION": "ieee", "GROUP": encoder.GROUP} | sizes
    options = {"num_stages": tile.num_stages, **encoder.LAUNCH_OPTIONS}
    return Case(kernel, arch, pointers, constants, tile.num_warps, options, _ALIGNED)


MATRIX_CASES = [
    *(make(arch, "bf16") for make in (forward_case, backward_case) for arch in ARCHS),
    backward_case("sm_90", "bf16", Q=3),  # act' of a cubic takes most registers
]
PLAIN_CASES = [
    forward_case("sm_90", "fp32"),
    backward_case("sm_90", "fp32", Q=2),
    *(signal_case(arch, "bf16") for arch in ARCHS),
]
SLOW_CASES = [
    *(
        make(arch, element, Q=q)
        for make in (forward_case, backward_case)
        for arch in ARCHS
        for element in ITEMSIZE
        for q in (1, 2, 3)
    ),
    *(
        make(arch, "fp32", PRECISION=precision)
        for make in (forward_case, backward_case)
        for arch in ARCHS
        for precision in ("tf32", "tf32x3")
    ),
    *(backward_case(arch, "bf16", signal=False) for arch in ARCHS),
]
