"""Statistics and gradient weights of scores that are never stored: products with an epilogue.

    _contrast_product_statistics_kernel    partial statistics of `contrast_score_statistics.py`
    _contrast_product_weights_kernel       weights of `contrast_score_weights.py`, in the features'
                                           dtype

from features of any length. Programs stay: each takes one tile of scores after another, in an
order that keeps rows of the query and of the key in L2, loads blocks of features through tensor
descriptors (TMA where the GPU has it), several ahead of the matrix unit, also across tiles, and
ends a tile with the statistics, or the weights, of its scores in registers. Beside scores in memory
this saves their 4 bytes written and 4 read in each of the two passes, and costs the product twice.

Numerics contract: as of those two files; products of 16-bit features are exact and summed in
float32. Deterministic: no atomics; which program takes a tile changes no number.
Cost: 2*N*M*D flop; reads (N / block_m + M / block_n) D features of N or M rows, mostly from L2;
writes 12 bytes a row and block of keys and 8 a column and block of queries, or 2 bytes a score.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from mmcl_fast.kernels._tiles import Tile, arch_of, cdiv, copies_tensors, tile_for
from mmcl_fast.kernels.contrast_common import SHIFT_FP16, Pairs, WeightTerms, units
from mmcl_fast.kernels.contrast_score_statistics import store_statistics
from mmcl_fast.kernels.contrast_score_weights import tile_weights
from mmcl_fast.kernels.contrast_statistics import Partial

PROGRAMS = 132  # one on each multiprocessor of an H100; numbers do not depend on it
_GROUP = 8  # blocks of queries that share blocks of keys in L2
_ALIGNED = 16  # bytes


@triton.jit
def _place(index, num_n, num_m, GROUP: tl.constexpr):
    """(pid_n, pid_m) of a tile: GROUP blocks of queries beside each other, by blocks of keys."""
    width = GROUP * num_m
    first = index // width * GROUP
    size = tl.minimum(num_n - first, GROUP)
    return first + index % width % size, index % width // size


@triton.jit
def _product(  # noqa: PLR0913  (inlined: no API)
    query, key, offset_n, offset_m, D, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Scores <q_i, k_j> of a tile, [BLOCK_N, BLOCK_M], float32; 0 past the ends."""
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for k in range(tl.cdiv(D, BLOCK_K)):
        q = query.load([offset_n, k * BLOCK_K])
        x = key.load([offset_m, k * BLOCK_K])
        acc = tl.dot(q, x.T, acc)
    return acc


@triton.jit(do_not_specialize=["N", "M", "regular", "first"])
def _contrast_product_statistics_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query,
    key,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_sum_ptr,
    positive_score_ptr,
    column_max_ptr,
    column_sum_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: every so many tiles one."""
    a, b = units(temperature_ptr, bias_ptr)
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    num_n, num_m = tl.cdiv(N, BLOCK_N), tl.cdiv(M, BLOCK_M)
    for index in tl.range(tl.program_id(0), num_n * num_m, tl.num_programs(0), flatten=True):
        pid_n, pid_m = _place(index, num_n, num_m, GROUP)
        acc = _product(query, key, pid_n * BLOCK_N, pid_m * BLOCK_M, D, BLOCK_N, BLOCK_M, BLOCK_K)
        store_statistics(
            acc * a + b, (pid_n, pid_m), positive_ptr, query_label_ptr, key_label_ptr,
            row_max_ptr, row_sum_ptr, positive_score_ptr, column_max_ptr, column_sum_ptr,
            N, M, regular, first, SIGMOID, RULE, BLOCK_N, BLOCK_M,
        )  # fmt: skip


@triton.jit(do_not_specialize=["N", "M", "regular", "first"])
def _contrast_product_weights_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query,
    key,
    weights,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_scale_ptr,
    column_max_ptr,
    column_scale_ptr,
    weight_sum_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: every so many tiles one."""
    a, b = units(temperature_ptr, bias_ptr)
    SHIFT: tl.constexpr = SHIFT_FP16 if weights.dtype == tl.float16 else 0.0
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    num_n, num_m = tl.cdiv(N, BLOCK_N), tl.cdiv(M, BLOCK_M)
    for index in tl.range(tl.program_id(0), num_n * num_m, tl.num_programs(0), flatten=True):
        pid_n, pid_m = _place(index, num_n, num_m, GROUP)
        acc = _product(query, key, pid_n * BLOCK_N, pid_m * BLOCK_M, D, BLOCK_N, BLOCK_M, BLOCK_K)
        w = tile_weights(
            acc * a + b, (pid_n, pid_m), positive_ptr, query_label_ptr, key_label_ptr, row_max_ptr,
            row_scale_ptr, column_max_ptr, column_scale_ptr, N, M, regular, first, SIGMOID, RULE,
            BLOCK_N, BLOCK_M,
        )  # fmt: skip
        weights.store([pid_n * BLOCK_N, pid_m * BLOCK_M], (w * (2.0**SHIFT)).to(weights.dtype))
        if weight_sum_ptr is not None:
            offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
            row = pid_m.to(tl.int64) * N + offs_n
            tl.store(weight_sum_ptr + row, tl.sum(w, 1), mask=offs_n < N)


