"""The training data: every field against the stream's oracle, as docs/stream.md section 5 says."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, TrainConfig
from mmcl_fast.data import SignalNoiseData, sample
from mmcl_fast.data.signal_noise import synthetic
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.synthetic import (
    draw_augmented,
    draw_minibatches,
    draw_negatives,
)
from mmcl_fast.data.stream import stream_numpy

SEED, DATA_SEED, INIT_SEED = 3, 11, 2**64 - 5
# d beyond one tile of the stream; no two strengths or sizes equal, none of them 1.
BASE = TrainConfig(
    n=9,
    d=300,
    m=5,
    n_test=7,
    mu_norm=4.0,
    mu_b_norm=14.0,
    nu_norm=2.5,
    sigma_xi=1.7,
    sigma_eps=0.3,
    sigma_0=0.02,
    seed=SEED,
    data_seed=DATA_SEED,
    init_seed=INIT_SEED,
)


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any]


CASES = [
    Case("single", "the augmented view", {}),
    Case(
        "multi",
        "no size or strength of B is that of A",
        {"modality": "multi", "d_b": 40, "sigma_xi_b": 0.6},
    ),
    Case("multi_defaults", "B takes d and sigma_xi of A", {"modality": "multi"}),
    Case("one_dimension", "mu_b has no second axis", {"modality": "multi", "d_b": 1}),
    Case("ood_probe", "samples of the probe's fit", {"probe_on": "ood", "probe_samples": 7}),
    Case("one_seed", "both seeds default to seed", {"data_seed": None, "init_seed": None}),
]


def normals(
    cfg: TrainConfig, stream: str, shape: tuple[int, int], scale: float, epoch: int = 0
) -> Tensor:
    """Section 4 of docs/stream.md; the keys are those of section 5."""
    given = cfg.init_seed if stream.startswith("init") else cfg.data_seed
    key = cfg.seed if given is None else given
    z = stream_numpy.standard_normal(key, stream, (1, *shape), epoch=epoch)[0]
    if cfg.dtype == "float32":
        return torch.from_numpy(z * np.float32(scale))
    return torch.from_numpy(z.astype(np.float64) * scale)


def signs(cfg: TrainConfig, stream: str, count: int) -> Tensor:
    key = cfg.seed if cfg.data_seed is None else cfg.data_seed
    words = stream_numpy.words(key, stream, (1, 1, count))[0, 0]
    return torch.tensor([1.0 if w < 2**31 else -1.0 for w in words], dtype=dtype_of(cfg))


def axis(cfg: TrainConfig, d: int, index: int, norm: float) -> Tensor:
    return torch.tensor([norm if k == index else 0.0 for k in range(d)], dtype=dtype_of(cfg))


def dtype_of(cfg: TrainConfig) -> torch.dtype:
    return getattr(torch, cfg.dtype)


def expected(cfg: TrainConfig) -> dict[str, Tensor | None]:
    d, d_b = cfg.d, cfg.d if cfg.d_b is None else cfg.d_b
    noise = normals(cfg, "noise", (cfg.n, d), cfg.sigma_xi)
    fields: dict[str, Tensor | None] = dict.fromkeys(f.name for f in fields_of(SignalNoiseData))
    fields |= {
        "labels": signs(cfg, "labels", cfg.n),
        "mu": axis(cfg, d, 0, cfg.mu_norm),
        "nu": axis(cfg, d, 0, cfg.nu_norm),
        "noise": noise,
        "augmented": noise + normals(cfg, "augment", (cfg.n, d), cfg.sigma_eps),
        "weights": normals(cfg, "init", (cfg.m, d), cfg.sigma_0),
        "test_labels": signs(cfg, "test_labels", cfg.n_test),
        "test_noise": normals(cfg, "test_noise", (cfg.n_test, d), cfg.sigma_xi),
    }
    if cfg.probe_on == "ood":
        fields["probe_labels"] = signs(cfg, "probe_labels", cfg.probe_samples)
        fields["probe_noise"] = normals(cfg, "probe_noise", (cfg.probe_samples, d), cfg.sigma_xi)
    if cfg.modality == "multi":
        sigma_b = cfg.sigma_xi if cfg.sigma_xi_b is None else cfg.sigma_xi_b
        fields |= {
            "augmented": None,
            "mu_b": axis(cfg, d_b, min(1, d_b - 1), cfg.mu_b_norm),
            "noise_b": normals(cfg, "noise_b", (cfg.n, d_b), sigma_b),
            "weights_b": normals(cfg, "init_b", (cfg.m, d_b), cfg.sigma_0),
        }
    return fields


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_field_is_the_streams_bit_for_bit(case: Case, dtype: str) -> None:
    cfg = BASE.replace(**case.settings, dtype=dtype)
    found, wanted = vars(sample(cfg)), expected(cfg)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert found[name].dtype == dtype_of(cfg), name
            assert torch.equal(found[name], value), name


def test_reduced_data_take_the_independent_parts_from_the_same_streams() -> None:
    # The Bartlett factor itself: tests/data/signal_noise/test_reduced.py.
    cfg = BASE.replace(data="reduced")
    k = 1 + cfg.n + cfg.m
    found, eps = sample(cfg), normals(cfg, "augment", (cfg.n, k), cfg.sigma_eps)
    assert torch.equal(found.test_noise, normals(cfg, "test_noise", (cfg.n_test, k), cfg.sigma_xi))
    assert torch.equal(found.augmented, found.noise + eps)
    assert torch.equal(found.labels, signs(cfg, "labels", cfg.n))
    multi = sample(cfg.replace(modality="multi"))
    for name, norm in (("mu", 4.0), ("nu", 2.5), ("mu_b", 14.0)):
        assert torch.equal(getattr(multi, name), axis(cfg, k, 0, norm)), "one shared axis"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_view_of_an_epoch_is_the_streams_epoch(dtype: str) -> None:
    fixed = BASE.replace(dtype=dtype)
    noise = sample(fixed).noise
    for epoch in (0, 1, 6):
        fresh = draw_augmented(fixed.replace(augment="per_epoch"), noise, epoch)
        eps = normals(fixed, "augment", (fixed.n, fixed.d), fixed.sigma_eps, epoch)
        assert torch.equal(fresh, noise + eps)
        assert torch.equal(draw_augmented(fixed, noise, epoch), sample(fixed).augmented)


UNBALANCED = torch.tensor([-1.0, 1, -1, -1, -1, 1, 1, -1, -1, -1, 1, -1, -1])  # 4 : 9


def smallest(labels: Tensor, count: int, priority: Callable[[int, int], int]) -> Tensor:
    """N(i) by sorting (priority, j) over the other label, sample by sample."""
    mask = torch.zeros(len(labels), len(labels), dtype=torch.bool)
    for i, y in enumerate(labels):
        others = [j for j in range(len(labels)) if labels[j] != y]
        for j in sorted(others, key=lambda j: (priority(i, j), j))[:count]:
            mask[i, j] = True
    return mask


@pytest.mark.parametrize("draw", ["fixed", "per_epoch"])
@pytest.mark.parametrize("count", [1, 3, 6, 8])
def test_negatives_are_the_smallest_words_of_the_other_label(count: int, draw: str) -> None:
    # Labels 4 : 9, so from M = 6 on the samples labelled -1 have fewer than M to choose from.
    cfg = BASE.replace(n=13, negatives_per_sample=count, negatives_draw=draw)
    masks = []
    for epoch in (0, 1, 5):
        drawn_at = epoch if draw == "per_epoch" else 0
        words = stream_numpy.words(DATA_SEED, "negatives", (1, 13, 13), epoch=drawn_at)[0]
        mask = draw_negatives(cfg, UNBALANCED, epoch)
        assert mask is not None
        assert not mask[UNBALANCED[:, None] == UNBALANCED[None, :]].any()
        others = torch.where(UNBALANCED > 0, 9, 4)
        assert torch.equal(mask.sum(1), others.clamp(max=count))
        assert torch.equal(mask, smallest(UNBALANCED, count, lambda i, j, w=words: int(w[i, j])))
        masks.append(mask)
    assert torch.equal(masks[0], masks[1]) == (draw == "fixed")
    assert torch.equal(masks[1], masks[2]) == (draw == "fixed")


@pytest.mark.parametrize("count", [None, 9, 12])
def test_a_count_that_reaches_everyone_is_all_of_the_other_label(count: int | None) -> None:
    assert draw_negatives(BASE.replace(n=13, negatives_per_sample=count), UNBALANCED, 0) is None


@pytest.mark.parametrize("values", [(2**32 - 1,), (0, 2**32 - 1)], ids=["largest", "two"])
def test_equal_words_prefer_the_smaller_index(values: tuple[int, ...], monkeypatch) -> None:
    # Also: the largest word of the other label still comes before everything of the same label.
    n, count = 80, 25
    drawn = np.random.default_rng(0).choice(np.array(values, dtype=np.uint32), (n, n))
    monkeypatch.setattr(
        synthetic, "words", lambda key, stream, shape, **_: drawn[None, : shape[1], : shape[2]]
    )
    labels = torch.tensor([1.0, 1.0, -1.0, 1.0] * 20)
    cfg = BASE.replace(n=n, negatives_per_sample=count, optimizer="sgd", batch_size=n)
    mask = draw_negatives(cfg, labels, 0)
    assert torch.equal(mask, smallest(labels, count, lambda i, j: int(drawn[i, j])))
    (order,) = draw_minibatches(cfg, 0)
    assert order.tolist() == sorted(range(n), key=lambda i: (drawn[0, i], i))


def test_minibatches_are_a_partition_that_each_epoch_draws_anew() -> None:
    cfg = BASE.replace(n=13, optimizer="sgd", batch_size=5)
    orders = set()
    for epoch in range(4):
        batches = draw_minibatches(cfg, epoch)
        assert [len(batch) for batch in batches] == [5, 5, 3]
        order = torch.cat(batches).tolist()
        words = stream_numpy.words(DATA_SEED, "minibatch", (1, 1, 13), epoch=epoch)[0, 0]
        assert order == sorted(range(13), key=lambda i, w=words: (w[i], i))
        assert sorted(order) == list(range(13))
        orders.add(tuple(order))
    assert len(orders) == 4


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["noise", "weights", "nu", "test_noise"])
def test_given_data_must_be_finite(name: str, bad: float) -> None:
    fields = {k: v for k, v in vars(sample(BASE)).items() if v is not None}
    fields[name] = fields[name].clone()
    fields[name].view(-1)[-1] = bad
    with pytest.raises(DataError, match=rf"^data\.{name}: expected finite values, got NaN or inf"):
        as_data(BASE, fields)
