"""Elementwise and row operations of the primal step, each in one pass.

    dots_i = <a_i, b_i>                                    scores of the positives
    g_i = scale_i weighted_keys_i - one_minus_p_i p_i      gradient of a query, equation (8)
    h_k = max(0, z_i), k = index_i; max_ij z_ij            activations, sorted by label
    c_i = g_k q h_k^(q - 1), k = index_i                   their backward pass, with a float32 copy

Numerics contract: arithmetic in float32, results rounded once to the dtype of their tensor; dots
are summed in float32 along a row, block by block. NaN passes through.

Deterministic: no atomics; entries of `index` are distinct. Cost: every array read or written once.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import Tile, arch_of, tile_for

LAUNCH_OPTIONS = {"enable_fp_fusion": True}


@triton.jit(do_not_specialize=["N"])
def _row_dots_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    a_ptr,
    b_ptr,
    out_ptr,
    N: tl.int32,
    D: tl.int32,
    stride_an: tl.int64,
    stride_bn: tl.int64,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n, at_n = rows < N, rows.to(tl.int64)
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_d = (d + tl.arange(0, BLOCK_D)).to(tl.int64)
        mask = mask_n[:, None] & (at_d < D)[None, :]
        a = tl.load(a_ptr + (at_n[:, None] * stride_an + at_d[None, :]), mask=mask, other=0.0)
        b = tl.load(b_ptr + (at_n[:, None] * stride_bn + at_d[None, :]), mask=mask, other=0.0)
        acc += a.to(tl.float32) * b.to(tl.float32)
    tl.store(out_ptr + at_n, tl.sum(acc, 1), mask=mask_n)


@triton.jit
def _tile_of(N, D, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows and features of this program's tile; which rows, and which of its numbers, there are."""
    num_d = tl.cdiv(D, BLOCK_D)
    rows = tl.program_id(0) // num_d * BLOCK_N + tl.arange(0, BLOCK_N)
    at_d = (tl.program_id(0) % num_d * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    mask_n = rows < N
    return rows.to(tl.int64), at_d, mask_n, mask_n[:, None] & (at_d < D)[None, :]


@triton.jit(do_not_specialize=["N"])
def _row_gradients_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    weighted_keys_ptr,
    positive_ptr,
    scale_ptr,
    one_minus_p_ptr,
    out_ptr,
    N: tl.int32,
    D: tl.int32,
    stride_mn: tl.int64,
    stride_pn: tl.int64,
    stride_n: tl.int64,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: a tile."""
    at_n, at_d, mask_n, mask = _tile_of(N, D, BLOCK_N, BLOCK_D)
    weighted_keys = tl.load(
        weighted_keys_ptr + (at_n[:, None] * stride_mn + at_d[None, :]), mask=mask, other=0.0
    )
    positive = tl.load(
        positive_ptr + (at_n[:, None] * stride_pn + at_d[None, :]), mask=mask, other=0.0
    )
    scale = tl.load(scale_ptr + at_n, mask=mask_n, other=0.0)
    one_minus_p = tl.load(one_minus_p_ptr + at_n, mask=mask_n, other=0.0)
    gradient = weighted_keys * scale[:, None] - positive.to(tl.float32) * one_minus_p[:, None]
    tl.store(out_ptr + (at_n[:, None] * stride_n + at_d[None, :]), gradient, mask=mask)


@triton.jit(do_not_specialize=["N", "first"])
def _rectify_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    z_ptr,
    index_ptr,
    out_ptr,
    largest_ptr,
    N: tl.int32,
    D: tl.int32,
    first: tl.int32,
    stride_zn: tl.int64,
    stride_n: tl.int64,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: a tile, whose largest number it keeps."""
    at_n, at_d, mask_n, mask = _tile_of(N, D, BLOCK_N, BLOCK_D)
    z = tl.load(
        z_ptr + (at_n[:, None] * stride_zn + at_d[None, :]), mask=mask, other=float("-inf")
    ).to(tl.float32)
    index = first + at_n
    if index_ptr is not None:
        index = tl.load(index_ptr + index, mask=mask_n, other=0)
    h = tl.where(z <= 0.0, 0.0, z).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (index[:, None] * stride_n + at_d[None, :]), h, mask=mask)
    tl.store(largest_ptr + tl.program_id(0).to(tl.int64), tl.max(tl.max(z, 1), 0))


