"""Whole runs of any size that `trajectory.py` takes: state in memory, steps between barriers.

A program keeps nothing from one step to the next in registers but scalars: Z, C and scores are a
few 10 KiB of memory of its own, which stay in the caches of its multiprocessor and in L2, and so do
its inner products. Steps are separated by barriers (`trajectory_steps.py`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmcl_fast.kernels.trajectory_steps import (
    change_queries,
    change_signal,
    match_positives,
    move,
    move_signal,
    score_columns,
    score_rows,
)


@triton.jit(do_not_specialize=["n", "neurons", "epochs", "update", "count"])
def _trajectory_blocks_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    chosen_ptr,
    gram_ptr,
    along_mu_ptr,
    norm_ptr,
    z_ptr,
    signal_ptr,
    moved_ptr,
    moved_signal_ptr,
    positives_ptr,
    scale_ptr,
    weight_ptr,
    work_ptr,
    curves_ptr,
    n: tl.int32,
    neurons: tl.int32,
    epochs: tl.int32,
    update: tl.int32,
    count: tl.int32,
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
    """One program: one of the chosen runs."""
    program = tl.program_id(0).to(tl.int64)
    run = tl.load(chosen_ptr + program).to(tl.int64)
    # Distances between modalities; 64 bits, as all distances in memory.
    of_gram, of_vectors, of_z = (
        S.to(tl.int64) * stride,
        stride.to(tl.int64),
        M.to(tl.int64) * stride,
    )
    of_neurons, of_moved, of_scores = M.to(tl.int64), M.to(tl.int64) * S, S.to(tl.int64) * S
    of_views, of_statistics = S.to(tl.int64) * (2 - SIDES), S.to(tl.int64) * 4
    gram, along_mu = gram_ptr + run * SIDES * of_gram, along_mu_ptr + run * SIDES * of_vectors
    signal = signal_ptr + run * SIDES * of_neurons
    z, moved = z_ptr + run * SIDES * of_z, moved_ptr + run * SIDES * of_moved
    moved_signal = moved_signal_ptr + run * SIDES * of_neurons
    change = work_ptr + program * stride_work  # [SIDES, M, S]
    changed_signal = change + SIDES * of_moved  # [SIDES, M]
    scores = changed_signal + SIDES * of_neurons  # [SIDES, S, S]
    statistics = scores + SIDES * of_scores  # [SIDES, 4, S]: own, top, pull, push
    missing = statistics + SIDES * of_statistics  # [SIDES, 2]: push, summed by label
    two = tl.full([], 2, tl.int64)
    curves = curves_ptr + run * epochs
    curve = count.to(tl.int64) * epochs

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
            more, push = score_rows(
                z + a * of_z, z + (SIDES - 1 - a) * of_z, statistics + a * of_statistics,
                scores + a * of_scores, scale, weight, positives, negatives, slots, split, stride,
                M, S, Q, PRECISION, BLOCK_N, BLOCK_K,
            )  # fmt: skip
            loss += more
            tl.store(missing + a * two, push)
        tl.debug_barrier()
        for a in range(SIDES):
            more, push = score_columns(
                statistics + a * of_statistics, scores + (SIDES - 1 - a) * of_scores, weight,
                positives, negatives, slots, split, S, BLOCK_N,
            )  # fmt: skip
            loss += more
            tl.store(missing + (a * two + 1), push)
        tl.store(curves + tl.cast(t, tl.int64), loss / n)
        tl.debug_barrier()
        if update != 0:
            for a in range(SIDES):
                for label in tl.static_range(2):
                    change_queries(
                        z + a * of_z, z + (SIDES - 1 - a) * of_z,
                        z + (SIDES - 1 - a) * of_z + of_views, statistics + a * of_statistics,
                        scores + (a if label == 0 else SIDES - 1 - a) * of_scores,
                        change + a * of_moved, moved + a * of_moved,
                        0 if label == 0 else split, split if label == 0 else slots,
                        split if label == 0 else 0, slots if label == 0 else split,
                        stride, M, S, label == 0, Q, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
                    )  # fmt: skip
                change_signal(
                    signal + a * of_neurons, signal + (SIDES - 1 - a) * of_neurons,
                    changed_signal + a * of_neurons, moved_signal + a * of_neurons,
                    missing + a * two, missing + (a * two + 1), M, Q, BLOCK_M,
                )  # fmt: skip
            tl.debug_barrier()
            for a in range(SIDES):
                for views in range(3 - SIDES):
                    move(
                        z + a * of_z, gram + a * of_gram, along_mu + a * of_vectors,
                        change + a * of_moved, changed_signal + a * of_neurons, views * S, slots,
                        stride, M, S, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
                    )  # fmt: skip
                norm = tl.load(norm_ptr + (run * SIDES + a))
                move_signal(
                    signal + a * of_neurons, along_mu + a * of_vectors, norm, change + a * of_moved,
                    changed_signal + a * of_neurons, slots, M, S, BLOCK_M, BLOCK_N,
                )  # fmt: skip
            tl.debug_barrier()


__all__: list[str] = []
