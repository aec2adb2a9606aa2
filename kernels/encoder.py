"""The two-layer encoder (3) on noise patches, and its weight gradient, as two fused products.

    H = act(X W^T)                           X [N, D], W [M, D], act(z) = max(0, z)^q
    dL/dW = C^T X + c_mu mu^T                C = dL/dH * act'    [N, M]
    act' = q h^((q - 1) / q)                 from the activation: pre-activations are not kept

The signal patch y mu has two distinct rows, so its activations are two rows as well, act(<w_r, mu>)
and act(-<w_r, mu>); what comes back through them is c_mu = g_+ act'(h_+) - g_- act'(h_-), g summed
over the samples of each label. Neither an N x D nor an N x M array is made of it.

Numerics contract: products are summed in float32, whatever the inputs are: those of 16-bit inputs
are exact and use matrix units; float32 inputs take `precision`: "ieee", "tf32x3" or "tf32", see
`trajectory.py`. H is rounded to the inputs' dtype, so with u = 2^-8 (bfloat16), 2^-11 (float16), 0
(float32) its relative error is u, and that of act' at most u. C is rounded to the inputs' dtype
before it meets X. h^((q-1)/q) for q > 2 is taken by exp2 and log2, relative error 2^-20. The weight
gradient is float32. float16 has few exponents: gradients are to come without factors like 1/n.

Deterministic: no atomics. Where M x D is too small to fill a GPU, samples are cut into ranges with
sums of their own, which are added in order; the ranges depend on sizes alone.

Cost: 2 N M D flop each. Least traffic: X, W and H once each forward; X, H, dL/dH and 4 bytes an
element of dL/dW backward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import PRECISIONS, Tile, arch_of, tile_for
from mmcl_fast.kernels.contrast_statistics import column_ranges
from mmcl_fast.kernels.trajectory_steps import activation

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class SignalGradient(NamedTuple):
    """What comes back through the signal patch.

    Attributes:
        mu: [D], the inputs' dtype.
        features: act(<w_r, mu>) and act(-<w_r, mu>), [2, M], float32.
        gradient: dL/d(features), each summed over the samples of its label, [2, M], float32.
    """

    mu: torch.Tensor
    features: torch.Tensor
    gradient: torch.Tensor


@triton.jit
def _slope(h, Q: tl.constexpr):
    """act'(z) from h = act(z) as float32; 0 where h is 0."""
    if Q == 1:
        slope = tl.where(h > 0.0, 1.0, 0.0)
    elif Q == 2:
        slope = 2.0 * tl.sqrt_rn(h)
    else:
        power = tl.exp2(tl.log2(tl.where(h > 0.0, h, 1.0)) * ((Q - 1.0) / Q))
        slope = tl.where(h > 0.0, Q * power, 0.0)
    return slope


@triton.jit
def _block_of(pid, rows, columns, GROUP: tl.constexpr):
    """Row and column of a block: neighbours in time share blocks of both factors in L2."""
    group = pid // (GROUP * columns)
    first = group * GROUP
    here = tl.minimum(rows - first, GROUP)
    within = pid - group * GROUP * columns
    return first + within % here, within // here


@triton.jit(do_not_specialize=["N"])
def _encoder_fwd_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    x_ptr,
    w_ptr,
    h_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    stride_xn: tl.int64,
    stride_wm: tl.int64,
    stride_hn: tl.int64,
    Q: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: a block of H."""
    row, column = _block_of(tl.program_id(0), tl.cdiv(N, BLOCK_N), tl.cdiv(M, BLOCK_M), GROUP)
    offs_n = row * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_m = column * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_k = tl.arange(0, BLOCK_K)
    # Rows past the end read the last one: their results are not stored.
    x = x_ptr + tl.minimum(offs_n, N - 1).to(tl.int64)[:, None] * stride_xn
    w = w_ptr + tl.minimum(offs_m, M - 1).to(tl.int64)[:, None] * stride_wm
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for k in range(0, D, BLOCK_K):
        at = (k + offs_k).to(tl.int64)[None, :]
        inside = (k + offs_k)[None, :] < D
        xs = tl.load(x + at, mask=inside, other=0.0)
        ws = tl.load(w + at, mask=inside, other=0.0)
        acc = tl.dot(xs, tl.trans(ws), acc, input_precision=PRECISION)
    h = activation(acc, Q).to(h_ptr.dtype.element_ty)
    at = offs_n.to(tl.int64)[:, None] * stride_hn + offs_m[None, :]
    tl.store(h_ptr + at, h, mask=(offs_n < N)[:, None] & (offs_m < M)[None, :])


@triton.jit
def _encoder_signal_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    w_ptr,
    mu_ptr,
    out_ptr,
    M: tl.int32,
    D: tl.int32,
    stride_wm: tl.int64,
    Q: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: act(<w_r, mu>) and act(-<w_r, mu>) of BLOCK_M neurons."""
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < M
    offs_k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_M], tl.float32)
    for k in range(0, D, BLOCK_K):
        at = (k + offs_k).to(tl.int64)
        inside = at < D
        mu = tl.load(mu_ptr + at, mask=inside, other=0.0).to(tl.float32)
        rows = w_ptr + (offs_m.to(tl.int64)[:, None] * stride_wm + at[None, :])
        w = tl.load(rows, mask=mask_m[:, None] & inside[None, :], other=0.0).to(tl.float32)
        acc += tl.sum(w * mu[None, :], 1)
    tl.store(out_ptr + offs_m.to(tl.int64), activation(acc, Q), mask=mask_m)
    tl.store(out_ptr + (offs_m.to(tl.int64) + M), activation(-acc, Q), mask=mask_m)