@triton.jit(do_not_specialize=["N"])
def _unrectify_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    g_ptr,
    h_ptr,
    index_ptr,
    columns_ptr,
    out_ptr,
    along_ptr,
    N: tl.int32,
    D: tl.int32,
    stride_gn: tl.int64,
    stride_hn: tl.int64,
    stride_n: tl.int64,
    stride_ad,
    stride_an: tl.int64,
    Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: a tile of samples and neurons."""
    at_n, at_d, mask_n, mask = _tile_of(N, D, BLOCK_N, BLOCK_D)
    index, columns = at_n, at_n
    if index_ptr is not None:
        index = tl.load(index_ptr + index, mask=mask_n, other=0)
    if columns_ptr is not None:
        columns = tl.load(columns_ptr + columns, mask=mask_n, other=0)
    g = tl.load(g_ptr + (index[:, None] * stride_gn + at_d[None, :]), mask=mask, other=0.0)
    h = tl.load(h_ptr + (index[:, None] * stride_hn + at_d[None, :]), mask=mask, other=0.0)
    h = h.to(tl.float32)
    if Q == 1:
        c = tl.where(h > 0.0, g, 0.0)
    else:
        slope = h
        for _ in tl.static_range(Q - 2):
            slope *= h
        c = g * (slope * Q)
    tl.store(
        out_ptr + (at_n[:, None] * stride_n + at_d[None, :]),
        c.to(out_ptr.dtype.element_ty),
        mask=mask,
    )
    tl.store(along_ptr + (columns[:, None] * stride_an + at_d[None, :] * stride_ad), c, mask=mask)


def row_dots_fwd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """<a_i, b_i>, [N], float32, of rows [N, D] with stride 1 along D."""
    _check_rows(a, b)
    n, d = a.shape
    out = a.new_empty(n, dtype=torch.float32)
    tile = _tile("row_dots", a)
    if n:
        with torch.cuda.device_of(a):
            _row_dots_kernel[(triton.cdiv(n, tile.block_n),)](
                a_ptr=a,
                b_ptr=b,
                out_ptr=out,
                N=n,
                D=d,
                stride_an=a.stride(0),
                stride_bn=b.stride(0),
                **_blocks(tile),
            )
    return out


def row_gradients_fwd(
    weighted_keys: torch.Tensor,
    positive: torch.Tensor,
    scale: torch.Tensor,
    one_minus_p: torch.Tensor,
    *,
    out: torch.Tensor,
) -> None:
    """Fills `out` with scale_i weighted_keys_i - one_minus_p_i positive_i.

    Args:
        weighted_keys: [N or more, D], float32, stride 1 along D.
        positive: [N, D], any dtype, stride 1 along D.
        scale: [N], float32.
        one_minus_p: [N], float32.
        out: [N, D], float32, stride 1 along D; may be `weighted_keys`.
    """
    _check_rows(weighted_keys, positive, out)
    n, d = out.shape
    tile = _tile("row_gradients", out)
    if n:
        with torch.cuda.device_of(out):
            _row_gradients_kernel[_grid(n, d, tile)](
                weighted_keys_ptr=weighted_keys,
                positive_ptr=positive,
                scale_ptr=scale,
                one_minus_p_ptr=one_minus_p,
                out_ptr=out,
                N=n,
                D=d,
                stride_mn=weighted_keys.stride(0),
                stride_pn=positive.stride(0),
                stride_n=out.stride(0),
                **_blocks(tile),
            )


def rectify_fwd(
    z: torch.Tensor, out: torch.Tensor, index: torch.Tensor | None, first: int = 0
) -> torch.Tensor:
    """Rows of `out` become max(0, z); returns the largest of z, 0-d, float32.

    Args:
        z: [N, D], stride 1 along D; N > 0.
        out: [M, D], stride 1 along D, any dtype.
        index: Row i of `z` goes to row index[first + i] of `out`, int64; None: to row first + i.
        first: Position of row 0 of `z` in `index`.
    """
    _check_rows(z, out)
    n, d = z.shape
    tile = _tile("rectify", z)
    grid = _grid(n, d, tile)
    largest = z.new_empty(grid, dtype=torch.float32)
    with torch.cuda.device_of(z):
        _rectify_kernel[grid](
            z_ptr=z,
            index_ptr=index,
            out_ptr=out,
            largest_ptr=largest,
            N=n,
            D=d,
            first=first,
            stride_zn=z.stride(0),
            stride_n=out.stride(0),
            **_blocks(tile),
        )
    return largest.amax()


def rectify_bwd(
    g: torch.Tensor,
    h: torch.Tensor,
    along: torch.Tensor,
    index: tuple[torch.Tensor | None, torch.Tensor | None],
    *,
    q: int,
) -> torch.Tensor:
    """Gradient of <w_r, xi_i>, [N, D], in the order in which samples are read, and by neuron.

    Args:
        g: With respect to activations max(0, z)^q, [N, D], float32, stride 1 along D.
        h: max(0, z), [N, D], stride 1 along D.
        along: [D, M], float32, quick with stride 1 along D: the column of sample i gets the same
            numbers, unrounded.
        index: Row of `g` and `h`, and column of `along`, of sample i, int64; None: i.
        q: Power of the activation, >= 1.

    Returns: In the dtype of `h`.
    """
    _check_rows(g, h)
    n, d = g.shape
    out = torch.empty_like(h)
    tile = _tile("unrectify", h)
    if n:
        with torch.cuda.device_of(g):
            _unrectify_kernel[_grid(n, d, tile)](
                g_ptr=g,
                h_ptr=h,
                index_ptr=index[0],
                columns_ptr=index[1],
                out_ptr=out,
                along_ptr=along,
                N=n,
                D=d,
                stride_gn=g.stride(0),
                stride_hn=h.stride(0),
                stride_n=out.stride(0),
                stride_ad=along.stride(0),
                stride_an=along.stride(1),
                Q=q,
                **_blocks(tile),
            )
    return out


def _check_rows(*tensors: torch.Tensor) -> None:
    for x in tensors:
        if x.stride(1) != 1 and x.shape[1] > 1:
            raise ValueError(f"rows: expected stride 1 along features, got strides {x.stride()}")


def _tile(kernel: str, like: torch.Tensor) -> Tile:
    return tile_for(kernel, arch_of(_row_dots_kernel, like), 4, "any")


def _blocks(tile: Tile) -> dict[str, Any]:
    sizes = {"BLOCK_N": tile.block_n, "BLOCK_D": tile.block_m}
    return {**sizes, "num_warps": tile.num_warps, **LAUNCH_OPTIONS}


def _grid(n: int, d: int, tile: Tile) -> tuple[int]:
    return (triton.cdiv(n, tile.block_n) * triton.cdiv(d, tile.block_m),)


__all__ = ["rectify_bwd", "rectify_fwd", "row_dots_fwd", "row_gradients_fwd"]
