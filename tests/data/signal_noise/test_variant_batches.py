"""Data of model variants drawn for many runs at once: those of each alone, and those of a hash."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, data_bytes, shapes

BASE = TrainConfig(
    n=40, d=300, m=4, n_test=30, sigma_xi=1.7, sigma_eps=0.3, sigma_0=0.02, mu_norm=4.0,
    mu_b_norm=14.0, nu_norm=2.5, data_seed=11, init_seed=5, dtype="float64", device="cpu",
)  # fmt: skip
OOD = {"probe_on": "ood", "probe_samples": 17}
# Every option, some side by side, with numbers that may differ between runs drawn in one call.
MANY = [
    {"classes": 4},
    {"classes": 4, "prior_exponent": 1.5, "seed": 3},
    {"classes": 3, **OOD},
    {"spurious_norm": 2.0},
    {"spurious_norm": 3.0, "spurious_correlation": 0.1, "data_seed": 2},
    {"spurious_norm": 3.0, "classes": 4, "pair_noise": 0.2, **OOD},
    {"pair_noise": 0.2},
    {"pair_noise": 0.9, "view_scale": 0.3},
    {"view_mask": 0.3},
    {"view_mask": 0.0, "view_scale": 2.0},
    {"stop_gradient": "none"},
    {"stop_gradient": "none", "sigma_eps": 0.9, "d": 400},
    {"objective": "logistic", "label_noise": 0.2},
    {"objective": "logistic", "seed": 5},
    {"negatives": "all", "similarity": "cosine", "eta_tau": 0.1},
    {},
]


def kinds() -> list[TrainConfig]:
    found = []
    for settings in MANY:
        for kind in (
            {}, {"data": "reduced"}, {"data": "orthogonal"}, {"modality": "multi", "d_b": 31},
            {"data": "orthogonal", "modality": "multi"}, {"data": "reduced", "d": 30},
        ):  # fmt: skip
            if kind and {"view_mask", "view_scale", "objective"} & set(settings):
                continue
            found.append(BASE.replace(dtype="float32", **kind).replace(**settings))
    return found


def fields_of(data: SignalNoiseData) -> dict[str, Tensor]:
    return {name: x for name, x in vars(data).items() if x is not None}


def same(ours: SignalNoiseData, want: SignalNoiseData) -> None:
    assert fields_of(ours).keys() == fields_of(want).keys()
    for name, x in fields_of(want).items():
        assert torch.equal(fields_of(ours)[name], x), name


def test_runs_side_by_side_are_those_alone_whatever_the_threads() -> None:
    configs = sorted(kinds(), key=lambda cfg: list(shapes(cfg).items()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [sample(cfg) for cfg in configs]
        torch.set_num_threads(3)
        together = sample_many(configs)
    finally:
        torch.set_num_threads(before)
    assert len(together.blocks) < len(configs)
    for cfg, want, ours in zip(configs, alone, together, strict=True):
        same(ours, want)
        found = {name: tuple(x.shape) for name, x in fields_of(want).items()}
        assert found == shapes(cfg)
        assert data_bytes(cfg) == sum(x.nbytes for x in fields_of(want).values())


def test_golden() -> None:
    """The draws of a seed never change, whatever is rewritten."""
    digest = hashlib.sha256()
    for cfg in kinds():
        for name, x in sorted(fields_of(sample(cfg)).items()):
            digest.update(name.encode() + x.contiguous().numpy().tobytes())
    assert digest.hexdigest() == GOLDEN


GOLDEN = "7cb4beee26485a71e1d225b7bddba470f1f5c5c3efe4a1950b27aff74922d75f"


def test_draws_of_one_option_leave_the_others_alone() -> None:
    plain, noisy = BASE.replace(classes=4), BASE.replace(classes=4, spurious_norm=1.0)
    a, b = sample(plain), sample(noisy.replace(pair_noise=0.3, view_scale=2.0))
    for name in ("labels", "mu", "noise", "weights", "test_labels", "test_noise"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    reduced = BASE.replace(data="reduced", d=10**6)
    a, b = sample(reduced), sample(reduced.replace(stop_gradient="none"))
    k = a.noise.shape[1]
    assert torch.equal(a.noise, b.noise[:, :k])
    assert torch.equal(a.weights, b.weights[:, :k])
    assert torch.equal(a.test_noise, b.test_noise[:, :k])


def test_memory_counts_signals_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = BASE.replace(classes=1000, d=10**5, n=10, m=2, n_test=2)
    monkeypatch.setattr("mmcl_fast.data.signal_noise.sampling.available_bytes", lambda: 10**9)
    with pytest.raises(DataError, match=r"got 1\.5 GiB at n = 10, d = 100000; take a smaller d"):
        sample(cfg)


def test_data_for_a_gpu_are_drawn_on_the_cpu_and_copied() -> None:
    cfg = BASE.replace(spurious_norm=1.0, pair_noise=0.3)
    (data,) = sample_many([cfg], torch.device("meta"))
    on_cpu = {name for name, x in fields_of(data).items() if not x.is_meta}
    assert on_cpu == {
        "labels", "test_labels", "positive_labels", "attributes", "test_attributes",
        "positive_attributes",
    }  # fmt: skip
    assert torch.equal(data.attributes, sample(cfg).attributes)
