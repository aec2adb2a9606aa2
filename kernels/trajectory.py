"""Complete training runs in coefficient space, one run per program: all epochs in one launch.

    H = act(Z)                      features of the samples (and of their views), [m, n]
    L = mean_i -log( e^(s_ii) / (e^(s_ii) + sum_j e^(s_ij)) ),  s = H^T H' / (m tau), y_j != y_i
    C = -eta dL/dA,  A <- A + C,  Z <- Z + C K          (equations (6)-(11), (18) of the paper)

K holds the inner products of the noise patches (and views) with the columns [xi_1 .. xi_n, mu]
that weights are combinations of, A the coefficients: what `csrc/core/trajectory.h` computes.
Samples are sorted by label, so scores are one block between the labels. Single-modal, it serves the
queries of both; multi-modal there are two blocks, and each serves both directions.

Each label's samples are padded to whole blocks with rows and columns of zeros, which stay zero:
act'(0) = 0. Two kernels: where each label and the neurons fit into a block and products use matrix
units, all state stays in registers (`trajectory_resident.py`); otherwise it is in memory, block by
block (`trajectory_blocks.py`). Which one takes a run is a matter of that run alone.

Numerics contract: float32. Precision "ieee": products are chains of float32 multiply-adds. "tf32x3"
sums three products of halves and "tf32" takes one product of factors rounded to 11 bits; both use
matrix units. exp is the hardware's, relative error 2^-22 and 2^-24 of its argument's size; a loss
near 0 keeps its relative accuracy, and no temperature overflows. What is not finite shows in the
loss. Deterministic, without atomics; a run does not depend on the others of the launch.

Cost of an epoch: 2 m (2 n (n + 1) + 3 n^2 / 4) flop single-modal, 2 m (2 n (n + 1) + 3 n^2 / 2)
multi-modal, and what padding adds; four exponentials for each score between the labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton

from mmcl_fast.kernels._tiles import INTERPRETER, PRECISIONS, Tile, arch_of, tile_for
from mmcl_fast.kernels.sizes import MAX_NEURONS, MAX_SAMPLES
from mmcl_fast.kernels.trajectory_blocks import _trajectory_blocks_kernel
from mmcl_fast.kernels.trajectory_whole import _trajectory_whole_kernel

# Left to itself ptxas spills a little to fit more threads on a multiprocessor.
LAUNCH_OPTIONS = {"maxnreg": 255, "enable_fp_fusion": True}
WHOLE_ROWS = (16, 32, 64)  # neurons, padded: four blocks of 64 x 64 and two sums in registers


@dataclass(frozen=True)
class Layout:
    """How the samples and neurons of a run are padded.

    Attributes:
        n: Samples.
        m: Neurons.
        slots: S, of a run's samples: those of label +1 from 0, those of label -1 from `split` on.
        rows: M, neurons with padding.
        tile: Sizes of blocks.
    """

    n: int
    m: int
    slots: int
    rows: int
    tile: Tile

    @classmethod
    def of(cls, n: int, m: int, precision: str, like: torch.Tensor) -> Layout:
        """For runs of a size, on the device of `like`.

        Raises: ValueError: The size or precision is none of this kernel.
        """
        for name, size, most in (("n", n, MAX_SAMPLES), ("m", m, MAX_NEURONS)):
            if not 1 <= size <= most:
                raise ValueError(f"{name}: expected 1..{most}, got {size}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision}")
        arch = arch_of(_trajectory_blocks_kernel, like)
        tile = tile_for("trajectory", arch, 4, precision)
        if arch != INTERPRETER:
            tile = small_tile(n, m, tile, roomy=precision != "ieee")
        return cls.in_blocks(n, m, tile)

    @classmethod
    def in_blocks(cls, n: int, m: int, tile: Tile) -> Layout:
        """With blocks of a tile."""
        slots = (triton.cdiv(n, tile.block_n) + 1) * tile.block_n  # each label has a last block
        return cls(n, m, slots, triton.cdiv(m, tile.block_m) * tile.block_m, tile)

    def split(self, positives: int) -> int:
        """The slot of the first sample of label -1."""
        return int(triton.cdiv(positives, self.tile.block_n)) * self.tile.block_n

    def fits_a_block(self, positives: int, precision: str) -> bool:
        """Whether a run's state is held in registers: a block for each label, one of neurons."""
        if precision == "ieee" or self.rows not in WHOLE_ROWS:
            return False
        return 1 <= positives <= self.tile.block_n and self.n - positives <= self.tile.block_n