def why_not(query: torch.Tensor, key: torch.Tensor) -> str | None:
    """Why these kernels cannot take features; None: they can."""
    arch = arch_of(_contrast_product_statistics_kernel, query)
    if not copies_tensors(arch):
        return f"query: expected a GPU of sm_90 or later, got {arch}"
    for name, x in (("query", query), ("key", key)):
        if x.dtype not in (torch.float16, torch.bfloat16):
            return f"{name}: expected dtype float16 or bfloat16, got {x.dtype}"
        bytes_apart = x.stride(0) * x.element_size()
        if x.data_ptr() % _ALIGNED or bytes_apart % _ALIGNED:
            return f"{name}: expected rows at multiples of {_ALIGNED} bytes, got others"
    return None


def product_statistics_fwd(
    query: torch.Tensor, key: torch.Tensor, pairs: Pairs, *, columns: bool
) -> tuple[Partial, Partial | None]:
    """Partial statistics of rows and, on request, of columns.

    Args:
        query: [N, D], float16 | bfloat16, stride 1 along D, rows at multiples of 16 bytes; N > 0.
        key: [M, D], likewise; M > 0.
        pairs: Negatives, temperature and bias.
        columns: Return the statistics of columns as well.

    Raises: ValueError: `why_not` has a reason.
    """
    tile, sizes = _prepared("contrast_product_statistics", query, key)
    n, m = len(query), len(key)
    blocks_n, blocks_m = cdiv(n, tile.block_n), cdiv(m, tile.block_m)
    empty = {"dtype": torch.float32}
    rows = Partial(*(query.new_empty(blocks_m, n, **empty) for _ in range(3)))
    parts = Partial(*(query.new_empty(blocks_n, m, **empty) for _ in range(2))) if columns else None
    with torch.cuda.device_of(query):
        _contrast_product_statistics_kernel[(min(PROGRAMS, blocks_n * blocks_m),)](
            query=_descriptor(query, tile.block_n, tile.block_k),
            key=_descriptor(key, tile.block_m, tile.block_k),
            row_max_ptr=rows.max_score,
            row_sum_ptr=rows.exp_sum,
            positive_score_ptr=rows.positive_score,
            column_max_ptr=None if parts is None else parts.max_score,
            column_sum_ptr=None if parts is None else parts.exp_sum,
            **sizes,
            **pairs.arguments(m),
        )
    return rows, parts


def product_weights_bwd(
    query: torch.Tensor,
    key: torch.Tensor,
    weights: torch.Tensor,
    pairs: Pairs,
    sides: tuple[WeightTerms | None, WeightTerms | None],
    *,
    weight_sum: bool = False,
) -> torch.Tensor | None:
    """Fills `weights`, times 2^14 in float16; what `scores_weights_bwd` does, from features.

    Args:
        query: As for `product_statistics_fwd`.
        key: Likewise.
        weights: [N, P], contiguous, of the features' dtype; P is M rounded up to a multiple of 16,
            and weights beyond M become 0.
        pairs: Negatives, temperature and bias.
        sides: Terms of rows and of columns; one of them at least.
        weight_sum: Return the row sums of weights as well, without the factor 2^14.

    Raises: ValueError: `why_not` has a reason.
    """
    tile, sizes = _prepared("contrast_product_weights", query, key)
    n, m = len(query), len(key)
    blocks_n, blocks_m = cdiv(n, tile.block_n), cdiv(m, tile.block_m)
    rows, columns = sides
    sums = query.new_empty(blocks_m, n, dtype=torch.float32) if weight_sum else None
    with torch.cuda.device_of(query):
        _contrast_product_weights_kernel[(min(PROGRAMS, blocks_n * blocks_m),)](
            query=_descriptor(query, tile.block_n, tile.block_k),
            key=_descriptor(key, tile.block_m, tile.block_k),
            weights=_descriptor(weights, tile.block_n, tile.block_m),
            row_max_ptr=None if rows is None else rows.max_score,
            row_scale_ptr=None if rows is None else rows.scale,
            column_max_ptr=None if columns is None else columns.max_score,
            column_scale_ptr=None if columns is None else columns.scale,
            weight_sum_ptr=sums,
            **sizes,
            **pairs.arguments(m),
        )
    return None if sums is None else sums.sum(dim=0)


def _prepared(kernel: str, query: torch.Tensor, key: torch.Tensor) -> tuple[Tile, dict[str, Any]]:
    """The tile, and the arguments that both kernels have."""
    if reason := why_not(query, key):
        raise ValueError(reason)
    arch = arch_of(_contrast_product_statistics_kernel, query)
    tile = tile_for(kernel, arch, query.element_size(), "any")
    return tile, {
        "N": len(query),
        "M": len(key),
        "D": query.shape[1],
        "GROUP": _GROUP,
        "BLOCK_N": tile.block_n,
        "BLOCK_M": tile.block_m,
        "BLOCK_K": tile.block_k,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        "enable_fp_fusion": True,
    }


def _descriptor(x: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, columns])


__all__ = ["product_statistics_fwd", "product_weights_bwd", "why_not"]