@triton.jit(do_not_specialize=["N", "split"])
def _encoder_bwd_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    x_ptr,
    h_ptr,
    g_ptr,
    mu_ptr,
    signal_ptr,
    signal_g_ptr,
    out_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    split: tl.int32,
    stride_xn: tl.int64,
    stride_hn: tl.int64,
    stride_gn: tl.int64,
    Q: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: a block of the weight gradient over samples split * pid and following."""
    row, column = _block_of(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(D, BLOCK_D), GROUP)
    part = tl.program_id(1)
    ELEMENT: tl.constexpr = x_ptr.dtype.element_ty
    offs_m = row * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = column * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_m, mask_d = (offs_m < M)[None, :], (offs_d < D)[None, :]
    at_m, at_d = offs_m.to(tl.int64)[None, :], offs_d.to(tl.int64)[None, :]
    begin = part * split
    end = tl.minimum(begin + split, N)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for i in range(begin, end, BLOCK_K):
        offs_n = i + tl.arange(0, BLOCK_K)
        inside, rows = (offs_n < end)[:, None], offs_n.to(tl.int64)[:, None]
        h = tl.load(h_ptr + (rows * stride_hn + at_m), mask=inside & mask_m, other=0.0)
        g = tl.load(g_ptr + (rows * stride_gn + at_m), mask=inside & mask_m, other=0.0)
        x = tl.load(x_ptr + (rows * stride_xn + at_d), mask=inside & mask_d, other=0.0)
        c = (g.to(tl.float32) * _slope(h.to(tl.float32), Q)).to(ELEMENT)
        acc = tl.dot(tl.trans(c), x, acc, input_precision=PRECISION)
    if mu_ptr is not None:  # noqa: SIM102  (known at compile time, the other is not)
        if part == 0:
            one, valid = offs_m.to(tl.int64), offs_m < M
            up = _slope(tl.load(signal_ptr + one, mask=valid, other=0.0), Q)
            down = _slope(tl.load(signal_ptr + (one + M), mask=valid, other=0.0), Q)
            up *= tl.load(signal_g_ptr + one, mask=valid, other=0.0)
            down *= tl.load(signal_g_ptr + (one + M), mask=valid, other=0.0)
            mu = tl.load(mu_ptr + offs_d.to(tl.int64), mask=offs_d < D, other=0.0)
            acc += (up - down)[:, None] * mu.to(tl.float32)[None, :]
    out = (part.to(tl.int64) * M + offs_m)[:, None] * D + at_d
    tl.store(out_ptr + out, acc, mask=(offs_m < M)[:, None] & mask_d)


def encoder_fwd(
    x: torch.Tensor, w: torch.Tensor, *, q: int, precision: str = "ieee"
) -> torch.Tensor:
    """Activations of noise patches.

    Args:
        x: Patches, [N, D]: bfloat16 | float16 | float32, stride 1 along D.
        w: Weights, [M, D], the same dtype, stride 1 along D.
        q: Power of the activation, >= 1.
        precision: Of products of float32: ieee | tf32x3 | tf32.

    Returns: H, [N, M], the inputs' dtype.
    Raises: ValueError (shapes, strides, device, q, precision), TypeError (dtype).
    """
    _check(q, precision, x=(x, (len(x), x.shape[-1])), w=(w, (len(w), x.shape[-1])))
    (n, d), m = x.shape, len(w)
    h = x.new_empty(n, m)
    if not (n and m):
        return h
    tile = _tile("encoder_fwd", x)
    with torch.cuda.device_of(x):
        _encoder_fwd_kernel[(triton.cdiv(n, tile.block_n) * triton.cdiv(m, tile.block_m),)](
            x, w, h, n, m, d, x.stride(0), w.stride(0), h.stride(0),
            Q=q, PRECISION=precision, GROUP=GROUP,
            BLOCK_N=tile.block_n, BLOCK_M=tile.block_m, BLOCK_K=tile.block_k,
            num_warps=tile.num_warps, num_stages=tile.num_stages, **LAUNCH_OPTIONS,
        )  # fmt: skip
    return h


def encoder_signal_fwd(w: torch.Tensor, mu: torch.Tensor, *, q: int) -> torch.Tensor:
    """act(<w_r, mu>) and act(-<w_r, mu>), the activations of the signal patch for each label.

    Args:
        w: Weights, [M, D], as for `encoder_fwd`.
        mu: Signal, [D], the same dtype.
        q: Power of the activation, >= 1.

    Returns: [2, M], float32.
    Raises: ValueError, TypeError: as `encoder_fwd`.
    """
    _check(q, "ieee", w=(w, (len(w), w.shape[-1])), mu=(mu, (w.shape[-1],)))
    out = w.new_empty(2, len(w), dtype=torch.float32)
    if len(w):
        tile = _tile("encoder_signal", w)
        with torch.cuda.device_of(w):
            _encoder_signal_kernel[(triton.cdiv(len(w), tile.block_m),)](
                w, mu, out, len(w), w.shape[1], w.stride(0), Q=q, BLOCK_M=tile.block_m,
                BLOCK_K=tile.block_k, num_warps=tile.num_warps, **LAUNCH_OPTIONS,
            )  # fmt: skip
    return out


def encoder_bwd(
    x: torch.Tensor,
    h: torch.Tensor,
    g: torch.Tensor,
    signal: SignalGradient | None = None,
    *,
    q: int,
    precision: str = "ieee",
) -> torch.Tensor:
    """Gradient of the weights from that of the activations.

    Args:
        x: Patches, [N, D], as for `encoder_fwd`.
        h: Their activations, [N, M], the same dtype, stride 1 along M.
        g: dL/dH, [N, M], any of the dtypes, stride 1 along M.
        signal: What comes back through the signal patch.
        q: Power of the activation, >= 1.
        precision: Of products of float32: ieee | tf32x3 | tf32.

    Returns: dL/dW, [M, D], float32.
    Raises: ValueError, TypeError: as `encoder_fwd`.
    """
    (n, d), m = x.shape, h.shape[-1]
    _check(q, precision, x=(x, (n, d)), h=(h, (n, m)))
    _check(q, precision, g=(g, (n, m)))
    if signal is not None:
        _check(q, precision, x=(x, (n, d)), mu=(signal.mu, (d,)))
        _check(q, precision, features=(signal.features, (2, m)), gradient=(signal.gradient, (2, m)))
    tile = _tile("encoder_bwd", x)
    blocks = triton.cdiv(m, tile.block_m) * triton.cdiv(d, tile.block_n)
    split, parts = column_ranges(blocks, max(n, 1), tile.block_k)
    out = x.new_empty(parts, m, d, dtype=torch.float32)
    if not (m and d):
        return out.new_zeros(m, d)
    mu, features, gradient = (None, None, None) if signal is None else signal
    with torch.cuda.device_of(x):
        _encoder_bwd_kernel[(blocks, parts)](
            x, h, g, mu, features, gradient, out, n, m, d, split,
            x.stride(0), h.stride(0), g.stride(0), Q=q, PRECISION=precision, GROUP=GROUP,
            BLOCK_M=tile.block_m, BLOCK_D=tile.block_n, BLOCK_K=tile.block_k,
            num_warps=tile.num_warps, num_stages=tile.num_stages, **LAUNCH_OPTIONS,
        )  # fmt: skip
    return out[0] if parts == 1 else out.sum(dim=0)


GROUP = 8  # rows of blocks that share the other factor in L2


def _tile(kernel: str, like: torch.Tensor) -> Tile:
    return tile_for(kernel, arch_of(_encoder_fwd_kernel, like), like.element_size(), "any")


def _check(q: int, precision: str, **tensors: tuple[torch.Tensor, tuple[int, ...]]) -> None:
    """Refuse tensors that differ from the first in dtype or device, or from their shapes."""
    if q < 1:
        raise ValueError(f"q: expected at least 1, got {q}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision}")
    first = next(iter(tensors.values()))[0]
    for name, (x, shape) in tensors.items():
        if x.dtype not in DTYPES or x.dtype != first.dtype:
            wanted = first.dtype if first.dtype in DTYPES else "bfloat16, float16 or float32"
            raise TypeError(f"{name}: expected {wanted}, got {x.dtype}")
        if tuple(x.shape) != shape or x.device != first.device:
            got = f"{list(x.shape)} on {x.device}"
            raise ValueError(f"{name}: expected {list(shape)} on {first.device}, got {got}")
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            raise ValueError(f"{name}: expected stride 1 along its last axis, got {x.stride()}")
        if max(shape) > MAX_SIZE:
            raise ValueError(f"{name}: expected at most {MAX_SIZE} rows, got {max(shape)}")


MAX_SIZE = 2**31 - 2**16  # rows, and rows to the end of a block, are counted in 32 bits

__all__ = ["SignalGradient", "encoder_bwd", "encoder_fwd", "encoder_signal_fwd"]
