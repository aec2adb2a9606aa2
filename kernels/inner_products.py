"""Inner products of rows, run by run in one launch.

    out[r, i, j] = start[r, i, j] + <a[r, rows[r, i]], b[r, columns[r, j]]>

An index below 0 stands for a row of zeros; without indices, rows are taken as they come.

Numerics contract: float32 products and sums ("ieee"). A sum is made of chains of CHAIN terms, which
are added up: in one chain a squared norm of 10^6 terms would lose four digits. A run's numbers
depend on no other run, nor on how many valid are. A library's batched product does not promise
that: it chooses its kernel by the batch.

Deterministic, without atomics. Cost: 2 D flop a product; every element of `out` written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
MAX_PROGRAMS = 2**31 - 1  # of the first grid axis
MAX_TERMS = 2**31 - 2**16  # of a sum: offsets of the last chain are 32 bits
CHAIN = tl.constexpr(1024)


@triton.jit(do_not_specialize=["I", "J", "tiles_j", "tiles"])
def _row_products_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    a_ptr,
    b_ptr,
    rows_ptr,
    columns_ptr,
    start_ptr,
    out_ptr,
    I: tl.int32,  # noqa: E741
    J: tl.int32,
    D: tl.int32,
    tiles_j: tl.int32,
    tiles: tl.int32,
    stride_ar: tl.int64,
    stride_an: tl.int64,
    stride_br: tl.int64,
    stride_bn: tl.int64,
    stride_sr: tl.int64,
    stride_si: tl.int64,
    stride_or: tl.int64,
    stride_oi: tl.int64,
    stride_oj: tl.int64,
    HAS_ROWS: tl.constexpr,
    HAS_COLUMNS: tl.constexpr,
    HAS_START: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: a tile of one run."""
    pid = tl.program_id(0)
    run, tile = (pid // tiles).to(tl.int64), pid % tiles
    i = tile // tiles_j * BLOCK_I + tl.arange(0, BLOCK_I)
    j = tile % tiles_j * BLOCK_J + tl.arange(0, BLOCK_J)
    in_i, in_j = i < I, j < J
    row, column = i.to(tl.int64), j.to(tl.int64)
    if HAS_ROWS:
        row = tl.load(rows_ptr + (run * I + row), mask=in_i, other=-1).to(tl.int64)
    if HAS_COLUMNS:
        column = tl.load(columns_ptr + (run * J + column), mask=in_j, other=-1).to(tl.int64)
    valid_i, valid_j = in_i & (row >= 0), in_j & (column >= 0)
    a = a_ptr + (run * stride_ar + row[:, None] * stride_an)
    b = b_ptr + (run * stride_br + column[None, :] * stride_bn)
    acc = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
    for first in range(0, D, CHAIN):
        part = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
        for k in range(first, tl.minimum(first + CHAIN, D), BLOCK_K):
            at = k + tl.arange(0, BLOCK_K)
            valid = at < D
            left = tl.load(
                a + at.to(tl.int64)[None, :], mask=valid_i[:, None] & valid[None, :], other=0.0
            )
            right = tl.load(
                b + at.to(tl.int64)[:, None], mask=valid_j[None, :] & valid[:, None], other=0.0
            )
            part = tl.dot(left, right, part, input_precision="ieee")
        acc += part
    mask = in_i[:, None] & in_j[None, :]
    at_i, at_j = i.to(tl.int64)[:, None], j.to(tl.int64)[None, :]
    if HAS_START:
        acc += tl.load(start_ptr + (run * stride_sr + at_i * stride_si + at_j), mask=mask)
    tl.store(out_ptr + (run * stride_or + at_i * stride_oi + at_j * stride_oj), acc, mask=mask)


def row_products_fwd(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    out: torch.Tensor,
    rows: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Fills `out` with inner products of each run's rows, and returns it.

    Args:
        a: [R, A, D], float32, stride 1 along D.
        b: [R, B, D], as `a`.
        out: [R, I, J], float32, any strides under which no two elements share memory.
        rows: Rows of `a`, [R, I], int32, contiguous; below 0: zeros. Default: all, I = A.
        columns: Rows of `b`, [R, J], in the same way.
        start: Added, [R, I, J], float32, stride 1 along J.

    Raises: ValueError (sizes, layout, device), TypeError (dtype); nothing is written then. Indices
        are not read: they must be below A and B.
    """
    _check(a, b, out, rows, columns, start)
    (runs, count_i, count_j), d = out.shape, a.shape[2]
    if out.numel() == 0:
        return out
    tile = tile_for("row_products", arch_of(_row_products_kernel, out), 4, "any")
    tiles_j = cdiv(count_j, tile.block_m)
    tiles = cdiv(count_i, tile.block_n) * tiles_j
    if d > MAX_TERMS:
        raise ValueError(f"a: expected rows of at most {MAX_TERMS} numbers, got {d}")
    if runs * tiles > MAX_PROGRAMS:
        raise ValueError(f"out: expected at most {MAX_PROGRAMS} tiles, got {runs * tiles}")
    with torch.cuda.device_of(out):
        _row_products_kernel[(runs * tiles,)](
            a_ptr=a,
            b_ptr=b,
            rows_ptr=rows,
            columns_ptr=columns,
            start_ptr=start,
            out_ptr=out,
            I=count_i,
            J=count_j,
            D=d,
            tiles_j=tiles_j,
            tiles=tiles,
            stride_ar=a.stride(0),
            stride_an=a.stride(1),
            stride_br=b.stride(0),
            stride_bn=b.stride(1),
            stride_sr=0 if start is None else start.stride(0),
            stride_si=0 if start is None else start.stride(1),
            stride_or=out.stride(0),
            stride_oi=out.stride(1),
            stride_oj=out.stride(2),
            HAS_ROWS=rows is not None,
            HAS_COLUMNS=columns is not None,
            HAS_START=start is not None,
            BLOCK_I=tile.block_n,
            BLOCK_J=tile.block_m,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **LAUNCH_OPTIONS,
        )
    return out


def _check(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    rows: torch.Tensor | None,
    columns: torch.Tensor | None,
    start: torch.Tensor | None,
) -> None:
    runs, count_i, count_j = out.shape
    sizes = {
        "a": (a, (runs, a.shape[1] if rows is not None else count_i, a.shape[2])),
        "b": (b, (runs, b.shape[1] if columns is not None else count_j, a.shape[2])),
        "out": (out, (runs, count_i, count_j)),
        "rows": (rows, (runs, count_i)),
        "columns": (columns, (runs, count_j)),
        "start": (start, (runs, count_i, count_j)),
    }
    for name, (x, shape) in sizes.items():
        if x is None:
            continue
        is_index = name in ("rows", "columns")
        expected = torch.int32 if is_index else torch.float32
        if x.dtype != expected:
            raise TypeError(f"{name}: expected {expected}, got {x.dtype}")
        fits = x.is_contiguous() if is_index else name == "out" or _is_unit(x)
        if tuple(x.shape) != shape or not fits or x.device != out.device:
            layout = "contiguous" if is_index else "stride 1 along the last axis of"
            raise ValueError(
                f"{name}: expected {layout} {list(shape)} on {out.device}, got {list(x.shape)} "
                f"with strides {list(x.stride())} on {x.device}"
            )


def _is_unit(x: torch.Tensor) -> bool:
    return x.shape[-1] == 1 or x.stride(-1) == 1


__all__ = ["row_products_fwd"]
