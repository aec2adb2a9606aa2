"""Complete training runs in coefficient space, one run per program: all epochs in one launch.

    H = act(Z)                      features of the samples (and of their views), [m, n]
    L = mean_i -log( e^(s_ii) / (e^(s_ii) + sum_j e^(s_ij)) ),  s = H^T H' / (m tau), y_j != y_i
    C = -eta dL/dA,  A <- A + C,  Z <- Z + C K          (equations (6)-(11), (18) of the paper)

K holds the inner products of the noise patches (and views) with the columns [xi_1 .. xi_n, mu]
that weights are combinations of, A the coefficients: what `csrc/core/trajectory.h` computes.
Samples are sorted by label, so scores are one block between the labels. Single-modal, it serves the
queries of both; multi-modal there are two blocks, and each serves both directions.

A program keeps only scalars in registers from one step to the next: Z, coefficients, C and scores
are in its own memory, some 160 to 260 KiB at the paper's size, in the caches as far as they
reach, and so are its inner products. Steps are separated by barriers (`trajectory_steps.py`). Each
label's samples are padded to whole blocks with rows and columns of zeros, which stay zero:
act'(0) = 0.

Numerics contract: float32. Precision "ieee": products are chains of float32 multiply-adds. "tf32x3"
sums three products of halves and "tf32" takes one product of factors rounded to 11 bits; both use
matrix units. exp is the hardware's, relative error 2^-22 and 2^-24 of its argument's size; a loss
near 0 keeps its relative accuracy, and no temperature overflows. What is not finite shows in the
loss. Deterministic, without atomics; a run does not depend on the others of the launch.

Cost of an epoch: 2 m (2 n (n + 1) + 3 n^2 / 4) flop single-modal, 2 m (2 n (n + 1) + 3 n^2 / 2)
multi-modal, and what padding adds; four exponentials for each score between the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import INTERPRETER, PRECISIONS, Tile, arch_of, tile_for
from mmcl_fast.kernels.trajectory_limits import MAX_NEURONS, MAX_SAMPLES
from mmcl_fast.kernels.trajectory_steps import (
    change_queries,
    change_signal,
    match_positives,
    score_columns,
    score_rows,
    update_preactivations,
    update_signal,
)

# Left to itself ptxas spills a little to fit more threads on a multiprocessor.
LAUNCH_OPTIONS = {"maxnreg": 255, "enable_fp_fusion": True}


@triton.jit(do_not_specialize=["n", "neurons", "epochs", "update"])
def _trajectory_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    order_ptr,
    gram_ptr,
    along_mu_ptr,
    norm_ptr,
    z_ptr,
    signal_ptr,
    coefficients_ptr,
    signal_coefficients_ptr,
    positives_ptr,
    scale_ptr,
    weight_ptr,
    work_ptr,
    curves_ptr,
    n: tl.int32,
    neurons: tl.int32,
    epochs: tl.int32,
    update: tl.int32,
    M: tl.int32,
    S: tl.int32,
    stride: tl.int32,
    stride_work: tl.int64,
    SIDES: tl.constexpr,
    Q: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: one run."""
    run = tl.load(order_ptr + tl.program_id(0).to(tl.int64)).to(tl.int64)
    # Distances between modalities; 64 bits, as all distances in memory.
    of_gram, of_vectors, of_z = (
        S.to(tl.int64) * stride,
        stride.to(tl.int64),
        M.to(tl.int64) * stride,
    )
    of_neurons, of_coeffs, of_scores = M.to(tl.int64), M.to(tl.int64) * S, S.to(tl.int64) * S // 4
    of_views, of_statistics = S.to(tl.int64) * (2 - SIDES), S.to(tl.int64) * 4
    gram, along_mu = gram_ptr + run * SIDES * of_gram, along_mu_ptr + run * SIDES * of_vectors
    signal = signal_ptr + run * SIDES * of_neurons
    z, coefficients = z_ptr + run * SIDES * of_z, coefficients_ptr + run * SIDES * of_coeffs
    signal_coefficients = signal_coefficients_ptr + run * SIDES * of_neurons
    change = work_ptr + run * stride_work  # [SIDES, M, S]
    changed_signal = change + SIDES * of_coeffs  # [SIDES, M]
    scores = changed_signal + SIDES * of_neurons  # [SIDES, label +1, label -1], <= S^2 / 4
    transposed = scores + SIDES * of_scores  # [SIDES, label -1, label +1]
    statistics = transposed + SIDES * of_scores  # [SIDES, 4, S]: positive, max, weights
    one_minus_p_sum = statistics + SIDES * of_statistics  # [SIDES, 2], summed by label
    two = tl.full([], 2, tl.int64)
    curves = curves_ptr + run * epochs
    curve = tl.num_programs(0).to(tl.int64) * epochs

    positives = tl.load(positives_ptr + run)
    negatives = n - positives
    split = (positives + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    slots = split + (negatives + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    scale, weight = tl.load(scale_ptr + run), tl.load(weight_ptr + run)
    for t in range(epochs):
        for a in range(SIDES):
            most_signal, most_noise = match_positives(
                z + a * of_z, z + (SIDES - 1 - a) * of_z + of_views, signal + a * of_neurons,
                signal + (SIDES - 1 - a) * of_neurons, statistics + a * of_statistics, scale,
                positives, negatives, slots, split, neurons, stride, M, Q, BLOCK_M, BLOCK_N,
            )  # fmt: skip
            if a == 0:
                tl.store(curves + (curve + t), most_signal)
                tl.store(curves + (2 * curve + t), most_noise)
        tl.debug_barrier()
        loss = 0.0
        for a in range(SIDES):
            block_loss, one_minus_p = score_rows(
                z + a * of_z, z + (SIDES - 1 - a) * of_z, statistics + a * of_statistics,
                scores + a * of_scores, transposed + a * of_scores, scale, weight, positives,
                negatives, slots, split, stride, M, S, Q, PRECISION, BLOCK_N, BLOCK_K,
            )  # fmt: skip
            loss += block_loss
            tl.store(one_minus_p_sum + a * two, one_minus_p)
        tl.debug_barrier()
        for a in range(SIDES):
            block_loss, one_minus_p = score_columns(
                statistics + a * of_statistics, transposed + (SIDES - 1 - a) * of_scores, weight,
                positives, negatives, slots, split, S, BLOCK_N,
            )  # fmt: skip
            loss += block_loss
            tl.store(one_minus_p_sum + (a * two + 1), one_minus_p)
        tl.store(curves + tl.cast(t, tl.int64), loss / n)
        tl.debug_barrier()
        if update != 0:
            for a in range(SIDES):
                for label in tl.static_range(2):
                    b = SIDES - 1 - a
                    change_queries(
                        z + a * of_z, z + b * of_z, z + b * of_z + of_views,
                        statistics + a * of_statistics,
                        transposed + a * of_scores if label == 0 else scores + b * of_scores,
                        change + a * of_coeffs, coefficients + a * of_coeffs,
                        0 if label == 0 else split, split if label == 0 else slots,
                        split if label == 0 else 0, negatives if label == 0 else positives,
                        stride, M, S, Q, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
                    )  # fmt: skip
                change_signal(
                    signal + a * of_neurons, signal + (SIDES - 1 - a) * of_neurons,
                    changed_signal + a * of_neurons, signal_coefficients + a * of_neurons,
                    one_minus_p_sum + a * two, one_minus_p_sum + (a * two + 1), M, Q, BLOCK_M,
                )  # fmt: skip
            tl.debug_barrier()
            for a in range(SIDES):
                # Single-modal, each block of samples and that of their views; else two of samples.
                update_preactivations(
                    z + a * of_z, gram + a * of_gram, along_mu + a * of_vectors,
                    change + a * of_coeffs, changed_signal + a * of_neurons,
                    S if SIDES == 1 else BLOCK_N, BLOCK_N * SIDES, positives, negatives, slots,
                    split, stride, M, S, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
                )  # fmt: skip
                norm = tl.load(norm_ptr + (run * SIDES + a))
                update_signal(
                    signal + a * of_neurons, along_mu + a * of_vectors, norm,
                    change + a * of_coeffs, changed_signal + a * of_neurons, slots, M, S,
                    BLOCK_M, BLOCK_N,
                )  # fmt: skip
            tl.debug_barrier()


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
        arch = arch_of(_trajectory_kernel, like)
        tile = tile_for("trajectory", arch, 4, precision)
        return cls.in_blocks(n, m, tile if arch == INTERPRETER else small_tile(n, m, tile))

    @classmethod
    def in_blocks(cls, n: int, m: int, tile: Tile) -> Layout:
        """With blocks of a tile."""
        blocks = triton.cdiv(n, tile.block_n) + 1  # each label has a last one
        slots = (blocks + blocks % 2) * tile.block_n  # steps take two at a time
        return cls(n, m, slots, triton.cdiv(m, tile.block_m) * tile.block_m, tile)

    def split(self, positives: int) -> int:
        """The slot of the first sample of label -1."""
        return int(triton.cdiv(positives, self.tile.block_n)) * self.tile.block_n


def small_tile(n: int, m: int, tile: Tile) -> Tile:
    """A tile that pads small runs less; matrix units take no less than 16."""
    block_n = min(tile.block_n, max(16, triton.next_power_of_2(n) // 2))
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
        order: The runs, those that take longest first, [R], int32: the last to begin is short.
        gram: Inner products of samples and vectors, [R, A, S, V].
        along_mu: Those of mu and vectors, [R, A, V].
        norm: |mu|^2, [R, A].
        z: Pre-activations <w_r, v>, [R, A, M, V]; trained in place.
        signal: <w_r, mu>, [R, A, M]; trained in place.
        moved: Coefficients of the samples, [R, A, M, S]; trained in place.
        moved_signal: Coefficients of mu, [R, A, M]; trained in place.
        positives: Samples of label +1, [R], int32.
        tau: Temperature, [R].
        eta: Learning rate, [R].
    """

    layout: Layout
    order: torch.Tensor
    gram: torch.Tensor
    along_mu: torch.Tensor
    norm: torch.Tensor
    z: torch.Tensor
    signal: torch.Tensor
    moved: torch.Tensor
    moved_signal: torch.Tensor
    positives: torch.Tensor
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
    S, M, tile = layout.slots, layout.rows, layout.tile
    curves = runs.z.new_empty(3, count, epochs)
    held = sides * (M * S + M + S * S // 2 + 4 * S + 2)
    work = runs.z.new_empty(count, triton.cdiv(held, 16) * 16)  # wide loads need aligned rows
    scale = 1.0 / (layout.m * runs.tau)
    weight = runs.eta * (scale / layout.n)
    with torch.cuda.device_of(runs.z):
        _trajectory_kernel[(count,)](
            order_ptr=runs.order,
            gram_ptr=runs.gram,
            along_mu_ptr=runs.along_mu,
            norm_ptr=runs.norm,
            z_ptr=runs.z,
            signal_ptr=runs.signal,
            coefficients_ptr=runs.moved,
            signal_coefficients_ptr=runs.moved_signal,
            positives_ptr=runs.positives,
            scale_ptr=scale,
            weight_ptr=weight,
            work_ptr=work,
            curves_ptr=curves,
            n=layout.n,
            neurons=layout.m,
            epochs=epochs,
            update=int(update),
            M=M,
            S=S,
            stride=runs.z.shape[3],
            stride_work=work.shape[1],
            SIDES=sides,
            Q=q,
            PRECISION=precision,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **LAUNCH_OPTIONS,
        )
    return curves


def _check(runs: Trajectories, epochs: int, q: int, precision: str) -> None:
    layout, (count, sides) = runs.layout, runs.norm.shape
    S, M = layout.slots, layout.rows
    V = S * (3 - sides)
    if layout != Layout.in_blocks(layout.n, layout.m, layout.tile) or precision not in PRECISIONS:
        raise ValueError(f"layout, precision: expected what Layout.of takes, got {layout}")
    if epochs < 1 or q < 1:
        raise ValueError(f"epochs, q: expected at least 1 each, got {epochs} and {q}")
    shapes = {
        "order": (count,),
        "gram": (count, sides, S, V),
        "along_mu": (count, sides, V),
        "norm": (count, sides),
        "z": (count, sides, M, V),
        "signal": (count, sides, M),
        "moved": (count, sides, M, S),
        "moved_signal": (count, sides, M),
        "positives": (count,),
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
        expected = torch.int32 if name in ("order", "positives") else torch.float32
        if x.dtype != expected:
            raise TypeError(f"{name}: expected {expected}, got {x.dtype}")


__all__ = ["Layout", "Trajectories", "trajectory_fwd"]
