"""Runs of one block: what `trajectory_blocks.py` does, each step a product of whole blocks.

Where the samples of a label and the neurons fit into a block each, an epoch is three steps between
barriers: scores between the labels with both softmaxes, the change of coefficients of each label's
queries, and the move of each block of pre-activations. What a step leaves for the next is a few
blocks of memory of the program's own, which stay in the multiprocessor's cache.

    S = H+^T H-            multi-modal: one block for the queries of each direction's labels
    C = act'(Z) (push P - pull H' E),  E = e^(S - top)
    Z <- Z + C K

Blocks are visited by loops that are not unrolled: registers then hold one product at a time.

Numerics contract: that of `trajectory.py` for "tf32x3" and "tf32"; sums run over whole blocks, so
bits differ from those of `trajectory_blocks.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmcl_fast.kernels.trajectory_steps import (
    activation,
    settled,
    tile_at,
    times_slope,
    vector_at,
)


@triton.jit
def _softmax(scores, own, seen, valid, weight, AXIS: tl.constexpr):
    """Loss, terms e^(s - top), pull and push of queries along an axis; keys not `seen` count 0.

    Queries are rows of `scores` where AXIS is 1, columns where it is 0.
    """
    x = tl.where(tl.expand_dims(seen, 1 - AXIS), scores, float("-inf"))
    top = tl.maximum(own, tl.max(x, AXIS))
    terms = tl.exp(x - tl.expand_dims(top, AXIS))
    loss, pull, push = settled(own, top, tl.sum(terms, AXIS), weight)
    return tl.sum(tl.where(valid, loss, 0.0), 0), terms, pull, tl.where(valid, push, 0.0)


@triton.jit
def _gap(signal, Q: tl.constexpr):
    return activation(signal, Q) - activation(-signal, Q)


@triton.jit
def _keep(  # noqa: PLR0913  (inlined: no API)
    terms, pulls, pushes, at, e, pull, push, BLOCK_N: tl.constexpr
):
    """What the next step takes of the queries of a modality and label, the at-th."""
    tl.store(tile_at(terms, at * BLOCK_N, 0, BLOCK_N, BLOCK_N, BLOCK_N), e)
    tl.store(vector_at(pulls, at * BLOCK_N, BLOCK_N), pull)
    tl.store(vector_at(pushes, at * BLOCK_N, BLOCK_N), push)


@triton.jit
def _score(  # noqa: PLR0913  (inlined: no API)
    z, other, signal, other_signal, terms, pulls, pushes, at_rows, at_columns, plus, minus, scale,
    weight, views, stride, Q: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Scores of queries of label +1 in `z` with the keys of label -1 in `other`, which are queries
    too; sum of both sides' losses."""  # noqa: D205, D209
    s, k = tl.load(vector_at(signal, 0, BLOCK_M)), tl.load(vector_at(other_signal, 0, BLOCK_M))
    # The signal's part in the positive's score less that in the negatives'.
    first = tl.sum(activation(s, Q) * _gap(k, Q), 0)
    second = tl.sum(activation(-k, Q) * _gap(s, Q), 0)
    acc = tl.zeros([BLOCK_N, BLOCK_N], tl.float32)
    of_rows, of_columns = tl.zeros([BLOCK_N], tl.float32), tl.zeros([BLOCK_N], tl.float32)
    for r in range(0, BLOCK_M, BLOCK_K):
        x = activation(tl.load(tile_at(z, r, 0, stride, BLOCK_K, BLOCK_N)), Q)
        p = activation(tl.load(tile_at(other, r, views, stride, BLOCK_K, BLOCK_N)), Q)
        of_rows += tl.sum(x * p, 0)
        y = activation(tl.load(tile_at(other, r, BLOCK_N, stride, BLOCK_K, BLOCK_N)), Q)
        p = activation(tl.load(tile_at(z, r, views + BLOCK_N, stride, BLOCK_K, BLOCK_N)), Q)
        of_columns += tl.sum(y * p, 0)
        acc = tl.dot(tl.trans(x), y, acc, input_precision=PRECISION)
    scores = acc * scale
    own = (of_rows + first) * scale
    loss, e, pull, push = _softmax(scores, own, minus, plus, weight, 1)
    _keep(terms, pulls, pushes, at_rows, tl.trans(e), pull, push, BLOCK_N)
    own = (of_columns - second) * scale
    more, e, pull, push = _softmax(scores, own, plus, minus, weight, 0)
    _keep(terms, pulls, pushes, at_columns, e, pull, push, BLOCK_N)
    return loss + more


