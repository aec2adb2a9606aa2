"""The steps of an epoch of `trajectory.py`, each for one modality of one run.

A step reads results of earlier steps from memory and writes others; between steps all threads of
the program meet at a barrier. Rows of a matrix are `stride` elements apart. Neurons and samples are
padded with zeros to whole blocks, so no load needs a mask. NaN passes through every step: a value
that is not finite reaches the loss.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmcl_fast.kernels.contrast_common import log1p_unit

SMALLEST = tl.constexpr(2.0**-60)  # of e^(positive - max); below, a quotient could overflow


@triton.jit
def tile_at(ptr, row, column, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Pointers to a block of a matrix, [ROWS, COLUMNS]."""
    rows = (row + tl.arange(0, ROWS)).to(tl.int64)
    return ptr + (rows[:, None] * stride + (column + tl.arange(0, COLUMNS))[None, :])


@triton.jit
def vector_at(ptr, first, COUNT: tl.constexpr):
    """Pointers to neighbours, [COUNT]."""
    return ptr + (first + tl.arange(0, COUNT)).to(tl.int64)


@triton.jit
def activation(z, Q: tl.constexpr):
    """max(0, z)^Q; NaN stays NaN."""
    base = tl.where(z <= 0.0, 0.0, z)
    power = base
    for _ in tl.static_range(Q - 1):
        power *= base
    return power


@triton.jit
def times_slope(g, z, Q: tl.constexpr):
    """G act'(z), 0 at z = 0."""
    return tl.where(z > 0.0, g, 0.0) if Q == 1 else g * (activation(z, Q - 1) * Q)


