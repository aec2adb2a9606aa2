"""Standard normals of the random stream, written straight into a tensor.

    out[r, n, d] = scale * z(seed, tag, epoch, run0 + r, sample0 + n, dim0 + d)      out [R, N, D]

`z` is `docs/stream.md`: Philox4x32-10 (Salmon et al., SC 2011) on the counter (block, sample, run,
tag and epoch), then Box and Muller (1958) by polynomials. Any slice equals that slice of the whole.

Numerics contract: bit for bit the NumPy oracle `mmcl_fast/data/stream/stream_numpy.py`. Every step
is an integer operation or one correctly rounded float32 operation (`fma`, `mul`, `add`, `sqrt`;
`tl.sqrt` would be an approximation); no product feeds an addition, and fusion is switched off at
the launch all the same, so that the PTX spells `.rn` and the assembler may contract nothing.
Subnormals are kept. float32: `z * float32(scale)`; bfloat16: that, rounded to nearest even;
float64: `float64(z) * scale`. Coefficients: fitted by `csrc/tools/fit_transform.py`.

Cost: no reads, R * N * D * itemsize bytes written; per four normals one Philox block (20 widening
multiplies, 20 three-way xors), 2 square roots and 32 fma. Deterministic: no atomics, no reduction,
and a value does not depend on the tile that computes it.
"""

import math
from collections.abc import Sequence
from types import MappingProxyType

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, tile_for

TILE_D = 256  # dimensions that share LANES consecutive Philox blocks
LANES = 64
MAX_SEED = 2**64 - 1
MAX_EPOCH = 2**24 - 1
MAX_TAG = 2**8 - 1
INDEX_ENDS = (2**32, 2**32, 2**34)  # of run, sample and dim: one past the largest
MAX_PROGRAMS = 2**31 - 1  # of the first grid axis
MANY_SAMPLES = 4  # from here on a program takes several samples

# Contraction is already impossible by the order of operations; this makes the PTX say so.
LAUNCH_OPTIONS = MappingProxyType({"enable_fp_fusion": False})
_LOG_SPLIT = tl.constexpr(1518500249)
_LOG_BITS = tl.constexpr(0x3F3504F3)
_LOG_C = tl.constexpr(
    (
        float.fromhex("-0x1p+1"),
        float.fromhex("0x1.fffffap-1"),
        float.fromhex("-0x1.5556f2p-1"),
        float.fromhex("0x1.0004aep-1"),
        float.fromhex("-0x1.98d33p-2"),
        float.fromhex("0x1.535aaap-2"),
        float.fromhex("-0x1.317ee4p-2"),
        float.fromhex("0x1.251124p-2"),
        float.fromhex("-0x1.660338p-3"),
    )
)
_MINUS_2_LN2 = tl.constexpr(float.fromhex("-0x1.62e43p+0"))
_SIN_C = tl.constexpr(
    (
        float.fromhex("0x1.921fb6p-1"),
        float.fromhex("-0x1.4abc22p-4"),
        float.fromhex("0x1.467fdcp-9"),
        float.fromhex("-0x1.32f65cp-15"),
    )
)
_COS_C = tl.constexpr(
    (
        float.fromhex("0x1p+0"),
        float.fromhex("-0x1.3bd3ccp-2"),
        float.fromhex("0x1.03c1bp-6"),
        float.fromhex("-0x1.55b2b6p-12"),
        float.fromhex("0x1.d4f7eap-19"),
    )
)
_TWO_TO_MINUS_31 = tl.constexpr(2.0**-31)


@triton.jit
def _horner(x, C: tl.constexpr, DEGREE: tl.constexpr):
    """Polynomial with coefficients `C`, lowest degree first, one fma a step."""
    acc = tl.full(x.shape, C[DEGREE], tl.float32)
    for k in tl.static_range(DEGREE):
        acc = tl.fma(acc, x, tl.full(x.shape, C[DEGREE - 1 - k], tl.float32))
    return acc


@triton.jit
def _radius(word):
    """sqrt(-2 log u), u = (v + 1/2) / 2^31 with v the upper 31 bits of a uint32 word."""
    v = (word >> 1).to(tl.int32, bitcast=True)
    near_one = v > _LOG_SPLIT
    f = tl.where(near_one, v ^ 0x7FFFFFFF, v).to(tl.float32) + 0.5
    bits = f.to(tl.int32, bitcast=True) - _LOG_BITS
    exponent = ((bits >> 23) - 31).to(tl.float32)
    mantissa = ((bits & 0x7FFFFF) + _LOG_BITS).to(tl.float32, bitcast=True)
    t = tl.where(near_one, f * -_TWO_TO_MINUS_31, mantissa - 1.0)
    e = tl.where(near_one, 0.0, exponent * _MINUS_2_LN2)
    return tl.sqrt_rn(tl.fma(t, _horner(t, _LOG_C, 8), e))