@triton.jit
def _change(  # noqa: PLR0913  (inlined: no API)
    z, keys, terms, pulls, pushes, change, moved, at, label, valid, neurons, views, stride, S,
    UPDATE: tl.constexpr, Q: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Minus eta times the gradient in the coefficients of a label's queries; returns max z."""
    pull = tl.load(vector_at(pulls, at * BLOCK_N, BLOCK_N))
    push = tl.load(vector_at(pushes, at * BLOCK_N, BLOCK_N))
    most = float("-inf")
    for r in range(0, BLOCK_M, BLOCK_R):
        x = tl.load(tile_at(z, r, label * BLOCK_N, stride, BLOCK_R, BLOCK_N))
        p = tl.load(tile_at(keys, r, views + label * BLOCK_N, stride, BLOCK_R, BLOCK_N))
        coefficients = tile_at(moved, r, label * BLOCK_N, S, BLOCK_R, BLOCK_N)
        if UPDATE:
            before = tl.load(coefficients, cache_modifier=".cg")
            acc = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
            for j in range(0, BLOCK_N, BLOCK_K):
                key = tl.load(tile_at(keys, r, (1 - label) * BLOCK_N + j, stride, BLOCK_R, BLOCK_K))
                e = tl.load(tile_at(terms, at * BLOCK_N + j, 0, BLOCK_N, BLOCK_K, BLOCK_N))
                acc = tl.dot(activation(key, Q), e, acc, input_precision=PRECISION)
            g = push[None, :] * activation(p, Q) - pull[None, :] * acc
            c = times_slope(g, x, Q)
            tl.store(tile_at(change, r, label * BLOCK_N, 2 * BLOCK_N, BLOCK_R, BLOCK_N), c)
            tl.store(coefficients, before + c)
        real = (r + tl.arange(0, BLOCK_R)) < neurons
        x = tl.where(real[:, None] & valid[None, :], x, float("-inf"))
        most = tl.maximum(most, tl.max(tl.max(x, 1), 0))
    return most


@triton.jit
def _change_signal(  # noqa: PLR0913  (inlined: no API)
    signal, other_signal, pushes, changed, moved, Q: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The same in the coefficient of mu."""
    s, k = tl.load(vector_at(signal, 0, BLOCK_M)), tl.load(vector_at(other_signal, 0, BLOCK_M))
    up = tl.sum(tl.load(vector_at(pushes, 0, BLOCK_N)), 0)
    down = tl.sum(tl.load(vector_at(pushes, BLOCK_N, BLOCK_N)), 0)
    gap = _gap(k, Q)
    c = times_slope(gap * up, s, Q) + times_slope(gap * down, -s, Q)
    tl.store(vector_at(changed, 0, BLOCK_M), c)
    coefficients = vector_at(moved, 0, BLOCK_M)
    tl.store(coefficients, tl.load(coefficients) + c)


@triton.jit
def _move(  # noqa: PLR0913  (inlined: no API)
    z, gram, along_mu, change, changed_signal, v, stride,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Z <- Z + C K for the vectors v.. of both labels; C K is summed by itself: it is small."""
    BOTH: tl.constexpr = 2 * BLOCK_N
    mu = tl.load(vector_at(along_mu, v, BOTH))
    for r in range(0, BLOCK_M, BLOCK_R):
        by_signal = tl.load(vector_at(changed_signal, r, BLOCK_R))
        acc = by_signal[:, None] * mu[None, :]
        at = tile_at(z, r, v, stride, BLOCK_R, BOTH)
        before = tl.load(at)
        # Inner products stay out of the cache that holds everything else; they come one step ahead.
        k = tl.load(tile_at(gram, 0, v, stride, BLOCK_K, BOTH), cache_modifier=".cg")
        for j in range(0, BOTH, BLOCK_K):
            ahead = tl.where(j + BLOCK_K < BOTH, j + BLOCK_K, 0)
            following = tl.load(
                tile_at(gram, ahead, v, stride, BLOCK_K, BOTH), cache_modifier=".cg"
            )
            c = tl.load(tile_at(change, r, j, BOTH, BLOCK_R, BLOCK_K))
            acc = tl.dot(c, k, acc, input_precision=PRECISION)
            k = following
        tl.store(at, before + acc)


@triton.jit
def _move_signal(
    signal, along_mu, norm, change, changed_signal, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """The same for <w_r, mu>."""
    acc = tl.load(vector_at(changed_signal, 0, BLOCK_M)) * norm
    for label in range(2):
        c = tl.load(tile_at(change, 0, label * BLOCK_N, 2 * BLOCK_N, BLOCK_M, BLOCK_N))
        acc += tl.sum(c * tl.load(vector_at(along_mu, label * BLOCK_N, BLOCK_N))[None, :], 1)
    at = vector_at(signal, 0, BLOCK_M)
    tl.store(at, tl.load(at) + acc)


@triton.jit(do_not_specialize=["n", "neurons", "epochs", "count"])
def _trajectory_whole_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
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
    count: tl.int32,
    S: tl.int32,
    stride: tl.int32,
    stride_work: tl.int64,
    UPDATE: tl.constexpr,
    SIDES: tl.constexpr,
    Q: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: one of the chosen runs. Label +1 has slots 0.., label -1 slots BLOCK_N.."""
    program = tl.program_id(0).to(tl.int64)
    run = tl.load(chosen_ptr + program).to(tl.int64)
    of_gram, of_vectors = S.to(tl.int64) * stride, stride.to(tl.int64)
    of_z, of_moved = BLOCK_M * of_vectors, BLOCK_M * S.to(tl.int64)
    gram, along_mu = gram_ptr + run * SIDES * of_gram, along_mu_ptr + run * SIDES * of_vectors
    z, moved = z_ptr + run * SIDES * of_z, moved_ptr + run * SIDES * of_moved
    signal = signal_ptr + run * SIDES * BLOCK_M
    moved_signal = moved_signal_ptr + run * SIDES * BLOCK_M
    norms = norm_ptr + run * SIDES
    OF_CHANGE: tl.constexpr = BLOCK_M * 2 * BLOCK_N
    OF_TERMS: tl.constexpr = BLOCK_N * BLOCK_N
    change = work_ptr + program * stride_work  # [SIDES, M, 2 N]
    terms = change + SIDES * OF_CHANGE  # [SIDES, 2, N keys, N queries]
    pulls = terms + SIDES * 2 * OF_TERMS  # [SIDES, 2, N]
    pushes = pulls + SIDES * 2 * BLOCK_N  # [SIDES, 2, N]
    changed_signal = pushes + SIDES * 2 * BLOCK_N  # [SIDES, M]
    curve = curves_ptr + run * epochs
    next_curve = count.to(tl.int64) * epochs

    positives = tl.load(positives_ptr + run)
    scale, weight = tl.load(scale_ptr + run), tl.load(weight_ptr + run)
    offs = tl.arange(0, BLOCK_N)
    plus, minus = offs < positives, offs < n - positives
    views = (2 - SIDES) * S  # single-modal, the positives are further columns
    for t in range(epochs):
        loss = 0.0
        for a in range(SIDES):
            b = SIDES - 1 - a
            loss += _score(
                z + a * of_z, z + b * of_z, signal + a * BLOCK_M, signal + b * BLOCK_M, terms,
                pulls, pushes, a * 2, b * 2 + 1, plus, minus, scale, weight, views, stride, Q,
                PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
        most_signal = tl.max(tl.abs(tl.load(vector_at(signal, 0, BLOCK_M))), 0)
        tl.store(curve + t, loss / n)
        tl.store(curve + (next_curve + t), most_signal)
        tl.debug_barrier()
        most_noise = float("-inf")
        for part in range(2 * SIDES):
            a, label = part // 2, part % 2
            valid = (offs < tl.where(label == 0, positives, n - positives)) & (a == 0)
            most = _change(
                z + a * of_z, z + (SIDES - 1 - a) * of_z, terms, pulls, pushes,
                change + a * OF_CHANGE, moved + a * of_moved, part, label, valid, neurons, views,
                stride, S, UPDATE, Q, PRECISION, BLOCK_M, BLOCK_N, BLOCK_R, BLOCK_K,
            )  # fmt: skip
            most_noise = tl.maximum(most_noise, most)
        tl.store(curve + (2 * next_curve + t), most_noise)
        if UPDATE:
            for a in range(SIDES):
                _change_signal(
                    signal + a * BLOCK_M, signal + (SIDES - 1 - a) * BLOCK_M,
                    pushes + a * 2 * BLOCK_N, changed_signal + a * BLOCK_M,
                    moved_signal + a * BLOCK_M, Q, BLOCK_M, BLOCK_N,
                )  # fmt: skip
            tl.debug_barrier()
            for part in range(2):
                a = part * (SIDES - 1)
                _move(
                    z + a * of_z, gram + a * of_gram, along_mu + a * of_vectors,
                    change + a * OF_CHANGE, changed_signal + a * BLOCK_M, part * views, stride,
                    PRECISION, BLOCK_M, BLOCK_N, BLOCK_R, BLOCK_K,
                )  # fmt: skip
            for a in range(SIDES):
                _move_signal(
                    signal + a * BLOCK_M, along_mu + a * of_vectors, tl.load(norms + a),
                    change + a * OF_CHANGE, changed_signal + a * BLOCK_M, BLOCK_M, BLOCK_N,
                )  # fmt: skip
            tl.debug_barrier()


__all__: list[str] = []
