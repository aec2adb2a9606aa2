"""Launch shapes of the kernels, as a table: nothing is tuned at run time.

Run-time autotuning would make the numbers vary from run to run, and Triton's autotuner needs a
GPU to time. The interpreter is one more `arch` row: it counts programs, not threads, so its tiles
are few and its `num_warps` is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
import triton

INTERPRETER = "interpreter"
PRECISIONS = ("ieee", "tf32x3", "tf32")  # of products of float32, as `tl.dot` names them


@dataclass(frozen=True)
class Tile:
    """One launch shape: sizes of a program's block and the warps that work on it."""

    block_n: int
    num_warps: int
    block_m: int = 1
    num_stages: int = 1
    block_k: int = 1  # of a product's sum at a time
    registers: int | None = None  # a thread's at most, for more programs at a time


_DOTS = ("contrast_statistics", "contrast_gradient", "contrast_one_pass")
# The contrastive kernels; a bin is how many features a program holds. Tiles of sm_90 in 16 bits and
# of what reads products from memory were measured on an H100: the quickest of several (timings not
# kept). Others are chosen so that blocks without masks spill nothing and two are in flight
# (`test_contrast_aot.py`).
_CONTRAST: dict[tuple[str, str, int, str | int], Tile] = {
    **{
        (kernel, INTERPRETER, itemsize, width): Tile(64, 1, 64)
        for kernel in _DOTS
        for itemsize, width in ((2, 64), (4, 32), (4, 64))
    },
    ("contrast_scores", INTERPRETER, 4, "any"): Tile(64, 1, 64),
    ("contrast_weights", INTERPRETER, 2, "any"): Tile(64, 1, 64),
    ("contrast_weights", INTERPRETER, 4, "any"): Tile(64, 1, 64),
    **{
        (kernel, arch, 2, width): Tile(128, 8, block_m, 2)
        for kernel in _DOTS
        for width in (64, 128, 256)
        for arch, block_m in (("sm_80", 64), ("sm_100", 32))
    },
    # With few registers two or three programs take turns at the matrix unit and the exponentials.
    ("contrast_statistics", "sm_90", 2, 64): Tile(64, 8, 128, 3, registers=128),
    ("contrast_statistics", "sm_90", 2, 128): Tile(128, 8, 64, 3, registers=128),
    ("contrast_statistics", "sm_90", 2, 256): Tile(128, 8, 64, 2),
    ("contrast_gradient", "sm_90", 2, 64): Tile(64, 4, 64, 3, registers=128),
    ("contrast_gradient", "sm_90", 2, 128): Tile(64, 4, 128, 2),
    ("contrast_gradient", "sm_90", 2, 256): Tile(64, 4, 64, 2),
    ("contrast_one_pass", "sm_90", 2, 64): Tile(64, 4, 64, 3, registers=168),
    ("contrast_one_pass", "sm_90", 2, 128): Tile(128, 8, 64, 3),
    ("contrast_one_pass", "sm_90", 2, 256): Tile(64, 4, 64, 2),
    # The matrix unit's rows are keys there, and it takes no fewer than 64.
    **{("contrast_statistics", "sm_100", 2, d): Tile(64, 8, 128, 2) for d in (64, 128, 256)},
    ("contrast_gradient", "sm_80", 2, 256): Tile(64, 8, 64, 2),
    ("contrast_one_pass", "sm_80", 2, 256): Tile(64, 8, 64, 2),
    **{(kernel, "sm_80", 4, width): Tile(32, 4, 32) for kernel in _DOTS for width in (32, 64)},
    **{("contrast_one_pass", "sm_80", 4, width): Tile(32, 8, 32) for width in (32, 64)},
    ("contrast_scores", "sm_80", 4, "any"): Tile(64, 4, 128),
    ("contrast_weights", "sm_80", 2, "any"): Tile(8, 4, 512),
    ("contrast_weights", "sm_80", 4, "any"): Tile(16, 4, 256),
    # Products with an epilogue: queries, keys, features at a time. None was tried on a GPU.
    **{
        (kernel, INTERPRETER, 2, "any"): Tile(32, 1, 32, 1, 32)
        for kernel in ("contrast_product_statistics", "contrast_product_weights")
    },
    **{
        (kernel, "sm_90", 2, "any"): Tile(128, 8, 128, 4, 64)
        for kernel in ("contrast_product_statistics", "contrast_product_weights")
    },
    # Squares; others were not tried on a GPU.
    ("contrast_small_batch", INTERPRETER, 4, "any"): Tile(32, 1),
    ("contrast_small_batch", "sm_80", 4, "any"): Tile(64, 8),
}
# Whole runs in one program: samples, neurons, summed at a time. The quickest of several on an H100
# (timings not kept) that spill nothing anywhere (`tests/kernels/test_trajectory_aot.py`). With four
# warps a thread's share is twice as large, and its code no longer fits the cache of instructions.
_TRAJECTORY: dict[tuple[str, str, int, str | int], Tile] = {
    **{("trajectory", INTERPRETER, 4, p): Tile(64, 1, 64, 1, 64) for p in PRECISIONS},
    **{("trajectory", "sm_80", 4, p): Tile(64, 8, 32, 1, 16) for p in PRECISIONS},
    ("trajectory", "sm_90", 4, "ieee"): Tile(64, 8, 64, 1, 16),
    ("trajectory", "sm_90", 4, "tf32"): Tile(64, 8, 64, 1, 32),
}
# Inner products of runs: rows, rows of the other factor, summed at a time. Of those that spill
# nothing the quickest on an H100 (its timing not kept; `python -m bench.gpu --tune` repeats it).
_PRODUCTS: dict[tuple[str, str, int, str | int], Tile] = {
    ("row_products", INTERPRETER, 4, "any"): Tile(64, 1, 64, 1, 64),
    ("row_products", "sm_80", 4, "any"): Tile(64, 4, 64, 3, 16),
}
# Both softmaxes of a block of scores in memory; measured on an H100, as the passes below (timings
# not kept).
_TWO_SIDED: dict[tuple[str, str, int, str | int], Tile] = {
    **{
        (kernel, INTERPRETER, 4, "any"): Tile(32, 1, 32)
        for kernel in ("two_sided_statistics", "two_sided_weights")
    },
    ("two_sided_statistics", "sm_80", 4, "any"): Tile(64, 4, 128),
    ("two_sided_weights", "sm_80", 4, "any"): Tile(16, 4, 128),
}
# Passes over rows of features; block_m is of features.
_ROWS: dict[tuple[str, str, int, str | int], Tile] = {
    **{
        (kernel, INTERPRETER, 4, "any"): Tile(32, 1, 32)
        for kernel in ("row_dots", "row_gradients", "rectify", "unrectify")
    },
    ("row_dots", "sm_80", 4, "any"): Tile(8, 4, 512),
    ("row_gradients", "sm_80", 4, "any"): Tile(16, 4, 256),
    ("rectify", "sm_80", 4, "any"): Tile(16, 4, 256),
    ("unrectify", "sm_80", 4, "any"): Tile(16, 4, 256),
}
# Features up to here are held by one program, longer ones go through matrix products in memory:
# (arch, bytes per element) -> features. As far as registers go: below about 490 features of 2 bytes
# the traffic of scores in memory would take an H100 longer than the products; 4 bytes have no
# matrix unit, and a library's products are faster than ours.
_FUSED = {
    (INTERPRETER, 2): 64,
    (INTERPRETER, 4): 64,
    ("sm_80", 2): 256,
    ("sm_80", 4): 64,
}

