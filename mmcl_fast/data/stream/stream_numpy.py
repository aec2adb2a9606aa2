"""The random stream in plain NumPy: slow, short, and the oracle of every faster implementation.

`docs/stream.md` is the specification; this file follows it step by step. Counter-based generator:
Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
Normal transform: Box and Muller (1958), in correctly rounded float32 steps only, so that any
implementation that keeps to the steps gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mmcl_fast.stream_tags import MAX_EPOCH, STREAM_TAGS

F32 = np.float32
U32 = np.uint32
U64 = np.uint64
Words = tuple[npt.NDArray[np.uint32], ...]
T = TypeVar("T", np.uint32, np.float32)

PHILOX_M0, PHILOX_M1 = U64(0xD2511F53), U64(0xCD9E8D57)
PHILOX_W0, PHILOX_W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

TILE = 256  # dimensions that share 64 consecutive Philox blocks
LANES = 64  # distance between the four dimensions of one block

# Coefficients fitted by `csrc/tools/fit_transform.py`; exact float32 values in hexadecimal.
LOG_SPLIT = 1518500249  # floor(2^31 / sqrt(2)): above it, u is nearer to 1 than the split point
LOG_BITS = 0x3F3504F3  # bits of float32(sqrt(1/2)), the least mantissa of the exponent split
LOG_C = [
    float.fromhex(c)
    for c in (
        "-0x1.0000000000000p+1",
        "0x1.fffffa0000000p-1",
        "-0x1.5556f20000000p-1",
        "0x1.0004ae0000000p-1",
        "-0x1.98d3300000000p-2",
        "0x1.535aaa0000000p-2",
        "-0x1.317ee40000000p-2",
        "0x1.2511240000000p-2",
        "-0x1.6603380000000p-3",
    )
]  # -2 log(1 + t) = t * sum_k LOG_C[k] t^k, relative error 3.0e-8
MINUS_2_LN2 = float.fromhex("-0x1.62e4300000000p+0")
SIN_C = [
    float.fromhex(c)
    for c in (
        "0x1.921fb60000000p-1",
        "-0x1.4abc220000000p-4",
        "0x1.467fdc0000000p-9",
        "-0x1.32f65c0000000p-15",
    )
]  # sin(pi/4 x) = x * sum_k SIN_C[k] x^2k, relative error 2.8e-8
COS_C = [
    float.fromhex(c)
    for c in (
        "0x1.0000000000000p+0",
        "-0x1.3bd3cc0000000p-2",
        "0x1.03c1b00000000p-6",
        "-0x1.55b2b60000000p-12",
        "0x1.d4f7ea0000000p-19",
    )
]  # cos(pi/4 x) = sum_k COS_C[k] x^2k, relative error 4.4e-10


def philox4x32(
    counter: Sequence[npt.ArrayLike], key: int, rounds: int = ROUNDS
) -> tuple[npt.NDArray[np.uint32], ...]:
    """Philox4x32: four words from four counter words (broadcast) and a 64-bit key."""
    c0, c1, c2, c3 = (np.asarray(c, dtype=U32) for c in np.broadcast_arrays(*counter))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        p0, p1 = c0.astype(U64) * PHILOX_M0, c2.astype(U64) * PHILOX_M1
        hi0, lo0 = (p0 >> U64(32)).astype(U32), p0.astype(U32)
        hi1, lo1 = (p1 >> U64(32)).astype(U32), p1.astype(U32)
        c0, c1, c2, c3 = hi1 ^ c1 ^ U32(k0), lo1, hi0 ^ c3 ^ U32(k1), lo0
        k0, k1 = (k0 + PHILOX_W0) & 0xFFFFFFFF, (k1 + PHILOX_W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def fma32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """float32 a * b + c with one rounding.

    The product is exact in float64. The float64 sum is rounded to odd (Boldo and Melquiond, 2008),
    after which the cast to float32 rounds correctly.
    """
    p = np.asarray(a, dtype=np.float64) * np.asarray(b, dtype=np.float64)
    c = np.asarray(c, dtype=np.float64)
    s = np.asarray(p + c)
    t = s - p
    err = (p - (s - t)) + (c - t)
    bits = s.view(np.int64)
    away = np.where((err > 0) == (s > 0), 1, -1)
    odd = np.where((err != 0) & (bits & 1 == 0), bits + away, bits)
    return odd.view(np.float64).astype(F32)


def _horner(coefficients: Sequence[float], x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    acc = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        acc = fma32(acc, x, F32(c))
    return acc


def radius(word: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """sqrt(-2 log u) with u = (v + 1/2) / 2^31, v the upper 31 bits; between 2.2e-5 and 6.66."""
    v = (word >> U32(1)).astype(np.int32)
    near_one = v > LOG_SPLIT
    v = np.where(near_one, v ^ np.int32(0x7FFFFFFF), v)
    f = v.astype(F32) + F32(0.5)
    bits = f.view(np.int32) - np.int32(LOG_BITS)
    exponent = ((bits >> 23) - 31).astype(F32)
    mantissa = ((bits & 0x7FFFFF) + np.int32(LOG_BITS)).view(F32)
    t = np.where(near_one, f * F32(-(2.0**-31)), mantissa - F32(1.0))
    e = np.where(near_one, F32(0.0), exponent * F32(MINUS_2_LN2))
    return np.sqrt(fma32(t, _horner(LOG_C, t), e))


def unit_circle(
    word: npt.NDArray[np.uint32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(cos, sin) of an angle: two bits pick the quadrant, thirty the place in [-pi/4, pi/4]."""
    x = ((word << U32(2)) | U32(2)).view(np.int32).astype(F32) * F32(2.0**-31)
    x2 = x * x
    sin, cos = x * _horner(SIN_C, x2), _horner(COS_C, x2)
    swap = (word >> U32(30)) & U32(1) == 1
    first, second = np.where(swap, sin, cos), np.where(swap, cos, sin)
    sign_first = (word ^ (word << U32(1))) & U32(0x80000000)
    sign_second = word & U32(0x80000000)
    return (
        (first.view(U32) ^ sign_first).view(F32),
        (second.view(U32) ^ sign_second).view(F32),
    )