@triton.jit
def match_positives(  # noqa: PLR0913  (inlined: no API)
    z, z_positive, signal, signal_key, matched, scale, positives, negatives, slots, split,
    neurons, stride, M, Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Scores of the positives; returns the curves max |<w_r, mu>| and max <w_r, xi_i>.

    From the scores the signal's part in the scores of the query's negatives is subtracted, which
    depends on its label alone.
    """
    plus, minus, most_signal = 0.0, 0.0, 0.0
    for r in range(0, M, BLOCK_M):
        s = tl.load(vector_at(signal, r, BLOCK_M))
        k = tl.load(vector_at(signal_key, r, BLOCK_M))
        gap = activation(k, Q) - activation(-k, Q)
        plus += tl.sum(activation(s, Q) * gap, 0)
        minus -= tl.sum(activation(-s, Q) * gap, 0)
        most_signal = tl.maximum(most_signal, tl.max(tl.abs(s), 0))
    most_noise = float("-inf")
    for i in range(0, slots, BLOCK_N):
        slot = i + tl.arange(0, BLOCK_N)
        valid = (slot < positives) | ((slot >= split) & (slot < split + negatives))
        along = tl.zeros([BLOCK_N], tl.float32)
        for r in range(0, M, BLOCK_M):
            x = tl.load(tile_at(z, r, i, stride, BLOCK_M, BLOCK_N))
            y = tl.load(tile_at(z_positive, r, i, stride, BLOCK_M, BLOCK_N))
            along += tl.sum(activation(x, Q) * activation(y, Q), 0)
            real = ((r + tl.arange(0, BLOCK_M)) < neurons)[:, None] & valid[None, :]
            most = tl.max(tl.where(real, x, float("-inf")), 0)
            most_noise = tl.maximum(most_noise, tl.max(most, 0))
        both = (along + tl.where(slot < split, plus, minus)) * scale
        tl.store(vector_at(matched, i, BLOCK_N), both)
    return most_signal, most_noise


@triton.jit
def store_query_terms(  # noqa: PLR0913  (inlined: no API)
    positive_score, max_score, negatives, weight, valid, statistics, at, S, BLOCK_N: tl.constexpr
):
    """Store the gradient weights of a block of queries; returns sums of losses and one_minus_p.

    `negatives` is the sum of e^(s - max) over the negatives. With p the softmax,
    negative_weight e^(s - max) = weight p_negative and one_minus_p = weight (1 - p_positive).
    log(1 + negatives / positive) keeps the digits of a small loss; where the positive underflows,
    the loss is the difference of scores.
    """
    positive = tl.exp(positive_score - max_score)
    exp_sum = negatives + positive
    inverse = tl.div_rn(1.0, exp_sum)
    underflows = positive < SMALLEST
    ratio = tl.div_rn(negatives, tl.where(underflows, SMALLEST, positive))
    above = tl.where(ratio > 1.0, ratio, 1.0)
    near = log1p_unit(tl.where(ratio > 1.0, tl.div_rn(1.0, above), ratio)) + tl.log(above)
    loss = tl.where(underflows, (max_score - positive_score) + tl.log(exp_sum), near)
    one_minus_p = weight * (negatives * inverse)
    tl.store(vector_at(statistics + S.to(tl.int64), at, BLOCK_N), max_score)
    tl.store(vector_at(statistics + S.to(tl.int64) * 2, at, BLOCK_N), weight * inverse)
    tl.store(vector_at(statistics + S.to(tl.int64) * 3, at, BLOCK_N), one_minus_p)
    return tl.sum(tl.where(valid, loss, 0.0), 0), tl.sum(tl.where(valid, one_minus_p, 0.0), 0)


@triton.jit
def score_rows(  # noqa: PLR0913  (inlined: no API)
    z, z_key, statistics, scores, transposed, scale, weight, positives, negatives, slots, split,
    stride, M, S, Q: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Scores of queries of label +1 with keys of label -1, and the queries' softmax.

    Scores are stored twice, also transposed, as later products need either form. A transposition
    between memory and multiplication would cause bank conflicts.
    """
    loss, one_minus_p_sum = 0.0, 0.0
    for i in range(0, split, BLOCK_N):
        positive_score = tl.load(vector_at(statistics, i, BLOCK_N))
        max_score = positive_score
        exp_sum = tl.zeros([BLOCK_N], tl.float32)
        for j in range(split, slots, BLOCK_N):
            acc = tl.zeros([BLOCK_N, BLOCK_N], tl.float32)
            x = tl.load(tile_at(z, 0, i, stride, BLOCK_K, BLOCK_N))
            y = tl.load(tile_at(z_key, 0, j, stride, BLOCK_K, BLOCK_N))
            for r in range(BLOCK_K, M + BLOCK_K, BLOCK_K):
                ahead = tl.minimum(r, M - BLOCK_K)
                next_x = tl.load(tile_at(z, ahead, i, stride, BLOCK_K, BLOCK_N))
                next_y = tl.load(tile_at(z_key, ahead, j, stride, BLOCK_K, BLOCK_N))
                x, y = activation(x, Q), activation(y, Q)
                acc = tl.dot(tl.trans(x), y, acc, input_precision=PRECISION)
                x, y = next_x, next_y
            s = acc * scale
            tl.store(tile_at(scores, i, j - split, slots - split, BLOCK_N, BLOCK_N), s)
            tl.store(tile_at(transposed, j - split, i, split, BLOCK_N, BLOCK_N), tl.trans(s))
            is_key = (j - split + tl.arange(0, BLOCK_N)) < negatives
            s = tl.where(is_key[None, :], s, float("-inf"))
            new_max = tl.maximum(max_score, tl.max(s, 1))
            terms = tl.sum(tl.exp(s - new_max[:, None]), 1)
            exp_sum = exp_sum * tl.exp(max_score - new_max) + terms
            max_score = new_max
        valid = (i + tl.arange(0, BLOCK_N)) < positives
        block_loss, one_minus_p = store_query_terms(
            positive_score, max_score, exp_sum, weight, valid, statistics, i, S, BLOCK_N
        )
        loss += block_loss
        one_minus_p_sum += one_minus_p
    return loss, one_minus_p_sum


@triton.jit
def score_columns(  # noqa: PLR0913  (inlined: no API)
    statistics, transposed, weight, positives, negatives, slots, split, S, BLOCK_N: tl.constexpr
):
    """The softmax of queries of label -1 over keys of label +1: rows of the transposed scores."""
    loss, one_minus_p_sum = 0.0, 0.0
    for j in range(split, slots, BLOCK_N):
        positive_score = tl.load(vector_at(statistics, j, BLOCK_N))
        max_score = positive_score
        exp_sum = tl.zeros([BLOCK_N], tl.float32)
        for i in range(0, split, BLOCK_N):
            s = tl.load(tile_at(transposed, j - split, i, split, BLOCK_N, BLOCK_N))
            is_key = (i + tl.arange(0, BLOCK_N)) < positives
            s = tl.where(is_key[None, :], s, float("-inf"))
            new_max = tl.maximum(max_score, tl.max(s, 1))
            terms = tl.sum(tl.exp(s - new_max[:, None]), 1)
            exp_sum = exp_sum * tl.exp(max_score - new_max) + terms
            max_score = new_max
        valid = (j - split + tl.arange(0, BLOCK_N)) < negatives
        block_loss, one_minus_p = store_query_terms(
            positive_score, max_score, exp_sum, weight, valid, statistics, j, S, BLOCK_N
        )
        loss += block_loss
        one_minus_p_sum += one_minus_p
    return loss, one_minus_p_sum


@triton.jit
def change_queries(  # noqa: PLR0913  (inlined: no API)
    z, z_key, z_positive, statistics, by_key, change, coefficients, first, last, first_key, keys,
    stride, M, S, Q: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Minus eta times the gradient in the coefficients of queries first..last, all of one label.

    `by_key` holds their scores with the keys as rows, which begin at first_key.
    """
    for i in range(first, last, BLOCK_N):
        max_score = tl.load(vector_at(statistics + S.to(tl.int64), i, BLOCK_N))
        negative_weight = tl.load(vector_at(statistics + S.to(tl.int64) * 2, i, BLOCK_N))
        one_minus_p = tl.load(vector_at(statistics + S.to(tl.int64) * 3, i, BLOCK_N))
        for r in range(0, M, BLOCK_M):
            acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            key = tl.load(tile_at(z_key, r, first_key, stride, BLOCK_M, BLOCK_K))
            s = tl.load(tile_at(by_key, 0, i - first, last - first, BLOCK_K, BLOCK_N))
            for j in range(BLOCK_K, keys + BLOCK_K, BLOCK_K):
                ahead = tl.where(j < keys, j, 0)
                next_key = tl.load(tile_at(z_key, r, first_key + ahead, stride, BLOCK_M, BLOCK_K))
                next_s = tl.load(tile_at(by_key, ahead, i - first, last - first, BLOCK_K, BLOCK_N))
                # Scores of keys are not negative, so neither is the maximum; padding has score 0
                # and features 0.
                e = tl.exp(s - max_score[None, :])
                acc = tl.dot(activation(key, Q), e, acc, input_precision=PRECISION)
                key, s = next_key, next_s
            positive = tl.load(tile_at(z_positive, r, i, stride, BLOCK_M, BLOCK_N))
            g = one_minus_p[None, :] * activation(positive, Q) - negative_weight[None, :] * acc
            x = tl.load(tile_at(z, r, i, stride, BLOCK_M, BLOCK_N))
            c = times_slope(g, x, Q)
            tl.store(tile_at(change, r, i, S, BLOCK_M, BLOCK_N), c)
            at = tile_at(coefficients, r, i, S, BLOCK_M, BLOCK_N)
            tl.store(at, tl.load(at) + c)


@triton.jit
def change_signal(  # noqa: PLR0913  (inlined: no API)
    signal, signal_key, change, coefficients, one_minus_p_plus, one_minus_p_minus, M,
    Q: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Minus eta times the gradient in the coefficient of mu, through the signal patch."""
    up, down = tl.load(one_minus_p_plus), tl.load(one_minus_p_minus)
    for r in range(0, M, BLOCK_M):
        s = tl.load(vector_at(signal, r, BLOCK_M))
        k = tl.load(vector_at(signal_key, r, BLOCK_M))
        gap = activation(k, Q) - activation(-k, Q)
        c = times_slope(gap * up, s, Q) + times_slope(gap * down, -s, Q)
        tl.store(vector_at(change, r, BLOCK_M), c)
        at = vector_at(coefficients, r, BLOCK_M)
        tl.store(at, tl.load(at) + c)


@triton.jit
def update_preactivations(  # noqa: PLR0913  (inlined: no API)
    z, gram, along_mu, change, change_signal, beside, step, positives, negatives, slots, split,
    stride, M, S, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Z <- Z + C K, two blocks of vectors at a time, `beside` apart: one C serves both.

    C K is summed by itself: it is small, and Z is rounded once in an epoch. Steps of the sum that
    hold padding alone are left out.
    """
    of_positives = (positives + BLOCK_K - 1) // BLOCK_K * BLOCK_K
    terms = of_positives + (negatives + BLOCK_K - 1) // BLOCK_K * BLOCK_K
    for v in range(0, slots, step):
        w = v + beside
        mu_v = tl.load(vector_at(along_mu, v, BLOCK_N))
        mu_w = tl.load(vector_at(along_mu, w, BLOCK_N))
        for r in range(0, M, BLOCK_M):
            by_signal = tl.load(vector_at(change_signal, r, BLOCK_M))
            acc_v, acc_w = by_signal[:, None] * mu_v[None, :], by_signal[:, None] * mu_w[None, :]
            # Factors come a step ahead; inner products stay out of the cache that holds the rest.
            c = tl.load(tile_at(change, r, 0, S, BLOCK_M, BLOCK_K))
            k_v = tl.load(tile_at(gram, 0, v, stride, BLOCK_K, BLOCK_N), cache_modifier=".cg")
            k_w = tl.load(tile_at(gram, 0, w, stride, BLOCK_K, BLOCK_N), cache_modifier=".cg")
            for j in range(BLOCK_K, terms + BLOCK_K, BLOCK_K):
                ahead = tl.minimum(j, terms - BLOCK_K)
                ahead += tl.where(ahead < of_positives, 0, split - of_positives)
                next_c = tl.load(tile_at(change, r, ahead, S, BLOCK_M, BLOCK_K))
                rows = tile_at(gram, ahead, v, stride, BLOCK_K, BLOCK_N)
                next_v = tl.load(rows, cache_modifier=".cg")
                next_w = tl.load(rows + tl.cast(beside, tl.int64), cache_modifier=".cg")
                acc_v = tl.dot(c, k_v, acc_v, input_precision=PRECISION)
                acc_w = tl.dot(c, k_w, acc_w, input_precision=PRECISION)
                c, k_v, k_w = next_c, next_v, next_w
            at = tile_at(z, r, v, stride, BLOCK_M, BLOCK_N)
            tl.store(at, tl.load(at) + acc_v)
            at += tl.cast(beside, tl.int64)
            tl.store(at, tl.load(at) + acc_w)


@triton.jit
def update_signal(  # noqa: PLR0913  (inlined: no API)
    signal, along_mu, norm, change, change_signal, slots, M, S,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Update <w_r, mu> by the changes of the coefficients."""
    for r in range(0, M, BLOCK_M):
        acc = tl.load(vector_at(change_signal, r, BLOCK_M)) * norm
        for j in range(0, slots, BLOCK_N):
            c = tl.load(tile_at(change, r, j, S, BLOCK_M, BLOCK_N))
            acc += tl.sum(c * tl.load(vector_at(along_mu, j, BLOCK_N))[None, :], 1)
        at = vector_at(signal, r, BLOCK_M)
        tl.store(at, tl.load(at) + acc)


__all__: list[str] = []
