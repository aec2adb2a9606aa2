"""Every instruction set equals the NumPy oracle in every bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from mmcl_fast import _native
from mmcl_fast.data.stream import stream_numpy
from mmcl_fast.stream_tags import MAX_DIM, MAX_EPOCH, MAX_RUN, MAX_SAMPLE, STREAM_TAGS

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    id: str
    shape: Triple
    start: Triple = (0, 0, 0)
    seed: int = 1
    stream: str = "noise"
    epoch: int = 0


CASES = [
    Case("one_value", (1, 1, 1)),  # a partial tile alone
    Case("one_tile", (1, 1, 256)),  # no partial tile
    Case("just_over", (1, 1, 257)),  # one value in the second tile
    Case("ragged", (2, 3, 1000), (4, 5, 77), stream="augment"),  # head, whole tiles and tail
    Case("inside_a_tile", (3, 2, 90), (0, 7, 300)),  # head and tail in the same tile
    Case("many_tiles", (1, 2, 70_001), (0, 0, 3)),  # more tiles than any unrolling
    Case("block_sign", (1, 1, 600), (0, 0, 2**33 - 300)),  # block passes 2^31
    Case("word_carry", (1, 1, 600), (0, 0, 2**32 - 300)),  # dim passes 2^32
    Case("last_dim", (1, 2, 999), (0, 0, MAX_DIM - 998)),  # block ends at 2^32 - 1
    Case("last_row", (2, 2, 300), (MAX_RUN - 1, MAX_SAMPLE - 1, 0)),
    Case("last_epoch", (1, 2, 300), epoch=MAX_EPOCH - 1, stream="chi"),
    Case("high_seed", (1, 2, 300), seed=0xFEDCBA9876543210),
    Case("largest_seed", (1, 2, 300), seed=2**64 - 1, epoch=3, stream="init_b"),
]


def native(case: Case, target: str, out: np.ndarray, **options: object) -> np.ndarray:
    fill = _native.fill_words if out.dtype == np.uint32 else _native.fill_normal
    fill(
        out,
        start=case.start,
        seed=case.seed,
        tag=STREAM_TAGS[case.stream],
        epoch=case.epoch,
        threads=1,
        target=target,
        **options,
    )
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_words(case: Case, target: str) -> None:
    expected = stream_numpy.words(case.seed, case.stream, case.shape, case.start, case.epoch)
    got = native(case, target, np.zeros(case.shape, dtype=np.uint32))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("scale", [1.0, 0.3, -2e-39], ids=["unit", "scaled", "subnormal"])
def test_float32(case: Case, scale: float, target: str) -> None:
    z = stream_numpy.standard_normal(case.seed, case.stream, case.shape, case.start, case.epoch)
    got = native(case, target, np.full(case.shape, np.nan, dtype=np.float32), scale=scale)
    np.testing.assert_array_equal(bits(got), bits(z * np.float32(scale)))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_float64(case: Case, target: str) -> None:
    z = stream_numpy.standard_normal(case.seed, case.stream, case.shape, case.start, case.epoch)
    got = native(case, target, np.full(case.shape, np.nan), scale=0.1)
    np.testing.assert_array_equal(bits(got), bits(z.astype(np.float64) * 0.1))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("scale", [1.0, 0.3, 3e38], ids=["unit", "scaled", "overflowing"])
def test_bfloat16(case: Case, scale: float, target: str) -> None:
    z = stream_numpy.standard_normal(case.seed, case.stream, case.shape, case.start, case.epoch)
    with np.errstate(over="ignore"):
        expected = nearest_bfloat16(z * np.float32(scale))
    got = native(case, target, np.zeros(case.shape, dtype=np.uint16), scale=scale)
    np.testing.assert_array_equal(got, expected)


def test_rows_at_any_stride(target: str) -> None:
    case = Case("strided", (2, 3, 700), (1, 2, 50))
    whole = np.full((5, 4, 6, 1024), 7.0, dtype=np.float32)
    view = whole[4:2:-1, 1, ::2, 3:703]
    native(case, target, view, scale=1.0)
    expected = stream_numpy.standard_normal(1, "noise", case.shape, case.start)
    np.testing.assert_array_equal(view, expected)
    view[:] = 7.0
    assert (whole == 7.0).all()  # nothing was written between the rows


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.float64, np.uint32])
def test_streaming_stores(target: str, dtype: type) -> None:
    """An output beyond the cache equals its rows made one by one; odd rows are not aligned."""
    row = 256 * 1000 + 24
    rows = -(-(33 << 20) // (row * np.dtype(dtype).itemsize))
    memory = np.zeros(rows * row * np.dtype(dtype).itemsize + 64, dtype=np.uint8)
    offset = -memory.ctypes.data % 64
    out = memory[offset : offset + memory.size - 64].view(dtype).reshape(1, rows, row)
    options = {} if dtype is np.uint32 else {"scale": 0.5}
    native(Case("large", out.shape), target, out, **options)
    for sample in range(rows):
        alone = np.zeros((1, 1, row), dtype=dtype)
        native(Case("row", alone.shape, (0, sample, 0)), target, alone, **options)
        assert np.array_equal(out[:, sample : sample + 1], alone), sample


def test_environment_names_the_target(target: str) -> None:
    assert run_with_target(target) == (0, target)


def test_unknown_target_is_refused() -> None:
    code, output = run_with_target("sse9")
    assert code != 0
    assert "MMCL_CPU_TARGET: expected one of auto, " in output
    with pytest.raises(ValueError, match=r"target: expected one of auto, .* got 'sse9'"):
        native(CASES[0], "sse9", np.zeros((1, 1, 1), dtype=np.uint32))


def run_with_target(name: str) -> tuple[int, str]:
    code = "from mmcl_fast import _native; print(_native.active_target())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MMCL_CPU_TARGET": name},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(f"u{x.dtype.itemsize}")


def nearest_bfloat16(x: np.ndarray) -> np.ndarray:
    """Upper half of the nearest float32 whose lower half is zero, ties to even: by comparison."""
    low = bits(x) & np.uint32(0xFFFF0000)
    high = low + np.uint32(0x10000)
    middle = low | np.uint32(0x8000)
    up = (bits(x) > middle) | ((bits(x) == middle) & ((low >> 16) & 1 == 1))
    return (np.where(up, high, low) >> 16).astype(np.uint16)