def small_tile(n: int, m: int, tile: Tile, *, roomy: bool) -> Tile:
    """A tile that pads small runs less; matrix units take no less than 16.

    Roomy: a label's samples exceed a block in less than one of 100 runs of random labels.
    """
    wanted = math.ceil(n / 2 + 1.4 * math.sqrt(n)) if roomy else triton.next_power_of_2(n) // 2
    block_n = min(tile.block_n, max(16, triton.next_power_of_2(wanted)))
    block_m = min(tile.block_m, max(16, triton.next_power_of_2(m)))
    block_k = min(tile.block_k, block_n, block_m)
    return Tile(block_n, tile.num_warps, block_m, tile.num_stages, block_k)


@dataclass(frozen=True)
class Trajectories:
    """R runs, contiguous float32 on one device; A = 2 modalities, or 1.

    Columns v of a modality's vectors: V = S slots of samples, and with A = 1 S slots of views. What
    belongs to no sample or neuron is zero.

    Attributes:
        layout: Padding.
        gram: Inner products of samples and vectors, [R, A, S, V].
        along_mu: Those of mu and vectors, [R, A, V].
        norm: |mu|^2, [R, A].
        z: Pre-activations <w_r, v>, [R, A, M, V]; trained in place.
        signal: <w_r, mu>, [R, A, M]; trained in place.
        moved: Coefficients of the samples, [R, A, M, S]; trained in place.
        moved_signal: Coefficients of mu, [R, A, M]; trained in place.
        positives: Samples of label +1, [R], int32.
        in_one_block: Indices of the runs that `Layout.fits_a_block`, int32.
        in_blocks: Those of the others, int32.
        tau: Temperature, [R].
        eta: Learning rate, [R].
    """

    layout: Layout
    gram: torch.Tensor
    along_mu: torch.Tensor
    norm: torch.Tensor
    z: torch.Tensor
    signal: torch.Tensor
    moved: torch.Tensor
    moved_signal: torch.Tensor
    positives: torch.Tensor
    in_one_block: torch.Tensor
    in_blocks: torch.Tensor
    tau: torch.Tensor
    eta: torch.Tensor


def trajectory_fwd(
    runs: Trajectories, epochs: int, *, q: int, precision: str = "ieee", update: bool = True
) -> torch.Tensor:
    """Trains runs by full-batch gradient descent, and measures before each update.

    Args:
        runs: State, changed in place, and what it is trained with.
        epochs: Updates, >= 1.
        q: Power of the activation, >= 1.
        precision: Of matrix products: ieee | tf32x3 | tf32.
        update: False measures once (`epochs` is 1 then) and changes nothing.

    Returns: Loss, signal max_r |<w_r, mu>| and noise max_{r,i} <w_r, xi_i>, [3, R, epochs].
    Raises: ValueError (sizes, layout, precision), TypeError (dtype); nothing is trained then.
    """
    _check(runs, epochs, q, precision)
    layout, (count, sides) = runs.layout, runs.norm.shape
    curves = runs.z.new_empty(3, count, epochs)
    scale = 1.0 / (layout.m * runs.tau)
    constants = {
        "n": layout.n,
        "neurons": layout.m,
        "epochs": epochs,
        "count": count,
        "S": layout.slots,
        "stride": runs.z.shape[3],
        "SIDES": sides,
        "Q": q,
        "PRECISION": precision,
        "BLOCK_N": layout.tile.block_n,
    }
    arrays = (
        *(runs.gram, runs.along_mu, runs.norm, runs.z, runs.signal, runs.moved, runs.moved_signal),
        *(runs.positives, scale, runs.eta * (scale / layout.n)),
    )
    with torch.cuda.device_of(runs.z):
        if len(runs.in_one_block):
            _launch_whole(runs, arrays, curves, constants, update=update)
        if len(runs.in_blocks):
            _launch_blocks(runs, arrays, curves, constants, update=update)
    return curves