# (kernel, arch, bytes per element, bin of the kernel's own launcher) -> Tile.
# Normals: a thread has two to four Philox blocks in flight, and the integer divisions of the
# program index are spread over all of them. Other tiles were not tried on a GPU.
TILES: Mapping[tuple[str, str, int, str | int], Tile] = MappingProxyType(
    {
        ("normal_fill", INTERPRETER, 2, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", INTERPRETER, 2, "many"): Tile(block_n=4, num_warps=1),
        ("normal_fill", INTERPRETER, 4, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", INTERPRETER, 4, "many"): Tile(block_n=4, num_warps=1),
        ("normal_fill", INTERPRETER, 8, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", INTERPRETER, 8, "many"): Tile(block_n=4, num_warps=1),
        ("normal_fill", "sm_80", 2, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", "sm_80", 2, "many"): Tile(block_n=8, num_warps=4),
        ("normal_fill", "sm_80", 4, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", "sm_80", 4, "many"): Tile(block_n=8, num_warps=4),
        ("normal_fill", "sm_80", 8, "few"): Tile(block_n=1, num_warps=1),
        ("normal_fill", "sm_80", 8, "many"): Tile(block_n=4, num_warps=4),
        **_CONTRAST,
        **_TRAJECTORY,
        **_PRODUCTS,
        **_TWO_SIDED,
        **_ROWS,
    }
)
# An architecture without rows of its own runs the rows of the newest one before it.
ARCHS = ("sm_80", "sm_90", "sm_100")


def arch_of(kernel: object, tensor: torch.Tensor) -> str:
    """Row key of the machine that will run `kernel` on `tensor`.

    Raises: ValueError where it cannot run there, with the reason.
    """
    if not isinstance(kernel, triton.JITFunction):  # decorated under TRITON_INTERPRET=1
        return INTERPRETER
    if tensor.device.type != "cuda":
        raise ValueError(
            f"out: expected a CUDA tensor (CPU tensors need a process started with "
            f"TRITON_INTERPRET=1), got device {tensor.device}"
        )
    return _arch_of_device(tensor.device)


@cache
def _arch_of_device(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache  # the tables never change, and a launch should not search them
def tile_for(kernel: str, arch: str, itemsize: int, size_bin: str | int) -> Tile:
    """The tile of `kernel` on `arch`, or of the newest architecture before it that has rows."""
    archs = [key[1] for key in TILES if (key[0], *key[2:]) == (kernel, itemsize, size_bin)]
    return TILES[(kernel, _newest(kernel, arch, archs), itemsize, size_bin)]


@cache
def fused_features(arch: str, itemsize: int) -> int:
    """How many features a row may have for the kernels that hold whole rows."""
    return _FUSED[
        (_newest("contrast", arch, [a for a, size in _FUSED if size == itemsize]), itemsize)
    ]


def copies_tensors(arch: str) -> bool:
    """Whether the GPU copies blocks of a tensor by a descriptor on its own (or none is needed)."""
    return arch == INTERPRETER or int(arch.removeprefix("sm_")) >= 90


def cdiv(a: int, b: int) -> int:
    """Quotient rounded up, on the host: `triton.cdiv` takes as long as a small operation."""
    return -(-a // b)


def _newest(kernel: str, arch: str, archs: Iterable[str]) -> str:
    """`arch`, or the newest one before it among `archs`."""
    if arch == INTERPRETER:
        return arch
    number = int(arch.removeprefix("sm_"))
    numbers = [int(a.removeprefix("sm_")) for a in archs if a != INTERPRETER]
    if not (older := [n for n in numbers if n <= number]):
        raise ValueError(f"{kernel}: expected a GPU of sm_80 or later, got {arch}")
    return f"sm_{max(older)}"


__all__ = [
    "ARCHS",
    "INTERPRETER",
    "PRECISIONS",
    "TILES",
    "Tile",
    "arch_of",
    "cdiv",
    "copies_tensors",
    "fused_features",
    "tile_for",
]
