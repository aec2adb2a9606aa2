"""Wrong arguments raise before anything is written, and say what was expected and what was got."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmcl_fast.data import chunks, normal, streaming_gram, words
from mmcl_fast.data.stream import memory
from mmcl_fast.operating_system import memory as system_memory

GOOD: dict[str, Any] = {"seed": 1, "stream": "noise", "shape": (2, 3, 40)}
WRONG = [
    ({"stream": "nois"}, ValueError, r"stream: expected one of noise, noise_b, .*got 'nois'"),
    ({"stream": 1}, ValueError, r"stream: expected one of .*got 1"),
    ({"seed": -1}, ValueError, r"seed: expected 0\.\.18446744073709551615, got -1"),
    ({"seed": 2**64}, ValueError, r"seed: expected .* got 18446744073709551616"),
    ({"seed": 1.0}, TypeError, r"seed: expected an integer, got 1\.0"),
    ({"seed": True}, TypeError, r"seed: expected an integer, got True"),
    ({"epoch": -1}, ValueError, r"epoch: expected 0\.\.16777215, got -1"),
    ({"epoch": 2**24}, ValueError, r"epoch: expected 0\.\.16777215, got 16777216"),
    ({"shape": (2, 3)}, TypeError, r"shape: expected \(runs, samples, dims\), got \(2, 3\)"),
    ({"shape": (2, -3, 4)}, ValueError, r"shape\[1\] \(samples\): expected 0\.\..*, got -3"),
    ({"shape": (2, 3, 4.0)}, TypeError, r"shape\[2\] \(dims\): expected an integer, got 4\.0"),
    ({"shape": (1, 1, 2**34 + 1)}, ValueError, r"shape\[2\] \(dims\): expected .* got 17179869185"),
    ({"start": (0, 0, -1)}, ValueError, r"start\[2\] \(dims\): expected .* got -1"),
    ({"start": (2**32 - 1, 0, 0)}, ValueError, r"runs: expected start \+ size <= 4294967296, got"),
    ({"start": (0, 2**32 - 2, 0)}, ValueError, r"samples: expected start \+ size <= 4294967296"),
    ({"start": (0, 0, 2**34 - 39)}, ValueError, r"dims: expected start \+ size <= 17179869184"),
    ({"threads": 0}, ValueError, r"threads: expected 1\.\.4096, got 0"),
]
WRONG_NORMAL = [
    ({"scale": float("nan")}, ValueError, r"scale: expected a finite float32 factor, got nan"),
    ({"scale": float("inf")}, ValueError, r"scale: expected a finite float32 factor, got inf"),
    ({"scale": 1e39}, ValueError, r"scale: expected a finite float32 factor, got 1e\+39"),
    ({"scale": "big"}, TypeError, r"scale: expected a number, got 'big'"),
    ({"dtype": "float16"}, TypeError, r"dtype: expected one of float32, bfloat16, float64, got"),
    ({"dtype": torch.int32}, TypeError, r"dtype: expected one of .* got torch\.int32"),
]


@pytest.mark.parametrize(("change", "error", "message"), [*WRONG, *WRONG_NORMAL])
def test_normal(change: dict[str, Any], error: type[Exception], message: str) -> None:
    out = torch.full((2, 3, 40), 7.0)
    with pytest.raises(error, match=message):
        normal(**{**GOOD, **change}, out=out)
    assert (out == 7.0).all()


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_words(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        words(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        *WRONG,
        *WRONG_NORMAL,
        ({"along": "runs"}, ValueError, r"along: expected samples or dims, got 'runs'"),
        ({"size": 0}, ValueError, r"size: expected 1\.\..*, got 0"),
    ],
)
def test_chunks_at_the_call(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chunks(**{**GOOD, **change})


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def unaligned() -> np.ndarray:
    array = np.zeros(961, "u1")[1:].view("f4").reshape(2, 3, 40)
    array[:] = 1
    return array


OUTS = [
    (torch.ones(2, 3, 41), ValueError, r"out: expected shape \(2, 3, 40\), got \(2, 3, 41\)"),
    (torch.ones(240), ValueError, r"out: expected shape \(2, 3, 40\), got \(240,\)"),
    (torch.ones(2, 3, 40).double(), TypeError, r"out: expected dtype float32, got float64"),
    (torch.ones(2, 40, 3).mT, ValueError, r"out: expected a contiguous tensor, got strides"),
    (torch.ones(2, 3, 80)[:, :, ::2], ValueError, r"out: expected a contiguous tensor"),
    (torch.ones(2, 3, 40, device="meta"), ValueError, r"out: expected a dense CPU tensor, got .*"),
    (torch.ones(2, 3, 40).to_sparse(), ValueError, r"out: expected a dense CPU tensor"),
    (torch.ones(2, 3, 40, requires_grad=True), ValueError, r"out: expected .* without gradient"),
    (np.ones((2, 3, 40)), TypeError, r"out: expected dtype float32, got float64"),
    (np.ones((2, 3, 40), ">f4"), TypeError, r"out: .* float32, got byte-swapped float32"),
    (np.ones((2, 40, 3), "f4").mT, ValueError, r"out: expected a C-contiguous, aligned and"),
    (frozen(np.ones((2, 3, 40), "f4")), ValueError, r"out: .* writable array, got .*False"),
    (unaligned(), ValueError, r"out: .*aligned"),
    ([[[1.0] * 40] * 3] * 2, TypeError, r"out: expected a torch tensor or NumPy array, got list"),
]


@pytest.mark.parametrize(("out", "error", "message"), OUTS)
def test_out(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        normal(**GOOD, out=out)
    if not (isinstance(out, torch.Tensor) and out.is_meta):
        values = out.detach().to_dense() if isinstance(out, torch.Tensor) else out
        assert (np.asarray(values) == 1).all()


def test_bfloat16_needs_a_tensor() -> None:
    with pytest.raises(TypeError, match="out: expected dtype bfloat16, got uint16"):
        normal(**GOOD, dtype="bfloat16", out=np.ones((2, 3, 40), np.uint16))


def test_shape_or_out_is_needed() -> None:
    with pytest.raises(TypeError, match=r"shape: expected .* when `out` is not given"):
        normal(1)


def test_too_little_memory() -> None:
    message = r"needs 4\.19e\+06 GiB \(4503599627370496 bytes\), available are .*; generate it in"
    for make in (normal, words):
        with pytest.raises(MemoryError, match=message):
            make(1, "noise", (2**16, 2**16, 2**18))
    with pytest.raises(MemoryError, match="shape"):
        chunks(1, "noise", (2**24, 2**24, 1024))
    with pytest.raises(MemoryError, match="Gram matrix of 16777216 samples"):
        streaming_gram(1, "noise", 2**24, 8)


def test_a_container_limit_counts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(system_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "SMALL_BYTES", 0)
    assert memory.available_bytes() == 4000
    with pytest.raises(MemoryError, match=r"\(4004 bytes\), available are .*\(4000 bytes\)"):
        normal(1, shape=(1, 1, 1001))
    assert normal(1, shape=(1, 1, 1000)).numel() == 1000


@pytest.mark.parametrize(
    ("controllers", "top", "limit", "used", "cached"),
    [
        (
            "4:memory:",
            "memory",
            "limit_in_bytes",
            "usage_in_bytes",
            "total_inactive_",
        ),
        ("0::", "", "max", "current", "inactive_"),
    ],
    ids=["version 1", "version 2"],
)
def test_limits_of_every_group_around_the_process(
    controllers: str, top: str, limit: str, used: str, cached: str,
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A batch system limits a group of its own, not the whole machine's."""
    for job in ("job_1", "job_2"):
        (tmp_path / job).write_text(f"7:blkio:/\n{controllers}/slurm/{job}\n")
    unlimited = "max" if controllers == "0::" else str(2**63 - 4096)
    limits = {"": unlimited, "slurm": "9000", "slurm/job_1": unlimited, "slurm/job_2": "6000"}
    for inside, most in limits.items():
        folder = tmp_path / "cgroup" / top / inside
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{limit}").write_text(f"{most}\n")
        (folder / f"memory.{used}").write_text("4000\n")
        (folder / "memory.stat").write_text(f"anon 100\n{cached}file 500\n{cached}anon 9\n")
    monkeypatch.setattr(system_memory, "CGROUP", tmp_path / "cgroup")
    for job, limit_of_it in {"job_1": 9000, "job_2": 6000}.items():
        monkeypatch.setattr(system_memory, "OWN_GROUPS", tmp_path / job)
        assert memory.available_bytes() == limit_of_it - 4000 + 500


def test_cached_file_pages_are_available(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4900\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 4000\nactive_file 0\n")
    monkeypatch.setattr(system_memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 4100
