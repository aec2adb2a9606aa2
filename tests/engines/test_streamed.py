"""Streamed data: the same run as with explicit data, bit for bit, in less memory."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast import ConfigError, DataError, EngineRefusedError, TrainConfig, train
from mmcl_fast.data import normal, sample
from mmcl_fast.data.signal_noise import gpu, rows
from mmcl_fast.data.signal_noise.rows import HeldRows, StreamedRows, pieces_of
from mmcl_fast.data.signal_noise.synthetic import draw_augmented
from mmcl_fast.engines import memory_bytes, resolve_engine
from mmcl_fast.engines.encoder import Sources

BASE = TrainConfig(n=700, d=48, m=24, epochs=3, n_test=20, engine="primal", device="cpu")


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("single", "a sample and its view"),
    Case("multi", "unequal modalities", {"modality": "multi", "d_b": 33, "sigma_xi_b": 0.5}),
    Case("double", "another dtype of the stream", {"dtype": "float64", "q": 2, "sigma_0": 0.1}),
    Case("fresh_views", "another epoch of the stream", {"augment": "per_epoch"}),
    Case("minibatches", "rows in any order", {"optimizer": "sgd", "batch_size": 300}),
    Case("drawn", "features in the samples' own order", {"negatives_per_sample": 5}),
    Case("adam", "weights that leave the span", {"optimizer": "adam", "eta": 1e-3}),
    Case(
        "odd_row",
        "rows that start at any address",
        {"d": 45, "modality": "multi", "optimizer": "sgd", "batch_size": 299},
    ),
]


def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows.piece_rows
    monkeypatch.setattr(rows, "piece_rows", lambda count, d, numbers: whole(count, d, 256 * 48))


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """Several pieces, the last of them ragged."""
    cut_small(monkeypatch)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_a_streamed_run_is_the_explicit_run_bit_for_bit(case: Case, small_pieces) -> None:
    cfg = BASE.replace(**case.settings)
    explicit, streamed = train(cfg), train(cfg.replace(data="streamed"))
    assert streamed.config.data == "streamed"
    for name in ("loss", "ood_accuracy", "signal", "noise", "gamma", "rho", "gamma_b", "rho_b"):
        a, b = getattr(explicit, name), getattr(streamed, name)
        assert (a is None) == (b is None), name
        assert a is None or torch.equal(a, b), name
    for modality in ("a", "b") if cfg.is_multi else ("a",):
        assert torch.equal(explicit.weights(modality), streamed.weights(modality))
    assert explicit.loss[-1] != explicit.loss[0]


def test_a_run_in_pieces_is_the_run_in_one(monkeypatch) -> None:
    cfg = BASE.replace(dtype="float64")
    whole = train(cfg)
    cut_small(monkeypatch)
    pieces = train(cfg)
    assert not torch.equal(pieces.weights(), whole.weights())  # sums of other parts
    # As between engines: tests/engines/test_agreement.py.
    torch.testing.assert_close(pieces.weights(), whole.weights(), rtol=0, atol=1e-12)
    torch.testing.assert_close(pieces.loss, whole.loss, rtol=0, atol=1e-12)


def test_pieces_are_the_rows(small_pieces) -> None:
    cfg = BASE.replace(n=600)
    whole = sample(cfg).noise
    assert whole is not None
    some = torch.randperm(600)[:530]
    streamed = StreamedRows(cfg, "a", torch.device("cpu"))
    for source in (HeldRows(whole), streamed):
        for samples in (None, some):
            expected = whole if samples is None else whole[samples]
            found = [(part, x.clone()) for part, x in source.pieces(samples)]
            assert [part for part, _ in found] == list(pieces_of(len(expected), cfg.d))
            assert [len(x) for _, x in found[:-1]] == [256, 256]
            assert torch.equal(torch.cat([x for _, x in found]), expected)
    shard = StreamedRows(cfg, "a", torch.device("cpu"), samples=range(100, 130))
    assert torch.equal(torch.cat([x.clone() for _, x in shard.pieces(None)]), whole[100:130])
    drawn = normal(cfg.data_key, "augment", (1, 30, cfg.d), (0, 100, 0), scale=cfg.sigma_eps)[0]
    shard = StreamedRows(cfg, "epsilon", torch.device("cpu"), samples=range(100, 130))
    assert torch.equal(torch.cat([x.clone() for _, x in shard.pieces(None)]), drawn)


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("some", [False, True], ids=["all", "minibatch"])
def test_fresh_views_on_a_gpu_are_exact_sums_in_the_pieces_drawn(
    some: bool, features: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawn(StreamedRows):
        piece_elements = 1  # 256 rows, as of many numbers; held rows are one piece there

    monkeypatch.setattr(gpu, "DeviceRows", Drawn)
    cfg = BASE.replace(augment="per_epoch")
    data = sample(cfg)
    assert data.noise is not None
    samples = torch.randperm(cfg.n)[:600] if some else None
    sources = Sources(cfg, data, range(cfg.n), torch.device("cpu"), features)
    found = [(part, x.clone()) for part, x in sources.views(2).pieces(samples)]
    expected = draw_augmented(cfg, data.noise, 2)
    expected = expected if samples is None else expected[samples]
    assert [part.start for part, _ in found] == [0, 256, 512]
    assert torch.equal(torch.cat([x for _, x in found]), expected)
    ((part, x),) = sources.rows[0].pieces(samples)
    assert (part, x.dtype) == (slice(0, len(expected)), features)


def test_pieces_are_of_bounded_size_and_of_aligned_rows() -> None:
    for count, d in ((100, 2000), (10**5, 2000), (10**6, 4096), (10**6, 10**6), (5, 3), (5000, 1)):
        size = rows.piece_rows(count, d)
        assert size == count or size % 256 == 0
        assert size <= 256 or size * d <= 1 << 22


def test_samples_hold_no_noise() -> None:
    cfg = BASE.replace(data="streamed")
    data, explicit = sample(cfg), sample(BASE)
    assert data.noise is None
    assert data.augmented is None
    assert torch.equal(data.weights, explicit.weights)
    assert torch.equal(data.test_noise, explicit.test_noise)


def test_refusals() -> None:
    cfg = BASE.replace(data="streamed")
    assert resolve_engine(cfg.replace(engine="auto", n=100)) == "primal"
    for engine in ("native", "gram", "reference"):
        with pytest.raises(EngineRefusedError, match=f"engine {engine}: data streamed: .* primal"):
            train(cfg.replace(engine=engine))
    with pytest.raises(DataError, match="data: expected none of your own with data = streamed"):
        train(cfg, {"labels": torch.ones(700)})
    with pytest.raises(ConfigError, match=r"d: expected at most 2\^34 with data streamed"):
        cfg.replace(d=2**34 + 1)


def test_memory_is_that_of_pieces_and_a_larger_run_is_refused_before_work_starts() -> None:
    large = TrainConfig(
        n=10**6, d=10**6, m=4, engine="primal", evaluate_every=0, n_test=1, device="cpu"
    )
    assert memory_bytes(large, "primal") > 8e12
    assert memory_bytes(large.replace(data="streamed"), "primal") < 5e9
    with pytest.raises(DataError, match=r"memory: .* or data = streamed"):
        train(large)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
def test_peak_memory_is_within_the_prediction() -> None:
    code = """
from pathlib import Path
from mmcl_fast import TrainConfig, train
from mmcl_fast.engines import memory_bytes
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
small = TrainConfig(n=20, d=20, epochs=1, data="streamed", engine="primal")
train(small)
cfg = small.replace(n=4000, d=20000, m=20, evaluate_every=0)
start = peak()
train(cfg)
print((peak() - start) / memory_bytes(cfg, "primal"), (peak() - start) / (cfg.n * cfg.d * 4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    of_predicted, of_data = map(float, done.stdout.split())
    assert 0.5 < of_predicted <= 1.1
    assert of_data < 0.5
