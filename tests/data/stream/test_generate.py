"""The public functions: same values whatever the threads, the slices, the chunks and the memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from mmcl_fast.data import chunks, labels, normal, words
from mmcl_fast.data.stream import stream_numpy
from mmcl_fast.data.stream.generate import CHUNK_BYTES

SEED = 0x0123456789ABCDEF
# 425 tiles: enough for three threads, and no multiple of two or three.
SHAPE, START = (5, 5, 4_250), (1, 2, 300)


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return stream_numpy.standard_normal(SEED, "noise", SHAPE, START, epoch=9)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_change_nothing(threads: int, whole: np.ndarray) -> None:
    x = normal(SEED, "noise", SHAPE, START, epoch=9, threads=threads)
    assert np.array_equal(x.numpy(), whole)
    w = words(SEED, "noise", SHAPE, START, epoch=9, threads=threads)
    assert np.array_equal(w, stream_numpy.words(SEED, "noise", SHAPE, START, epoch=9))


@pytest.mark.parametrize("threads", [1, 2])
def test_any_slice_equals_that_of_the_whole(threads: int, whole: np.ndarray) -> None:
    draw = np.random.default_rng(0)
    for _ in range(40):
        low, high = np.sort(draw.integers(0, np.array(SHAPE) + 1, size=(2, 3)), axis=0).tolist()
        start = tuple(s + i for s, i in zip(START, low, strict=True))
        shape = tuple(b - a for a, b in zip(low, high, strict=True))
        x = normal(SEED, "noise", shape, start, epoch=9, threads=threads)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert np.array_equal(x.numpy(), whole[box]), (low, high)


@pytest.mark.parametrize(("along", "axis"), [("samples", 1), ("dims", 2)])
@pytest.mark.parametrize("size", [None, 1, 2, 3000])
def test_chunks(along: str, axis: int, size: int | None, whole: np.ndarray) -> None:
    size = 256 if (along, size) == ("dims", 1) else size  # single dims: slow, and no new case
    end, buffers = 0, set()
    for offset, values in chunks(SEED, "noise", SHAPE, START, 9, along=along, size=size):
        assert offset == end
        end += values.shape[axis]
        expected = np.take(whole, range(offset, end), axis)
        assert np.array_equal(values.numpy(), expected)
        buffers.add(values.data_ptr())
    assert end == SHAPE[axis]
    assert len(buffers) == 1


def test_chunks_are_about_as_large_as_promised() -> None:
    _, first = next(chunks(1, "noise", (1, 100, 10**6)))
    assert CHUNK_BYTES / 2 < first.nbytes <= CHUNK_BYTES
    assert first.shape[2] % 256 == 0


def test_out_is_filled_and_returned(whole: np.ndarray) -> None:
    array = np.full(SHAPE, np.nan, dtype=np.float32)
    assert normal(SEED, "noise", SHAPE, START, 9, out=array) is array
    assert np.array_equal(array, whole)
    tensor = torch.full(SHAPE, torch.nan)
    assert normal(SEED, "noise", None, START, 9, out=tensor) is tensor
    assert np.array_equal(tensor.numpy(), whole)


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_dtypes(scale: float, whole: np.ndarray) -> None:
    z = torch.from_numpy(whole)
    f32 = normal(SEED, "noise", SHAPE, START, 9, scale)
    assert torch.equal(f32, z * torch.tensor(scale))
    bf16 = normal(SEED, "noise", SHAPE, START, 9, scale, "bfloat16")
    assert bf16.dtype is torch.bfloat16
    assert torch.equal(bf16, f32.bfloat16())
    f64 = normal(SEED, "noise", SHAPE, START, 9, scale, torch.float64)
    assert f64.dtype is torch.float64
    assert torch.equal(f64, z.double() * scale)


def test_streams_epochs_and_seeds_differ() -> None:
    draws = [normal(s, t, (1, 1, 64), epoch=e) for s, t, e in DIFFERENT]
    assert len({d.numpy().tobytes() for d in draws}) == len(DIFFERENT)


DIFFERENT = [(0, "noise", 0), (1, "noise", 0), (2**32, "noise", 0), (0, "init", 0), (0, "noise", 1)]


def test_a_thread_that_flushes_subnormals_gets_the_same_values() -> None:
    expected = normal(1, shape=(1, 1, 300), scale=1e-38).numpy().tobytes()
    torch.set_flush_denormal(True)
    try:
        got = normal(1, shape=(1, 1, 300), scale=1e-38).numpy().tobytes()
    finally:
        torch.set_flush_denormal(False)
    assert got == expected


def test_autograd_sees_the_write() -> None:
    leaf, saved = torch.ones(1, 1, 4, requires_grad=True), torch.ones(1, 1, 4)
    product = leaf * saved
    normal(1, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_empty_shapes() -> None:
    for shape in [(0, 2, 3), (2, 0, 3), (2, 3, 0)]:
        assert normal(1, shape=shape).shape == shape
        assert words(1, "noise", shape).shape == shape
        assert [v for _, v in chunks(1, "noise", shape, along="samples") if v.numel()] == []


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, mmcl_fast.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_labels_are_bits_of_the_stream() -> None:
    whole = labels(9, "test_labels", (3, 700), dtype="float64")
    exact = stream_numpy.words(9, "test_labels", (3, 1, 700))[:, 0] >> 31
    assert np.array_equal(whole.numpy(), 1.0 - 2.0 * exact)
    assert torch.equal(labels(9, "test_labels", (2, 50), (1, 333)), whole[1:, 333:383].float())
    # 2100 fair coins: the sum is beyond 4.5 sigma with probability 7e-6.
    assert abs(whole.sum().item()) < 4.5 * 2100**0.5
    with pytest.raises(
        ValueError, match="expected one of labels, test_labels, probe_labels, got 'noise'"
    ):
        labels(9, "noise", (1, 1))
    with pytest.raises(ValueError, match=r"expected \(runs, samples\)"):
        labels(9, "labels", (1, 1, 1))
