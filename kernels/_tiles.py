"""Launch shapes of the kernels, as a table: nothing is tuned at run time.

Run-time autotuning would make the numbers vary from run to run, and Triton's autotuner needs a
GPU to time. The interpreter is one more `arch` row: it counts programs, not threads, so its tiles
are few and its `num_warps` is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
import triton

INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Tile:
    """One launch shape: sizes of a program's block and the warps that work on it."""

    block_n: int
    num_warps: int


# (kernel, arch, bytes per output element, bin of the kernel's own launcher) -> Tile.
# Not yet measured: chosen so that a thread has two to four Philox blocks in flight and the integer
# divisions of the program index are spread over all of them.
TILES = MappingProxyType(
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
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return f"sm_{major}{minor}"


def tile_for(kernel: str, arch: str, itemsize: int, size_bin: str) -> Tile:
    """The tile of `kernel` on `arch`, or of the newest architecture before it that has rows."""
    if arch == INTERPRETER:
        return TILES[(kernel, arch, itemsize, size_bin)]
    number = int(arch.removeprefix("sm_"))
    known = [
        key
        for key in TILES
        if (key[0], key[2], key[3]) == (kernel, itemsize, size_bin)
        and key[1] != INTERPRETER
        and int(key[1].removeprefix("sm_")) <= number
    ]
    if not known:
        raise ValueError(f"{kernel}: expected a GPU of sm_80 or later, got {arch}")
    return TILES[max(known, key=lambda key: int(key[1].removeprefix("sm_")))]


__all__ = ["ARCHS", "INTERPRETER", "TILES", "Tile", "arch_of", "tile_for"]
