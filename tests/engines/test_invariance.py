"""Results do not depend on batch composition, order, threads, or on observing less often."""

import pytest
import torch

from mmcl_fast import Run, TrainConfig, train, train_many
from mmcl_fast.data import sample

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


ODD = {"n": 9, "d": 333, "m": 7, "n_test": 5}
EVEN = {"n": 10, "d": 334, "m": 8, "n_test": 6}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize(
    "odd",
    [(), ("n",), ("m",), ("d",), ("n_test",), tuple(ODD)],
    ids=lambda x: "-".join(x) or "none",
)
def test_a_batch_of_any_sizes(odd: tuple[str, ...], modality: str, dtype: str) -> None:
    """The library's products of a batch round by where each matrix begins: sizes decide that."""
    sizes = EVEN | {name: ODD[name] for name in odd}
    cfg = SHORT.replace(engine="gram", epochs=8, modality=modality, dtype=dtype, **sizes)
    runs = train_many([cfg.replace(seed=s) for s in range(17)])
    for k in (0, 1, 2, 3, 16):  # 4 bytes times an odd number: at every place within 16
        alone = train(cfg.replace(seed=k))
        same(runs[k], alone)
        assert torch.equal(runs[k].weights(), alone.weights())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("q", [4, 5, 7])
def test_a_batch_with_a_high_power(q: int, dtype: str) -> None:
    """torch's general power rounds an element by its place in the tensor."""
    cfg = SHORT.replace(engine="gram", epochs=8, q=q, sigma_0=0.02, eta=1e-6, dtype=dtype, **EVEN)
    runs = train_many([cfg.replace(seed=s) for s in range(17)])
    assert runs[0].loss[-1] < runs[0].loss[0]
    for k in (0, 1, 2, 3, 16):
        same(runs[k], train(cfg.replace(seed=k)))


@pytest.mark.parametrize("sizes", [ODD, EVEN | {"n": 41, "m": 23}], ids=["small", "larger"])
def test_a_batch_of_any_number_of_runs(sizes: dict[str, int]) -> None:
    cfg = SHORT.replace(engine="gram", epochs=8, **sizes)
    configs = [cfg.replace(seed=s) for s in range(17)]
    alone = [train(cfg) for cfg in configs]
    for count in range(1, 17):
        for run, expected in zip(train_many(configs[:count]), alone, strict=False):
            same(run, expected)


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "momentum", "weight_decay": 0.1, "q": 2}, {"augment": "per_epoch"},
     {"negatives_per_sample": 2}, {"negatives_per_sample": 2, "negatives_draw": "per_epoch"},
     {"optimizer": "sgd", "batch_size": 4},
     {"stop_gradient": "none", "negatives": "all", "similarity": "cosine", "eta_tau": 0.1}],
    ids=lambda x: "-".join(map(str, x.values())),
)  # fmt: skip
def test_a_batch_of_odd_sizes_with_every_option(settings: dict[str, object]) -> None:
    cfg = SHORT.replace(engine="gram", epochs=8, **ODD, **settings)
    configs = [cfg.replace(seed=s) for s in range(5)]
    for cfg, run in zip(configs, train_many(configs), strict=True):
        same(run, train(cfg))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", ["native", "gram", "primal", "reference"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_own_data_anywhere_in_memory(modality: str, engine: str, dtype: str) -> None:
    if (engine, dtype) == ("native", "float64"):
        pytest.skip("engine native: float32 alone")
    cfg = SHORT.replace(engine=engine, dtype=dtype, epochs=8, modality=modality, **ODD)
    given = {name: x for name, x in vars(sample(cfg)).items() if x is not None}
    expected = train(cfg, data=given)
    for offset in (1, 3):
        run = train(cfg, data={name: moved(x, offset) for name, x in given.items()})
        same(run, expected)
        assert torch.equal(run.weights(), expected.weights())


def moved(x: torch.Tensor, offset: int) -> torch.Tensor:
    """The same values at an address that is no multiple of 16 bytes."""
    copy = torch.empty(x.numel() + offset, dtype=x.dtype)[offset:].view(x.shape).copy_(x)
    assert copy.data_ptr() % 16
    return copy


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