@triton.jit
def _flip_sign(value, sign):
    """`value` with its sign bit flipped where bit 31 of the uint32 `sign` is set."""
    flipped = value.to(tl.uint32, bitcast=True) ^ (sign & 0x80000000)
    return flipped.to(tl.float32, bitcast=True)


@triton.jit
def _box_muller(radius_word, angle_word):
    """The pair (r cos, r sin) of two uint32 words, as float32."""
    fraction = ((angle_word << 2) | 2).to(tl.int32, bitcast=True)
    x = fraction.to(tl.float32) * _TWO_TO_MINUS_31
    x2 = x * x
    s = x * _horner(x2, _SIN_C, 3)
    c = _horner(x2, _COS_C, 4)
    swap = (angle_word & 0x40000000) != 0
    first = _flip_sign(tl.where(swap, s, c), angle_word ^ (angle_word << 1))
    second = _flip_sign(tl.where(swap, c, s), angle_word)
    r = _radius(radius_word)
    return r * first, r * second


# One binary per dtype and tile, whatever the sizes: the work is arithmetic, stores of one element
# a thread are coalesced already, and wider ones would cost a transpose through shared memory.
@triton.jit(do_not_specialize=range(16))
def _normal_fill_kernel(  # noqa: PLR0913  (a kernel's parameters are its registers, not an API)
    out_ptr,
    seeds_ptr,
    scales_ptr,
    N: tl.int64,
    D: tl.int64,
    stride_or: tl.int64,
    stride_on: tl.int64,
    seed: tl.int64,
    counter3: tl.int64,
    run0: tl.int64,
    sample0: tl.int64,
    tile0: tl.int32,
    skip: tl.int32,
    scale: tl.float64,
    num_tiles: tl.int32,
    num_blocks_n: tl.int32,
    OWN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    LANES: tl.constexpr,
):
    """One program: BLOCK_N samples of one run, one tile of 4 * LANES dimensions.

    `tile0` is the tile of the first dimension and `skip` its place in it. OWN: each run of `out` is
    run `run0` of a stream with a seed and a scale of its own.
    """
    pid = tl.program_id(0)
    pid_d = pid % num_tiles
    pid_n = (pid // num_tiles) % num_blocks_n
    pid_r = (pid // num_tiles) // num_blocks_n

    offs_l = tl.arange(0, LANES)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]

    # uint32 each: operands of 64 bits would select Philox4x64.
    c0 = (tile0 + pid_d).to(tl.uint32) * LANES + offs_l.to(tl.uint32)
    c1 = (sample0 + offs_n).to(tl.uint32)
    c2 = (run0 if OWN else run0 + pid_r).to(tl.uint32)
    if OWN:
        seed = tl.load(seeds_ptr + pid_r.to(tl.int64))
        scale = tl.load(scales_ptr + pid_r.to(tl.int64))
    c3 = counter3.to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, c0[None, :], c1[:, None], c2, c3)
    z0, z1 = _box_muller(w0, w1)  # [BLOCK_N, LANES]
    z2, z3 = _box_muller(w2, w3)

    ELEMENT: tl.constexpr = out_ptr.dtype.element_ty
    WORK: tl.constexpr = tl.float64 if out_ptr.dtype.element_ty == tl.float64 else tl.float32
    factor = tl.full([1, 1], scale, tl.float64).to(WORK)
    offs_d = pid_d.to(tl.int64) * (4 * LANES) + offs_l - skip  # [LANES], of word 0
    rows = out_ptr + pid_r.to(tl.int64) * stride_or + offs_n[:, None] * stride_on
    mask_n = offs_n[:, None] < N
    for w in tl.static_range(4):
        z = z0 if w == 0 else (z1 if w == 1 else (z2 if w == 2 else z3))
        offs_w = offs_d[None, :] + w * LANES
        mask = mask_n & (offs_w >= 0) & (offs_w < D)
        tl.store(rows + offs_w, (z.to(WORK) * factor).to(ELEMENT), mask=mask)


def normal_fill(
    out: torch.Tensor,
    *,
    seed: int,
    tag: int,
    epoch: int = 0,
    start: tuple[int, int, int] = (0, 0, 0),
    scale: float = 1.0,
) -> torch.Tensor:
    """Fills `out` with `scale` times the standard normals of a stream, and returns it.

    Args:
        out: [runs, samples, dims], bfloat16 | float32 | float64, on CUDA (on the CPU in Triton's
            interpreter). Neighbouring dims are neighbours in memory; runs and samples may have
            any strides under which no two elements share memory.
        seed: Key of the stream, 0 .. 2^64 - 1.
        tag: Number of the stream, see `docs/stream.md`.
        epoch: 0 .. 2^24 - 1.
        start: Run, sample and dim of `out[0, 0, 0]`.
        scale: Factor on every value; rounded to float32 first unless `out` is float64.

    Returns: `out`.
    Raises: ValueError (shape, strides, range, device), TypeError (dtype); nothing is written then.
    Numerics: bit-equal to the oracle; see the head of this file and tests/kernels/test_normal.py.
    Cost: one write of `out`; nothing is allocated.
    See: mmcl_fast.data.stream.stream_numpy.standard_normal (meaning).
    """
    _check_out(out)
    _check_range("seed", seed, MAX_SEED)
    _check_range("tag", tag, MAX_TAG)
    _check_range("epoch", epoch, MAX_EPOCH)
    _check_start(start, tuple(out.shape))
    _check_scale(scale, out.dtype)
    _launch(out, (None, None), _signed(seed), float(scale), tag << 24 | epoch, start)
    return out


