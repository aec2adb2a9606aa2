"""The noise kernel against the NumPy oracle, bit for bit, in the interpreter and on a GPU."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import triton
import triton.language as tl

from mmcl_fast import stream_tags
from mmcl_fast.data.stream import stream_numpy
from mmcl_fast.kernels import normal
from mmcl_fast.kernels.normal import (
    _box_muller,
    _normal_fill_kernel,
    normal_fill,
    normal_fill_runs,
)

from .exact_interpreter import bfloat16_bits, exact_interpreter, fma_rounds_once

DTYPES = [torch.bfloat16, torch.float32, torch.float64]
SCALE = 0.7  # not a float32, so that its rounding shows


@dataclass(frozen=True)
class Case:
    id: str
    shape: tuple[int, int, int]
    start: tuple[int, int, int] = (0, 0, 0)
    seed: int = 20240229
    epoch: int = 0
    stream: str = "noise"
    why: str = ""


CASES = [
    Case("one_tile", (1, 4, 256), why="no mask"),
    Case("ragged", (2, 5, 300), why="every mask edge, several runs"),
    Case("few_samples", (3, 2, 600), why="the tile for few samples, three tiles of dims"),
    Case("one_value", (1, 1, 1), start=(3, 7, 129), why="one lane of the third word"),
    Case("mid_tile", (1, 6, 70), start=(1, 2, 190), why="two tiles, both cut"),
    Case("inside_tile", (2, 9, 60), start=(0, 1, 100), why="one tile cut at both ends"),
    Case("seed_1", (1, 4, 64), seed=1, why="an argument of 1 could become a constant"),
    Case(
        "sign_bits",
        (2, 5, 300),
        start=(2**31 - 1, 2**31 - 2, 2**33 - 150),
        seed=2**63 + 5,
        epoch=2**23,
        stream="minibatch",
        why="run, sample and block step over 2^31; key negative as a signed number",
    ),
    Case(
        "largest",
        (2, 5, 300),
        start=(2**32 - 2, 2**32 - 5, 2**34 - 300),
        seed=2**64 - 1,
        epoch=2**24 - 1,
        stream="chi",
        why="the last value of every index",
    ),
    Case("middle_seed", (1, 4, 64), seed=3 * 10**9, why="more than int32, less than uint32"),
    Case("high_key", (1, 4, 64), seed=5 << 32, why="only the upper key word is not zero"),
]


def standard(case: Case) -> npt.NDArray[np.float32]:
    return stream_numpy.standard_normal(case.seed, case.stream, case.shape, case.start, case.epoch)


def scaled(z: npt.NDArray[np.float32], scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Section 4 of the specification, by NumPy."""
    if dtype == torch.float64:
        return torch.from_numpy(z.astype(np.float64) * scale)
    single = z * np.float32(scale)
    if dtype == torch.float32:
        return torch.from_numpy(single)
    return torch.from_numpy(bfloat16_bits(single)).view(torch.bfloat16)


def assert_same_bits(ours: torch.Tensor, want: torch.Tensor) -> None:
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[want.itemsize]
    assert ours.dtype == want.dtype
    differ = ours.cpu().contiguous().view(bits) != want.view(bits)
    assert not differ.any(), f"{int(differ.sum())} of {differ.numel()} values differ"


def poisoned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """NaN in the middle of more NaN: a store past a mask is then an error, not a crash."""
    margin, size = 2**14, math.prod(shape)
    memory = torch.full((size + 2 * margin,), float("nan"), dtype=dtype, device=device)
    return memory[margin : margin + size].view(shape)