def box_muller(
    words: tuple[npt.NDArray[np.uint32], ...],
) -> tuple[npt.NDArray[np.float32], ...]:
    """Four standard normals from the four words of a block: pairs (0, 1) and (2, 3)."""
    out: list[npt.NDArray[np.float32]] = []
    for angle_of, radius_of in ((words[1], words[0]), (words[3], words[2])):
        r = radius(radius_of)
        cos, sin = unit_circle(angle_of)
        out += [r * cos, r * sin]
    return tuple(out)


def _coordinates(
    shape: tuple[int, int, int], start: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    runs, samples, dims = (
        np.arange(s, s + k, dtype=np.uint64) for s, k in zip(start, shape, strict=True)
    )
    return runs.astype(U32)[:, None, None], samples.astype(U32)[None, :, None], dims.astype(int)


def words(
    seed: int,
    stream: str,
    shape: tuple[int, int, int],
    start: tuple[int, int, int] = (0, 0, 0),
    epoch: int = 0,
) -> npt.NDArray[np.uint32]:
    """Raw 32-bit words at [run, sample, dim] of a stream."""
    return _pick(seed, stream, shape, (start, epoch), lambda w: w)


def standard_normal(
    seed: int,
    stream: str,
    shape: tuple[int, int, int],
    start: tuple[int, int, int] = (0, 0, 0),
    epoch: int = 0,
) -> npt.NDArray[np.float32]:
    """float32 standard normals at [run, sample, dim] of a stream."""
    return _pick(seed, stream, shape, (start, epoch), box_muller)


def _pick(
    seed: int,
    stream: str,
    shape: tuple[int, int, int],
    place: tuple[tuple[int, int, int], int],
    transform: Callable[[Words], tuple[npt.NDArray[T], ...]],
) -> npt.NDArray[T]:
    """Transformed words at [run, sample, dim]; `place` is the start and the epoch."""
    start, epoch = place
    if not 0 <= epoch <= MAX_EPOCH:
        raise ValueError(f"epoch: expected 0..{MAX_EPOCH}, got {epoch}")
    run, sample, dim = _coordinates(shape, start)
    first, last = start[2] // TILE, -(-(start[2] + shape[2]) // TILE)
    block = np.arange(first * LANES, last * LANES, dtype=np.uint64).astype(U32)
    tag = U32(STREAM_TAGS[stream] << 24 | epoch)
    values = np.stack(
        transform(philox4x32((block[None, None, :], sample, run, tag), seed)), axis=-2
    )
    # [R, S, 4, tiles * 64] -> [R, S, tiles, 4, 64] -> [R, S, tiles * 256]: word w of block
    # 64 t + l is dimension 256 t + 64 w + l.
    r, s = shape[:2]
    tiled = values.reshape(r, s, 4, last - first, LANES).transpose(0, 1, 3, 2, 4)
    flat = tiled.reshape(r, s, (last - first) * TILE)
    return np.ascontiguousarray(flat[:, :, dim - first * TILE])
