"""Data of many runs: those of each alone, whatever is drawn beside it and by how many threads."""

from __future__ import annotations

import re

import pytest
import torch

from mmcl_fast import DataError, TrainConfig
from mmcl_fast.data import normal, sample
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.sampling import check_drawable, sample_many
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.data.stream.generate import label_runs, labels, normal_runs

BASE = TrainConfig(n=9, d=300, m=5, n_test=7, device="cpu", sigma_xi=1.7, seed=3)
KINDS = [
    {"data": data, "modality": modality, "dtype": dtype}
    for data, modality, dtype in (
        ("explicit", "single", "float32"),
        ("explicit", "multi", "float64"),
        ("reduced", "single", "float64"),
        ("reduced", "multi", "float32"),
        ("orthogonal", "single", "float32"),
        ("orthogonal", "multi", "float64"),
        ("streamed", "single", "float32"),
    )
]
# Every number in which runs side by side may differ, and both keys.
DIFFERENT = [
    {},
    {"seed": 2**64 - 1},
    {"data_seed": 5},
    {"init_seed": 5, "sigma_0": 0.3},
    {"mu_norm": 1.5, "nu_norm": 0.3, "mu_b_norm": 2.5},
    {"sigma_xi": 0.3, "sigma_xi_b": 2.3, "sigma_eps": 0.7},
    {"seed": 8, "d_b": 41},
    {"d": 12},
    {"d": 10**4},
    {"seed": 9},
    {"probe_on": "ood", "probe_samples": 6},
    {"probe_on": "ood", "probe_samples": 6, "seed": 4},
]


def assert_same(ours: SignalNoiseData, want: SignalNoiseData) -> None:
    for name, value in vars(want).items():
        found = getattr(ours, name)
        assert (found is None) == (value is None), name
        assert value is None or (found.dtype == value.dtype and torch.equal(found, value)), name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
def test_runs_side_by_side_are_those_alone(kind: dict[str, str]) -> None:
    configs = [BASE.replace(**kind, **changes) for changes in DIFFERENT]
    for cfg, ours in zip(configs, sample_many(configs), strict=True):
        assert_same(ours, sample(cfg))


def test_kinds_may_be_mixed() -> None:
    configs = [BASE.replace(**kind, seed=seed) for seed in range(2) for kind in KINDS]
    for cfg, ours in zip(configs, sample_many(configs), strict=True):
        assert_same(ours, sample(cfg))