def fill(out: torch.Tensor, case: Case, scale: float = SCALE) -> torch.Tensor:
    return normal_fill(
        out,
        seed=case.seed,
        tag=stream_tags.STREAM_TAGS[case.stream],
        epoch=case.epoch,
        start=case.start,
        scale=scale,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_oracle(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    out = poisoned(case.shape, dtype, device)
    assert fill(out, case) is out
    assert_same_bits(out, scaled(standard(case), SCALE, dtype))


@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_runs_with_seeds_of_their_own(
    samples: int, dtype: torch.dtype, device: torch.device
) -> None:
    seeds, scales = [7, 2**64 - 1, 2**63, 3 << 32], [1.0, -0.7, 1e-3, 0.0]
    out = poisoned((4, samples, 300), dtype, device)
    tag = stream_tags.STREAM_TAGS["init_b"]
    assert normal_fill_runs(out, seeds=seeds, scales=scales, tag=tag) is out
    for run, seed, scale in zip(out, seeds, scales, strict=True):
        z = stream_numpy.standard_normal(seed, "init_b", (1, samples, 300))
        assert_same_bits(run, scaled(z, scale, dtype)[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": [1]}, "seeds, scales: expected one for each of 2 runs, got 1 and 2"),
        ({"seeds": [1, 2**64]}, "seed: expected 0.."),
        ({"scales": [1.0, math.inf]}, "scale: expected a finite number"),
        ({"tag": 256}, "tag: expected 0..255"),
    ],
    ids=["count", "seed", "scale", "tag"],
)
def test_runs_reject_arguments(changed: dict[str, Any], message: str, device: torch.device) -> None:
    out = torch.zeros(2, 3, 4, device=device)
    with pytest.raises(ValueError, match=re.escape(message)):
        normal_fill_runs(out, **{"seeds": [1, 2], "scales": [1.0, 2.0], "tag": 3} | changed)
    assert not out.any()


@pytest.mark.parametrize("part", [(0, 0, 0), (1, 3, 255), (2, 8, 256), (0, 5, 301)], ids=str)
def test_slice_equals_slice_of_whole(part: tuple[int, int, int], device: torch.device) -> None:
    whole = fill(poisoned((3, 9, 700), torch.float32, device), Case("", (3, 9, 700)))
    r, n, d = part
    want = whole[r:, n : n + 6, d : d + 300]
    case = Case("", (want.shape[0], want.shape[1], want.shape[2]), start=part)
    out = fill(poisoned(case.shape, torch.float32, device), case)
    assert_same_bits(out, want.cpu().contiguous())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["runs_outside", "samples_outside"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_writes_only_its_view(
    order: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    case = Case("", (2, 5, 90), start=(0, 0, 201))
    around = poisoned((case.shape[order[0]] + 2, case.shape[order[1]] + 2, 120), dtype, device)
    view = around[1:-1, 1:-1, 13:103].permute(*order, 2)
    fill(view, case)
    assert_same_bits(view, scaled(standard(case), SCALE, dtype))
    view.fill_(float("nan"))
    assert around.isnan().all()


@pytest.mark.parametrize("scale", [1e-38, -3.0, 0.0], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scale(scale: float, dtype: torch.dtype, device: torch.device) -> None:
    """1e-38: float32 and bfloat16 results are mostly subnormal, and are kept."""
    case = Case("", (1, 4, 256))
    out = fill(poisoned(case.shape, dtype, device), case, scale)
    assert_same_bits(out, scaled(standard(case), scale, dtype))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_empty(shape: tuple[int, int, int], device: torch.device) -> None:
    assert normal_fill(torch.empty(shape, device=device), seed=0, tag=1).shape == shape


@triton.jit
def _transform_kernel(words_ptr, out_ptr, n: tl.int32, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    radius_word = tl.load(words_ptr + offs, mask=mask).to(tl.uint32, bitcast=True)
    angle_word = tl.load(words_ptr + n + offs, mask=mask).to(tl.uint32, bitcast=True)
    first, second = _box_muller(radius_word, angle_word)
    tl.store(out_ptr + offs, first, mask=mask)
    tl.store(out_ptr + n + offs, second, mask=mask)


def test_transform_at_edges(device: torch.device) -> None:
    """Words that a stream would show once in 2^32: ends, quadrants, powers of two, the split."""
    powers = [2**k + s for k in range(32) for s in (-1, 0, 1)]
    split = [2 * stream_numpy.LOG_SPLIT + s for s in range(-40, 41)]
    quadrants = [q * 2**30 + s for q in range(4) for s in (0, 1, 2**29 - 1, 2**29, 2**30 - 1)]
    edge = np.array([0, 2**32 - 1, *powers, *split, *quadrants], dtype=np.uint32)
    radius_word, angle_word = (w.ravel() for w in np.meshgrid(edge, edge))
    n = radius_word.size
    words = torch.from_numpy(np.concatenate([radius_word, angle_word]).view(np.int32)).to(device)
    out = poisoned((2, n), torch.float32, device)
    _transform_kernel[(triton.cdiv(n, 1024),)](words, out, n, BLOCK=1024, **normal.LAUNCH_OPTIONS)
    want = stream_numpy.box_muller((radius_word, angle_word, radius_word, angle_word))[:2]
    assert_same_bits(out, torch.from_numpy(np.stack(want)))


@pytest.mark.parametrize(
    "strides", [(2**31 + 64, 2**20, 1), (2**20, 2**31 + 64, 1)], ids=["runs", "samples"]
)
def test_strides_beyond_32_bits(
    strides: tuple[int, int, int], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows more than 2^31 elements apart, in memory of which only the rows are ever touched."""
    if device.type == "cpu":
        _write_in_place(monkeypatch)
    memory = torch.empty(2**31 + 2**20 + 128, dtype=torch.bfloat16, device=device)
    case = Case("", (2, 2, 64))
    out = fill(memory.as_strided(case.shape, strides), case)
    assert_same_bits(out, scaled(standard(case), SCALE, torch.bfloat16))


@pytest.mark.interpreter
@pytest.mark.parametrize("axis", ["samples", "dims"])
def test_sizes_beyond_32_bits(axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one program of a fill of 2^31 + 256 values that writes the last ones."""
    from triton.runtime.interpreter import interpreter_builder

    _write_in_place(monkeypatch)
    size, block_n = 2**31 + 256, 4
    if axis == "samples":
        shape, tail, start = (1, size, 1), (1, block_n, 1), (0, size - block_n, 0)
    else:
        shape, tail, start = (1, 1, size), (1, 1, 256), (0, 0, size - 256)
    tiles, blocks = triton.cdiv(shape[2], 256), triton.cdiv(shape[1], block_n)
    last = (tiles * blocks - 1, 0, 0)
    monkeypatch.setattr(
        interpreter_builder,
        "set_grid_idx",
        lambda *_: setattr(interpreter_builder, "grid_idx", last),
    )
    memory = torch.empty(size, dtype=torch.bfloat16)
    with exact_interpreter():
        _normal_fill_kernel[(1,)](
            *(memory, None, None, shape[1], shape[2], size, shape[2]),
            *(7, 1 << 24, 0, 0, 0, 0, SCALE),  # seed, noise, start at zero
            *(tiles, blocks),
            OWN=False,
            BLOCK_N=block_n,
            LANES=normal.LANES,
        )
    z = stream_numpy.standard_normal(7, "noise", tail, start)
    assert_same_bits(memory[-math.prod(tail) :], scaled(z, SCALE, torch.bfloat16).ravel())


@pytest.mark.gpu
def test_dims_beyond_32_bits_on_gpu() -> None:
    case = Case("", (1, 1, 2**31 + 300))
    out = fill(torch.empty(case.shape, dtype=torch.bfloat16, device="cuda"), case)
    z = stream_numpy.standard_normal(case.seed, "noise", (1, 1, 600), (0, 0, 2**31 - 300))
    assert_same_bits(out[:, :, -600:], scaled(z, SCALE, torch.bfloat16))


def _write_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the interpreter from copying a CPU tensor's whole memory onto itself at the end."""
    from triton.runtime.interpreter import GridExecutor

    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)


@pytest.mark.interpreter
def test_stock_interpreter_is_close() -> None:
    """Without our patch: equal where the interpreter's fma rounds once, else nearly."""
    case = Case("", (2, 5, 300))
    out = fill(torch.empty(case.shape), case, scale=1.0)
    error = np.abs(out.numpy() - standard(case)).max()
    assert error <= (0.0 if fma_rounds_once() else 1e-6)


@pytest.mark.interpreter
def test_patched_interpreter_rounds_once() -> None:
    with exact_interpreter():
        assert fma_rounds_once()


def test_bfloat16_oracle_agrees_with_torch() -> None:
    """Includes ties, which random values hardly show."""
    bits = np.arange(0x3F7F0000, 0x3F830000, 0x4000, dtype=np.uint32)
    values = np.concatenate([bits, bits + 1, bits - 1, bits | 0x80000000]).view(np.float32)
    want = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values), want)


def test_limits_are_those_of_the_stream() -> None:
    ends = (stream_tags.MAX_RUN + 1, stream_tags.MAX_SAMPLE + 1, stream_tags.MAX_DIM + 1)
    assert ends == normal.INDEX_ENDS
    assert (stream_tags.MAX_SEED, stream_tags.MAX_EPOCH) == (normal.MAX_SEED, normal.MAX_EPOCH)
    assert (stream_numpy.TILE, stream_numpy.LANES) == (normal.TILE_D, normal.LANES)


REJECTED = [
    ("seed", {"seed": -1}, r"seed: expected 0\.\.\d+, got -1"),
    ("seed_large", {"seed": 2**64}, r"seed: expected"),
    ("tag", {"tag": 256}, r"tag: expected 0\.\.255, got 256"),
    ("epoch", {"epoch": 2**24}, r"epoch: expected"),
    ("run", {"start": (2**32 - 1, 0, 0)}, r"start: expected runs within"),
    ("sample", {"start": (0, -1, 0)}, r"start: expected samples within"),
    ("dim", {"start": (0, 0, 2**34 - 3)}, r"start: expected dims within"),
    ("nan", {"scale": float("nan")}, r"scale: expected a finite number"),
    ("overflow", {"scale": 1e39}, r"scale: expected a finite number"),
]


@pytest.mark.parametrize(
    ("changed", "message"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED]
)
def test_rejects_arguments(changed: dict[str, object], message: str) -> None:
    out = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=message):
        normal_fill(out, **({"seed": 0, "tag": 1} | changed))
    assert not out.any()


def test_rejects_outputs() -> None:
    good = torch.zeros(2, 3, 4)
    with pytest.raises(
        TypeError, match=r"out: expected bfloat16, float32 or float64, got .*float16"
    ):
        normal_fill(good.half(), seed=0, tag=1)
    with pytest.raises(ValueError, match=r"out: expected \[runs, samples, dims\], got shape"):
        normal_fill(good[0], seed=0, tag=1)
    with pytest.raises(ValueError, match=r"out: expected stride 1 along dims"):
        normal_fill(good.transpose(1, 2), seed=0, tag=1)
    for shared in (good[:1].expand(2, 3, 4), good.as_strided((2, 3, 4), (4, 2, 1))):
        with pytest.raises(ValueError, match=r"out: expected elements of their own"):
            normal_fill(shared, seed=0, tag=1)


@pytest.mark.interpreter
def test_rejects_more_programs_than_a_grid_has() -> None:
    with pytest.raises(ValueError, match=r"out: expected at most \d+ blocks .* got 2147483648"):
        normal_fill(torch.empty(2**31, 1, 1, device="meta"), seed=0, tag=1)


def test_rejects_cpu_outside_the_interpreter() -> None:
    with pytest.raises(ValueError, match=r"out: expected a CUDA tensor .* got device cpu"):
        normal_fill(torch.zeros(2, 3, 4), seed=0, tag=1)
