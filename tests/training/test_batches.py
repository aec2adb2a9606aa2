"""`train_many`: what trains side by side, and that nobody can tell."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from mmcl_fast import ConfigError, Run, TrainConfig, config, train, train_many
from mmcl_fast.data import sample
from mmcl_fast.engines import ENGINES
from mmcl_fast.training import batches as module

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=12, evaluate_every=4, device="cpu")
TENSORS = ["loss", "ood_accuracy", "signal", "noise", "gamma", "rho", "gamma_b", "rho_b"]
TENSORS += ["gamma_curve", "rho_curve", "gamma_b_curve", "rho_b_curve"]
# One value of each setting in which native runs may differ.
OTHER = {
    "d": 70,
    "d_b": 33,
    "eta": 0.03,
    "mu_b_norm": 9.0,
    "mu_norm": 3.0,
    "nu_norm": 1.0,
    "sigma_0": 0.01,
    "sigma_eps": 0.3,
    "sigma_xi": 0.7,
    "sigma_xi_b": 1.3,
    "tau": 0.4,
}


def same(a: Run, b: Run) -> None:
    assert a.config == b.config
    assert (a.status, a.diverged_at) == (b.status, b.diverged_at)
    for name in TENSORS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name


def batches(configs: list[TrainConfig]) -> tuple[list[int], list[Run]]:
    """Runs of each batch that was trained, and the runs."""
    widths = []
    runs = train_many(
        configs, lambda info: widths.append(len(info.loss)) if not info.epoch else None
    )
    return widths, runs


@pytest.mark.parametrize("data", ["explicit", "reduced"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_native_runs_that_differ_in_scalars_are_one_batch_of_single_runs(
    modality: str, data: str
) -> None:
    assert OTHER.keys() == ENGINES["native"].may_differ
    base = TINY.replace(engine="native", modality=modality, data=data, coefficients_every=5)
    configs = [base, *(base.replace(**{k: v, "seed": 3}) for k, v in OTHER.items())]
    configs.append(base.replace(**OTHER, seed=7, init_seed=8))
    widths, runs = batches(configs)
    assert widths == [len(configs)]
    for cfg, run in zip(configs, runs, strict=True):
        alone = train(cfg)
        assert run.config.seed == cfg.seed
        assert run.config.init_seed == cfg.init_seed
        same(run, alone)
        if data == "explicit":
            assert torch.equal(run.weights(), alone.weights())
    assert len({run.loss[-1].item() for run in runs}) > len(configs) / 2, "premise: they differ"


def test_one_of_a_mixed_batch_may_diverge() -> None:
    base = TINY.replace(q=3, sigma_0=0.2, epochs=60, engine="native")
    configs = [base.replace(eta=eta, seed=s) for eta in (1e-3, 0.3, 30.0) for s in range(3)]
    widths, runs = batches(configs)
    assert widths == [9]
    assert {run.status for run in runs} == {"finished", "diverged"}
    for cfg, run in zip(configs, runs, strict=True):
        same(run, train(cfg))


@pytest.mark.parametrize("engine", ["native", "gram"])
@pytest.mark.parametrize("change", [{"n": 22}, {"m": 7}, {"q": 2}, {"epochs": 11}, {"n_test": 11}])
def test_sizes_are_not_mixed(engine: str, change: dict) -> None:
    configs = [TINY.replace(engine=engine, seed=s, **(change if s % 2 else {})) for s in range(4)]
    widths, runs = batches(configs)
    assert widths == [2, 2]
    for cfg, run in zip(configs, runs, strict=True):
        same(run, train(cfg))


def test_other_engines_share_all_but_seeds() -> None:
    configs = [TINY.replace(engine="gram", eta=eta, seed=s) for eta in (0.01, 0.02) for s in (0, 1)]
    widths, runs = batches(configs)
    assert widths == [2, 2]
    for cfg, run in zip(configs, runs, strict=True):
        same(run, train(cfg))


def test_the_largest_data_bound_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcl_fast.engines import native

    configs = [TINY.replace(engine="native", d=d, seed=s) for s in range(5) for d in (50, 4000)]
    monkeypatch.setattr(native, "BATCH_BYTES", 1 << 22)
    small, large = (native.max_runs(cfg) for cfg in configs[:2])
    assert small > 10 > large == 4, "premise"
    assert batches(configs)[0] == [4, 4, 2]


def test_a_point_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    resolve = module.resolve
    monkeypatch.setattr(module, "resolve", lambda cfg: seen.append(cfg) or resolve(cfg))
    configs = [TINY.replace(eta=eta, seed=s) for s in range(5) for eta in (0.01, 0.02)]
    runs = train_many(configs)
    assert len(seen) == 2
    for cfg, run in zip(configs, runs, strict=True):
        assert run.config == resolve(cfg)


def test_a_plain_seed_is_not_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # What it costs to ask whether a value is an integer adds up over 10^5 runs.
    seen = []
    plain_value = config.plain_value
    monkeypatch.setattr(config, "plain_value", lambda *a: seen.append(a) or plain_value(*a))
    cfg = TINY.replace(data_seed=4)
    assert [cfg.replace(seed=s, init_seed=None).seed for s in (0, 2**64 - 1)] == [0, 2**64 - 1]
    assert seen == []
    assert cfg.replace(data_seed=None).data_seed is None
    assert seen == [("data_seed", None)]


def test_another_seed_is_the_config_made_anew() -> None:
    cfg = TINY.replace(modality="multi", eta=0.02)
    values = {f.name: getattr(cfg, f.name) for f in fields(cfg)}
    seeds = {"seed": np.uint64(2**64 - 1), "data_seed": np.int8(4), "init_seed": None}
    ours, made = cfg.replace(**seeds), TrainConfig(**(values | seeds))
    assert ours == made
    assert hash(ours) == hash(made)
    assert type(ours.seed) is type(ours.data_seed) is int
    assert (cfg.seed, cfg.data_seed) == (0, None), "the original stays"
    assert cfg.replace() == cfg


def test_runs_are_in_the_order_given_whatever_shares_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Side by side they are sorted by d; here kinds and seeds are mixed in another order.
    drawn: list[list[tuple[int, int]]] = []
    sample_many = module.sample_many
    monkeypatch.setattr(
        module,
        "sample_many",
        lambda mine, device: drawn.append([(c.d, c.seed) for c in mine]) or sample_many(mine),
    )
    base = TINY.replace(engine="native", epochs=3)
    configs = [base.replace(seed=s, d=d) for s in range(3) for d in (70, 50, 60)]
    configs.insert(4, base.replace(engine="gram", seed=9))
    for cfg, run in zip(configs, train_many(configs), strict=True):
        same(run, train(cfg))
    assert drawn == [[(d, s) for d in (50, 60, 70) for s in range(3)], [(50, 9)]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"seed: expected an integer in 0 .. 2\^64 - 1, got -1"),
        ({"data_seed": 2**64}, "data_seed: expected an integer in"),
        ({"init_seed": 1.5}, "init_seed: expected an integer, got 1.5"),
        ({"seed": None}, "seed: expected an integer, got None"),
        ({"seed": True}, "seed: expected an integer, got True"),
        ({"seed": 1, "sead": 2}, "sead: unknown setting; did you mean seed"),
    ],
)
def test_a_bad_seed_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TINY.replace(**change)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TINY, "configs: expected TrainConfigs in a list or another iterable, got one TrainConfig"),
        (None, "configs: expected TrainConfigs in a list or another iterable, got NoneType None"),
        ([TINY, {"m": 3}], "configs: expected TrainConfigs, got dict {'m': 3} at index 1"),
    ],
)
def test_what_is_no_list_of_configs_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train_many(given)
    assert str(caught.value) == message


def test_any_iterable_of_configs_is_taken() -> None:
    runs = train_many(TINY.replace(seed=s) for s in range(2))
    assert [run.config.seed for run in runs] == [0, 1]
    assert train_many([]) == []


def test_what_is_no_config_is_named() -> None:
    for given, message in (
        (None, "got NoneType None"),
        ({"m": 3}, "got dict {'m': 3}; take Train"),
    ):
        with pytest.raises(ConfigError, match=r"^cfg: expected a TrainConfig, ") as caught:
            train(given)
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match="modality: expected a for a single-modal run, got c"):
        train(TINY).weights("c")
    with pytest.raises(ConfigError, match="modality: expected a or b, got c"):
        train(TINY.replace(modality="multi")).weights("c")


def test_bench_sees_a_wrong_run_and_leaves_the_core_as_it_was() -> None:
    from mmcl_fast import _native
    from mmcl_fast.bench.cpu import many_runs

    plain = _native.train_trajectories
    configs = [TINY.replace(engine="native", data="reduced", seed=s) for s in range(3)]
    with many_runs.core_seconds() as spent:
        runs = train_many(configs)
    assert _native.train_trajectories is plain
    assert all(seconds > 0 for seconds in spent.values())
    assert many_runs.differing(configs, runs) == []
    runs[2].signal[3] += 1
    assert many_runs.differing(configs, runs) == ["run 2: signal"]


@pytest.mark.parametrize("engine", ["native", "gram"])
def test_own_vectors_of_another_run_do_not_change_the_bits(engine: Any) -> None:
    """Products with orthogonal vectors are computed otherwise than those with any vectors."""
    cfg = TrainConfig(
        n=13, d=40, m=5, epochs=30, n_test=10, eta=0.05, sigma_0=0.05, evaluate_every=0,
        data="orthogonal", stop_gradient="none", negatives="all", engine=engine,
    )  # fmt: skip
    orthogonal = sample(cfg)
    skew = replace(orthogonal, noise=orthogonal.noise + 0.1)
    alone = [train(cfg, data=x) for x in (orthogonal, skew)]
    for single, among in zip(alone, train_many([cfg] * 2, data=[orthogonal, skew]), strict=True):
        assert torch.equal(single.loss, among.loss)
        assert torch.equal(single.rho, among.rho)
    assert not torch.equal(alone[0].loss, alone[1].loss)