def _launch_whole(
    runs: Trajectories,
    arrays: tuple[torch.Tensor, ...],
    curves: torch.Tensor,
    constants: dict[str, Any],
    *,
    update: bool,
) -> None:
    layout, sides = runs.layout, constants["SIDES"]
    M, N = layout.rows, layout.tile.block_n
    tile = tile_for(
        "trajectory_whole",
        arch_of(_trajectory_whole_kernel, runs.z),
        4,
        constants["PRECISION"],
    )
    held = sides * (2 * M * N + 2 * N * N + 4 * N + M)
    work = runs.z.new_empty(len(runs.in_one_block), triton.cdiv(held, 16) * 16)
    _trajectory_whole_kernel[(len(runs.in_one_block),)](
        runs.in_one_block,
        *arrays,
        work,
        curves,
        **constants,
        stride_work=work.shape[1],
        UPDATE=update,
        BLOCK_M=M,
        BLOCK_R=min(tile.block_m, M),
        BLOCK_K=min(tile.block_k, M, N),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **LAUNCH_OPTIONS,
    )


def _launch_blocks(
    runs: Trajectories,
    arrays: tuple[torch.Tensor, ...],
    curves: torch.Tensor,
    constants: dict[str, Any],
    *,
    update: bool,
) -> None:
    layout, sides = runs.layout, constants["SIDES"]
    S, M, tile = layout.slots, layout.rows, layout.tile
    held = sides * (M * S + M + S * S + 4 * S + 2)
    # Wide loads need aligned rows.
    work = runs.z.new_empty(len(runs.in_blocks), triton.cdiv(held, 16) * 16)
    _trajectory_blocks_kernel[(len(runs.in_blocks),)](
        runs.in_blocks,
        *arrays,
        work,
        curves,
        **constants,
        update=int(update),
        M=M,
        stride_work=work.shape[1],
        BLOCK_M=tile.block_m,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **LAUNCH_OPTIONS,
    )


def _check(runs: Trajectories, epochs: int, q: int, precision: str) -> None:
    layout, (count, sides) = runs.layout, runs.norm.shape
    S, M = layout.slots, layout.rows
    V = S * (3 - sides)
    if layout != Layout.in_blocks(layout.n, layout.m, layout.tile) or precision not in PRECISIONS:
        raise ValueError(f"layout, precision: expected what Layout.of takes, got {layout}")
    if epochs < 1 or q < 1:
        raise ValueError(f"epochs, q: expected at least 1 each, got {epochs} and {q}")
    shapes = {
        "gram": (count, sides, S, V),
        "along_mu": (count, sides, V),
        "norm": (count, sides),
        "z": (count, sides, M, V),
        "signal": (count, sides, M),
        "moved": (count, sides, M, S),
        "moved_signal": (count, sides, M),
        "positives": (count,),
        "in_one_block": (len(runs.in_one_block),),
        "in_blocks": (count - len(runs.in_one_block),),
        "tau": (count,),
        "eta": (count,),
    }
    for name, shape in shapes.items():
        x = getattr(runs, name)
        if tuple(x.shape) != shape or not x.is_contiguous() or x.device != runs.z.device:
            raise ValueError(
                f"{name}: expected contiguous {list(shape)} on {runs.z.device}, "
                f"got {list(x.shape)} on {x.device}"
            )
        expected = torch.int32 if name in _INDICES else torch.float32
        if x.dtype != expected:
            raise TypeError(f"{name}: expected {expected}, got {x.dtype}")


_INDICES = ("positives", "in_one_block", "in_blocks")

__all__ = ["Layout", "Trajectories", "trajectory_fwd"]