@pytest.mark.parametrize("data", ["explicit", "reduced"])
def test_threads_change_no_bit(data: str) -> None:
    configs = [BASE.replace(data=data, n=60, d=3000, seed=seed) for seed in range(40)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = sample_many(configs)
        torch.set_num_threads(3)
        for ours, want in zip(sample_many(configs), one, strict=True):
            assert_same(ours, want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_normals_of_runs_are_run_0_of_each_seed(dtype: torch.dtype) -> None:
    keys, scales = [7, 2**64 - 1, 0], [0.7, -2.0, 1.0]
    found = normal_runs("init_b", keys, (5, 700), scales, dtype)
    for ours, key, scale in zip(found, keys, scales, strict=True):
        assert torch.equal(ours, normal(key, "init_b", (1, 5, 700), scale=scale, dtype=dtype)[0])
    for ours, key in zip(label_runs(keys, "test_labels", 33, dtype), keys, strict=True):
        assert torch.equal(ours, labels(key, "test_labels", (1, 33), dtype=dtype)[0])


def test_normals_of_runs_refuse_what_one_refuses() -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        normal_runs("noise", [1, 2**64], (2, 3), [1.0, 1.0], torch.float32)
    with pytest.raises(ValueError, match="scale: expected a finite"):
        normal_runs("noise", [1], (2, 3), [1e300], torch.float32)
    with pytest.raises(ValueError, match="scales: expected one for each run"):
        normal_runs("noise", [1, 2], (2, 3), [1.0], torch.float32)
    with pytest.raises(ValueError, match=re.escape("(dims): expected")):
        normal_runs("noise", [1], (1, 2**34 + 1), [1.0], torch.float32)


def test_one_run_without_a_negative_is_named() -> None:
    alone = next(
        s for s in range(50) if len(set(labels(s, "labels", (1, 2)).flatten().tolist())) == 1
    )
    seeds = [s for s in range(50) if len(set(labels(s, "labels", (1, 2))[0].tolist())) == 2][:3]
    configs = [BASE.replace(n=2, seed=s) for s in (*seeds, alone)]
    assert len(sample_many(configs[:-1])) == 3
    with pytest.raises(DataError, match=f"seed {alone} draws 2 labels that are all"):
        sample_many(configs)
    with pytest.raises(DataError, match=f"seed {alone} draws"):
        check_drawable(configs[-1])


def test_memory_of_all_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [BASE.replace(d=10**5, seed=seed) for seed in range(3)]
    needed = 4 * (10**5 * (2 * 9 + 5 + 7 + 2) + 9 + 7)
    monkeypatch.setattr("mmcl_fast.data.signal_noise.sampling.available_bytes", lambda: 2 * needed)
    assert len(sample_many(configs[:2])) == 2
    with pytest.raises(DataError, match=re.escape("got 3 runs of 0.0 GiB at n = 9, d = 100000")):
        sample_many(configs)


def test_runs_are_views_of_blocks_of_equal_sizes() -> None:
    configs = [BASE.replace(d=d, seed=seed) for seed, d in enumerate((12, 12, 20, 12))]
    batch = sample_many(configs)
    assert [runs for runs, _ in batch.parts()] == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert len(batch) == 4
    for runs, block in batch.parts():
        for r, run in enumerate(batch[runs]):
            for name, value in vars(run).items():
                whole = getattr(block, name)
                assert (value is None) == (whole is None), name
                assert value is None or value.data_ptr() == whole[r].data_ptr(), name
    labels = batch.stacked("labels")
    assert torch.equal(labels, torch.stack([run.labels for run in batch]))


def test_a_batch_of_a_batch_or_of_one_run_copies_nothing() -> None:
    batch = sample_many([BASE, BASE.replace(seed=1)])
    assert SignalNoiseBatch.of(batch) is batch
    assert batch.stacked("noise") is batch.blocks[0].noise
    (block,) = SignalNoiseBatch.of(batch[:1]).blocks
    assert block.noise.shape == (1, BASE.n, BASE.d)
    assert block.noise.data_ptr() == batch[0].noise.data_ptr()
    assert block.mu_b is None


def test_separate_runs_become_blocks_of_equal_sizes() -> None:
    runs = [sample(BASE.replace(d=d, seed=seed)) for seed, d in enumerate((12, 12, 20))]
    batch = SignalNoiseBatch.of(runs)
    assert [len(block.labels) for block in batch.blocks] == [2, 1]
    for ours, want in zip(batch, runs, strict=True):
        assert_same(ours, want)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS[:-1], ids=lambda kind: "-".join(kind.values()))
def test_a_gpu_draws_the_same_bits(kind: dict[str, str]) -> None:
    configs = [BASE.replace(**kind, **changes) for changes in DIFFERENT]
    for want, ours in zip(
        sample_many(configs), sample_many(configs, torch.device("cuda")), strict=True
    ):
        assert ours.weights.is_cuda
        assert_same(
            SignalNoiseData(**{k: None if v is None else v.cpu() for k, v in vars(ours).items()}),
            want,
        )


def test_norms_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # A copy to the host would wait for all that was launched before, that is for training.
    pytest.importorskip("triton")
    from mmcl_fast.data.signal_noise import gpu

    monkeypatch.setattr(gpu, "row_dots_fwd", lambda x, y: x.new_empty(len(x)))
    device = torch.device("meta")
    for shape in ((4,), (3, 4)):
        norms = gpu.square_norms([torch.empty(k, *shape, device=device) for k in (2, 1)], device)
        assert norms.device == device
        assert norms.shape == (3, *shape[:-1])
