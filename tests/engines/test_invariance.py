"""Results do not depend on batch composition, order, threads, or on observing less often."""

import pytest
import torch

from mmcl_fast import Run, TrainConfig, train, train_many

CURVES = ("loss", "ood_accuracy", "signal", "noise")
SHORT = TrainConfig(epochs=25, evaluate_every=5)


def same(a: Run, b: Run) -> None:
    assert a.config == b.config
    for name in (*CURVES, "gamma", "rho"):
        x, y = getattr(a, name), getattr(b, name)
        assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name


@pytest.mark.parametrize("engine", ["native", "gram"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_batched_runs_equal_single_runs_bit_for_bit(modality: str, engine: str) -> None:
    cfg = SHORT.replace(modality=modality, engine=engine)
    configs = [cfg.replace(seed=s) for s in range(11)]  # one full batch and a ragged one
    for cfg, run in zip(configs, train_many(configs), strict=True):
        same(run, train(cfg))


@pytest.mark.parametrize(
    "settings",
    [{"engine": e, "dtype": t} for e in ("gram", "primal") for t in ("float64", "float32")]
    + [{"engine": "native"}],
    ids=lambda x: "-".join(x.values()),
)
def test_runs_whose_data_begin_anywhere_in_memory(settings: dict[str, str]) -> None:
    cfg = SHORT.replace(n=9, d=333, m=7, n_test=5, **settings)
    configs = [cfg.replace(seed=s) for s in range(4)]
    for cfg, run in zip(configs, train_many(configs), strict=True):
        same(run, train(cfg))


def test_mixed_configs_come_back_in_order() -> None:
    configs = [
        SHORT.replace(n=n, seed=s, modality=m)
        for s in (3, 1)
        for n in (20, 30)
        for m in ("multi", "single")
    ]
    for cfg, run in zip(configs, train_many(configs), strict=True):
        assert (run.config.n, run.config.seed, run.config.modality) == (
            cfg.n,
            cfg.seed,
            cfg.modality,
        )
        same(run, train(cfg))


@pytest.mark.parametrize("engine", ["native", "gram", "primal", "reference"])
def test_threads_do_not_matter(engine: str) -> None:
    runs = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            runs.append(train(SHORT.replace(engine=engine, n=60, d=500)))
    finally:
        torch.set_num_threads(threads)
    same(*runs)


@pytest.mark.parametrize(("limit", "expected"), [(None, 1), (0.0, 2)], ids=["small", "large"])
def test_small_runs_compute_on_one_thread(limit, expected: int, monkeypatch) -> None:
    from mmcl_fast.training import loop

    if limit is not None:
        monkeypatch.setattr(loop, "THREADED_FLOP", limit)
    threads, seen = torch.get_num_threads(), set()
    try:
        torch.set_num_threads(2)
        train(SHORT.replace(engine="gram"), on_epoch=lambda info: seen.add(torch.get_num_threads()))
    finally:
        torch.set_num_threads(threads)
    assert seen == {expected}


@pytest.mark.parametrize("engine", ["native", "gram"])
def test_evaluating_less_often_changes_nothing_else(engine: str) -> None:
    often, rarely = (train(SHORT.replace(evaluate_every=k, engine=engine)) for k in (1, 10))
    assert torch.equal(often.loss, rarely.loss)
    seen = rarely.ood_accuracy.isfinite()
    assert seen.nonzero().flatten().tolist() == [0, 10, 20, 25]
    assert torch.equal(rarely.ood_accuracy[seen], often.ood_accuracy[seen])


@pytest.mark.parametrize("engine", ["native", "gram"])
def test_stored_coefficients_end_at_the_final_ones(engine: str) -> None:
    run = train(SHORT.replace(coefficients_every=10, modality="multi", engine=engine))
    assert run.coefficient_epochs == [0, 10, 20, 25]
    for name in ("gamma", "rho", "gamma_b", "rho_b"):
        curve = getattr(run, f"{name}_curve")
        assert torch.equal(curve[-1], getattr(run, name)), name
        assert not curve[0].any()
        assert curve[1].any()
    single = train(SHORT.replace(coefficients_every=10))
    assert single.gamma_b_curve is None


def test_same_seed_same_data_other_seed_other_weights() -> None:
    base = SHORT.replace(data_seed=5, init_seed=1, epochs=1)
    from mmcl_fast.data import sample

    one, two = sample(base), sample(base.replace(init_seed=2))
    assert torch.equal(one.noise, two.noise)
    assert not torch.equal(one.weights, two.weights)