def normal_fill_runs(
    out: torch.Tensor, *, seeds: Sequence[int], scales: Sequence[float], tag: int
) -> torch.Tensor:
    """`normal_fill` at run 0 of streams that differ in seed and scale, in one launch.

    Args:
        out: As in `normal_fill`: [runs, samples, dims].
        seeds: Key of each run's stream, [runs].
        scales: Factor of each run, [runs].
        tag: As in `normal_fill`.

    Returns: `out`.
    Raises: As `normal_fill`.
    """
    _check_out(out)
    _check_range("tag", tag, MAX_TAG)
    _check_start((0, 0, 0), (1, *out.shape[1:]))
    if not len(seeds) == len(scales) == len(out):
        raise ValueError(
            f"seeds, scales: expected one for each of {len(out)} runs, got {len(seeds)} and "
            f"{len(scales)}"
        )
    for seed, scale in zip(seeds, scales, strict=True):
        _check_range("seed", seed, MAX_SEED)
        _check_scale(scale, out.dtype)
    own = (
        torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=out.device),
        torch.tensor(scales, dtype=torch.float64, device=out.device),
    )
    _launch(out, own, 0, 0.0, tag << 24, (0, 0, 0))
    return out


def _launch(
    out: torch.Tensor,
    own: tuple[torch.Tensor | None, torch.Tensor | None],
    seed: int,
    scale: float,
    counter3: int,
    start: tuple[int, int, int],
) -> None:
    if out.numel() == 0:
        return
    R, N, D = out.shape
    size_bin = "many" if N >= MANY_SAMPLES else "few"
    tile = tile_for("normal_fill", arch_of(_normal_fill_kernel, out), out.itemsize, size_bin)
    tile0, skip = divmod(start[2], TILE_D)
    num_tiles = triton.cdiv(skip + D, TILE_D)
    num_blocks_n = triton.cdiv(N, tile.block_n)
    programs = R * num_blocks_n * num_tiles
    if programs > MAX_PROGRAMS:
        raise ValueError(
            f"out: expected at most {MAX_PROGRAMS} blocks of {tile.block_n} samples x {TILE_D} "
            f"dims, got {programs}; fill it in parts"
        )
    with torch.cuda.device_of(out):  # Triton launches on the current device, not on the tensor's
        _normal_fill_kernel[(programs,)](
            out_ptr=out,
            seeds_ptr=own[0],
            scales_ptr=own[1],
            N=N,
            D=D,
            stride_or=out.stride(0),
            stride_on=out.stride(1),
            seed=seed,
            counter3=counter3,
            run0=start[0],
            sample0=start[1],
            tile0=tile0,
            skip=skip,
            scale=scale,
            num_tiles=num_tiles,
            num_blocks_n=num_blocks_n,
            OWN=own[0] is not None,
            BLOCK_N=tile.block_n,
            LANES=LANES,
            num_warps=tile.num_warps,
            **LAUNCH_OPTIONS,
        )


def _signed(seed: int) -> int:
    """The same 64 bits as a signed number."""
    return seed - 2**64 if seed >= 2**63 else seed


def _check_range(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name}: expected 0..{most}, got {value}")


def _check_out(out: torch.Tensor) -> None:
    if out.dtype not in (torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"out: expected bfloat16, float32 or float64, got {out.dtype}")
    if out.ndim != 3:
        raise ValueError(f"out: expected [runs, samples, dims], got shape {tuple(out.shape)}")
    reach = 1  # elements that the axes seen so far may touch, from the closest stride outwards
    axes = [(out.stride(i), out.shape[i]) for i in range(3) if out.shape[i] > 1]
    if out.shape[2] > 1 and out.stride(2) != 1:
        raise ValueError(f"out: expected stride 1 along dims, got strides {out.stride()}")
    for stride, size in sorted(axes):
        if stride < reach:
            raise ValueError(f"out: expected elements of their own, got strides {out.stride()}")
        reach = stride * (size - 1) + reach


def _check_start(start: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    for name, first, size, end in zip(
        ("run", "sample", "dim"), start, shape, INDEX_ENDS, strict=True
    ):
        if first < 0 or first + size > end:
            raise ValueError(
                f"start: expected {name}s within 0..{end - 1}, got {first}..{first + size - 1}"
            )


def _check_scale(scale: float, dtype: torch.dtype) -> None:
    most = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max
    if not (math.isfinite(scale) and abs(scale) <= most):
        raise ValueError(f"scale: expected a finite number of at most {most:g}, got {scale}")


__all__ = ["normal_fill", "normal_fill_runs"]
