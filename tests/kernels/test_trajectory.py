"""Whole runs in one launch: the triton engine against the float64 reference, run by run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig, train, train_many
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.engines import ENGINES, EngineSpec, TritonEngine
from mmcl_fast.kernels import trajectory
from mmcl_fast.kernels._tiles import Tile
from tests.support.budget import assert_within_budget

from .quick_interpreter import quick_interpreter

CURVES = ("loss", "signal", "noise")
EPS = torch.finfo(torch.float32).eps
SMALL: dict[str, Any] = {
    "n": 30, "d": 80, "m": 12, "n_test": 9, "evaluate_every": 0, "epochs": 8, "eta": 0.03,
}  # fmt: skip
BLOCKS_OF_16 = Tile(16, 4, 16, 1, 16)
HALF_BLOCK_STEPS = Tile(32, 4, 16, 1, 16)
NARROW = Tile(16, 4, 64, 1, 16)  # less padding of labels; timed by `bench.gpu --tune`


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_interpreter():
        yield


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    positives: int | None = None
    tile: Tile | None = None
    seeds: int = 2


CASES = [
    Case("single", "the paper's single-modal loss"),
    Case("multi", "two blocks of scores, each for both directions", {"modality": "multi"}),
    Case("quadratic", "act' is not a step", {"q": 2, "sigma_0": 0.05}),
    Case("cubic", "act' needs z, not act", {"q": 3, "sigma_0": 0.1, "eta": 0.003}),
    Case(
        "cubic_unequal",
        "d and sigma differ between modalities",
        {"q": 3, "modality": "multi", "sigma_0": 0.1, "d_b": 60, "sigma_xi_b": 0.5, "eta": 0.002},
        seeds=4,  # errors grow fast, and of two runs plain float32's are small by luck
    ),
    Case("ragged", "most of every block is padding", {"n": 7, "m": 3}),
    Case(
        "over",
        "one label has more than a block, and so have the neurons",
        {"n": 70, "m": 66, "epochs": 4},
        positives=66,
    ),
    Case(
        "blocks",
        "several blocks of everything",
        {"n": 55, "m": 33, "modality": "multi", "q": 2, "sigma_0": 0.05, "epochs": 3},
        positives=37,
        tile=BLOCKS_OF_16,
    ),
    Case(
        "blocks_single",
        "the same",
        {"n": 50, "m": 20, "epochs": 4},
        positives=17,
        tile=BLOCKS_OF_16,
    ),
    Case(
        "padded_steps",
        "steps of the sums that hold padding alone are left out between the labels",
        {"n": 50, "m": 20, "epochs": 4},
        positives=10,
        tile=HALF_BLOCK_STEPS,
    ),
    Case(
        "padded_steps_multi",
        "the same",
        {"n": 50, "m": 20, "epochs": 4, "modality": "multi"},
        positives=10,
        tile=HALF_BLOCK_STEPS,
    ),
    Case(
        "narrow",
        "blocks of 16 samples and of 64 neurons, labels of no whole block",
        {"n": 50, "m": 20, "epochs": 4, "modality": "multi"},
        positives=23,
        tile=NARROW,
    ),
    Case("lonely", "a single sample of label +1", {"n": 17}, positives=1),
    Case("lonely_multi", "all but one of label +1", {"n": 17, "modality": "multi"}, positives=16),
    Case(
        "cold",
        "scores in the thousands: a naive exp overflows",
        {"tau": 1e-5, "sigma_0": 0.1, "eta": 1e-4},
    ),
    Case(
        "cold_multi",
        "the same, and the shift by the signal's part is negative",
        {"tau": 1e-5, "sigma_0": 0.1, "modality": "multi", "eta": 1e-7},
    ),
    Case("no_signal", "mu = 0: c_mu moves nothing", {"mu_norm": 0.0}),
]


def float32_data(cfg: TrainConfig, positives: int | None = None) -> dict[str, torch.Tensor]:
    data = {k: v for k, v in vars(sample(cfg)).items() if v is not None}
    if positives is not None:
        data["labels"] = -torch.ones(cfg.n)
        mixed = torch.randperm(cfg.n, generator=torch.Generator().manual_seed(1))
        data["labels"][mixed[:positives]] = 1  # not side by side: the engine sorts
    return data


def curves(cfg: TrainConfig, data: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    runs = [train(cfg, x) for x in data]
    assert all(run.status == "finished" for run in runs)
    names = [*CURVES, "gamma", "rho", *(["gamma_b", "rho_b"] if cfg.is_multi else [])]
    return {name: torch.stack([getattr(run, name) for run in runs]) for name in names}


def use_tile(monkeypatch: pytest.MonkeyPatch, tile: Tile) -> None:
    monkeypatch.setattr(trajectory, "tile_for", lambda *key: tile)


def assert_as_float32(
    ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]
) -> None:
    o, p, e = ({k: x[k] for k in CURVES} for x in (ours, plain, exact))
    assert_within_budget(o, plain=p, exact=e)
    # In any float32 a pre-activation may pass zero an epoch earlier, which moves one coefficient
    # by a step: so the mean error of coefficients, not the largest.
    for name in exact.keys() - set(CURVES):
        found, allowed = ((x[name] - exact[name]).abs().mean() for x in (ours, plain))
        assert found <= 2 * (allowed + EPS * exact[name].abs().mean()), name
    assert (exact["loss"][:, -1] < exact["loss"][:, 0]).all(), "premise: something was learned"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_close_to_float64_as_autograd_in_float32(
    case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.tile:
        use_tile(monkeypatch, case.tile)
    cfg = TrainConfig(**(SMALL | case.settings), engine="reference", device="cpu")
    # Seeds together: on one run plain float32 may be right by luck.
    data = [float32_data(cfg.replace(seed=s), case.positives) for s in range(case.seeds)]
    wide = [{k: v.double() for k, v in x.items()} for x in data]
    exact = curves(cfg.replace(dtype="float64"), wide)
    ours = curves(cfg.replace(engine="triton", device=device.type), data)
    assert_as_float32(ours, curves(cfg, data), exact)


def test_two_hundred_epochs(device: torch.device) -> None:
    cfg = TrainConfig(**(SMALL | {"epochs": 200, "n": 20}), engine="gram", device="cpu")
    data = [float32_data(cfg)]
    wide = [{k: v.double() for k, v in x.items()} for x in data]
    exact = curves(cfg.replace(dtype="float64"), wide)
    ours = curves(cfg.replace(engine="triton", device=device.type), data)
    assert_as_float32(ours, curves(cfg, data), exact)
    assert exact["loss"][0, -1] < 0.05, "premise: the loss is small, where digits are lost"
    relative, plain = (
        (x["loss"] / exact["loss"] - 1).abs().max() for x in (ours, curves(cfg, data))
    )
    assert relative <= 2 * (plain + EPS)


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_a_run_does_not_depend_on_its_neighbours(device: torch.device, modality: str) -> None:
    cfg = TrainConfig(**SMALL, modality=modality, engine="triton", device=device.type)
    cfg = cfg.replace(epochs=4, evaluate_every=4)
    configs = [cfg.replace(seed=s) for s in range(2)]
    for alone, run in zip(configs, train_many(configs), strict=True):
        single = train(alone)
        for name in (*CURVES, "gamma", "rho", "ood_accuracy"):
            x, y = getattr(run, name), getattr(single, name)
            assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name


def test_runs_of_a_launch_have_their_own_dimensions_and_signals(device: torch.device) -> None:
    base = TrainConfig(**SMALL, modality="multi", engine="triton", device=device.type, d_b=70)
    base = base.replace(epochs=3, evaluate_every=3)
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1, "mu_norm": 2.0}, {"d": 33}, {"d": 33, "nu_norm": 9.0, "seed": 2},
        {"d_b": 41}, {"sigma_xi": 0.5, "seed": 3},
    ]  # fmt: skip
    configs = [base.replace(**x) for x in changes]
    for alone, run in zip(configs, train_many(configs), strict=True):
        single = train(alone)
        for name in (*CURVES, "gamma", "rho", "gamma_b", "rho_b", "ood_accuracy"):
            x, y = getattr(run, name), getattr(single, name)
            assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name


def test_the_longest_runs_begin_first(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tile(monkeypatch, BLOCKS_OF_16)
    cfg = TrainConfig(**SMALL, device=device.type)
    data = [as_data(cfg, float32_data(cfg, p)) for p in (15, 17, 14, 1)]  # 2, 3, 2 and 3 blocks
    runs = TritonEngine(EngineSpec([cfg] * len(data), data, device))._runs
    assert runs.order.tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_inner_products_are_those_of_the_data(device: torch.device, modality: str) -> None:
    cfg = TrainConfig(**SMALL, modality=modality, device=device.type)
    configs = [cfg.replace(seed=s, d=d) for s, d in ((0, 80), (1, 80), (2, 33))]
    engine = algorithm_for(configs, device)
    runs, n, m, S = engine._runs, cfg.n, cfg.m, engine._runs.layout.slots
    for r, c in enumerate(configs):
        x, slots = sample(c), engine._slots[r].cpu()
        sides = [("", (x.noise,) if cfg.is_multi else (x.noise, x.augmented))]
        if cfg.is_multi:
            sides.append(("_b", (x.noise_b,)))
        for side, (suffix, kinds) in enumerate(sides):
            noise, mu, weights = (
                getattr(x, f"{k}{suffix}").double() for k in ("noise", "mu", "weights")
            )
            want = {name: torch.zeros(getattr(runs, name).shape[2:], dtype=torch.float64)
                    for name in ("gram", "along_mu", "norm", "z", "signal")}  # fmt: skip
            want["norm"] += mu @ mu
            want["signal"][:m] = weights @ mu
            for k, vectors in enumerate(kinds):
                at = k * S + slots
                want["gram"][slots[:, None], at] = noise @ vectors.double().T
                want["along_mu"][at] = vectors.double() @ mu
                want["z"][torch.arange(m)[:, None], at] = weights @ vectors.double().T
            for name, exact in want.items():
                found = getattr(runs, name)[r, side].cpu().double()
                assert (found == 0)[exact == 0].all(), name
                far = (found - exact).abs().max()
                assert far <= 4 * EPS * n**0.5 * exact.abs().max(), name


def test_runs_of_a_launch_have_their_own_temperature_and_step(device: torch.device) -> None:
    base = TrainConfig(**SMALL, engine="triton", device=device.type)
    configs = [base, base.replace(tau=0.3, eta=0.01)]
    both = algorithm_for(configs, device).train_epochs(0, 3)
    for r, cfg in enumerate(configs):
        alone = algorithm_for([cfg], device).train_epochs(0, 3)
        for name in ("loss", "signal", "noise"):
            assert torch.equal(getattr(both, name)[r], getattr(alone, name)[0]), name
    assert not torch.equal(both.loss[0], both.loss[1])


def algorithm_for(configs: list[TrainConfig], device: torch.device) -> TritonEngine:
    return TritonEngine(EngineSpec(configs, [sample(cfg) for cfg in configs], device))


def test_dead_neurons_and_exact_zeros_stay(device: torch.device) -> None:
    cfg = TrainConfig(**(SMALL | {"epochs": 3}), engine="triton", device=device.type)
    data = float32_data(cfg)
    positives = int((data["labels"] > 0).sum())
    counts = torch.tensor([cfg.n - positives, positives], dtype=torch.float64)
    start = (counts.log1p() * counts.flip(0)).sum().item() / cfg.n  # all scores equal
    data["mu"] = torch.zeros(cfg.d)
    data["noise"], data["augmented"] = data["noise"].abs(), data["augmented"].abs()
    for weights in (torch.zeros(cfg.m, cfg.d), -torch.ones(cfg.m, cfg.d)):
        run = train(cfg, data | {"weights": weights})
        assert (run.loss.double() / start - 1).abs().max() <= 1e-6
        assert not run.rho.any()
        assert not run.gamma.any()
        # Of samples, not of padding.
        torch.testing.assert_close(run.noise[0], (data["noise"] @ weights.T).max())


def test_a_pre_activation_of_exactly_zero_has_no_slope(device: torch.device) -> None:
    cfg = TrainConfig(**(SMALL | {"epochs": 1}), engine="triton", device=device.type)
    data = float32_data(cfg)
    data["noise"][0] = 0.0
    data["noise"][0, 0], data["weights"][:, 0] = 3.0, 0.0
    run = train(cfg, data)
    assert not run.rho[:, 0].any()
    assert run.rho[:, 1:].any(), "premise"


@pytest.mark.parametrize("name", ["z", "signal"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_what_is_not_finite_shows_in_the_loss(
    device: torch.device, modality: str, name: str
) -> None:
    engine = algorithm_for([TrainConfig(**SMALL, device=device.type, modality=modality)], device)
    assert engine.loss(0).isfinite().all()
    engine.state()[name].view(-1)[0] = torch.nan
    assert not engine.loss(0).isfinite().any()


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("label", [-1.0, 1.0])
def test_without_the_other_label_there_is_nothing_to_learn(
    device: torch.device, label: float, modality: str
) -> None:
    cfg = TrainConfig(**(SMALL | {"n": 9}), modality=modality, device=device.type, sigma_0=1.0)
    alike = replace(sample(cfg), labels=torch.full((cfg.n,), label))
    engine = TritonEngine(EngineSpec([cfg], [alike], device))
    before = {name: x.clone() for name, x in engine.state().items()}
    assert not engine.train_epochs(0, 2).loss.any()
    for name, x in engine.state().items():
        assert torch.equal(x, before[name]), name


def test_a_measurement_changes_nothing(device: torch.device) -> None:
    cfg = TrainConfig(**SMALL, device=device.type, modality="multi")
    engine = algorithm_for([cfg], device)
    engine.train_epochs(0, 2)
    before = {name: x.clone() for name, x in engine.state().items()}
    loss, (signal, noise) = engine.loss(2), engine.signal_and_noise()
    for name, x in engine.state().items():
        assert torch.equal(x, before[name]), name
    following = engine.train_epochs(2, 1)
    assert torch.equal(following.loss[:, 0], loss)
    assert torch.equal(following.signal[:, 0], signal)
    assert torch.equal(following.noise[:, 0], noise)


def test_a_stretch_is_its_epochs_one_by_one_and_can_be_continued(device: torch.device) -> None:
    cfg = TrainConfig(**SMALL, device=device.type, modality="multi")
    whole, stepped = algorithm_for([cfg], device), algorithm_for([cfg], device)
    loss = whole.train_epochs(0, 5).loss
    first = [stepped.train_epoch(t) for t in range(2)]
    resumed = algorithm_for([cfg], device)
    resumed.load_state({name: x.clone() for name, x in stepped.state().items()})
    assert torch.equal(loss[0], torch.cat([*first, *(resumed.train_epoch(t) for t in (2, 3, 4))]))
    for name, x in whole.state().items():
        assert torch.equal(x, resumed.state()[name]), name


def test_a_run_that_diverges_says_so(device: torch.device) -> None:
    wild = {"epochs": 9, "q": 3, "eta": 1e3, "sigma_0": 1.0}
    cfg = TrainConfig(**(SMALL | wild), engine="triton", device=device.type)
    ours, theirs = train(cfg), train(cfg.replace(engine="gram"))
    assert ours.status == theirs.status == "diverged"
    assert ours.diverged_at == theirs.diverged_at


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_embeddings_are_those_of_the_gram_engine(device: torch.device, modality: str) -> None:
    cfg = TrainConfig(**SMALL, q=2, sigma_0=0.1, modality=modality, device=device.type)
    cfg = cfg.replace(probe_on="ood", probe_samples=5)
    data = [sample(cfg.replace(seed=s)) for s in range(2)]
    found = {}
    for name in ("triton", "gram"):
        engine = ENGINES[name].build(EngineSpec([cfg, cfg], data, device))
        for epoch in range(3):
            engine.train_epoch(epoch)
        found[name] = engine.embeddings()
    for ours, theirs in zip(found["triton"], found["gram"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.max()))


BAD = [
    ({"q": 0}, ValueError, "epochs, q: expected at least 1 each, got 1 and 0"),
    ({"precision": "bf16"}, ValueError, "layout, precision: expected"),
    ({"z": lambda x: x[..., 1:]}, ValueError, r"z: expected contiguous \[1, 1, "),
    ({"positives": lambda x: x.long()}, TypeError, "positives: expected torch.int32"),
    ({"gram": lambda x: x.double()}, TypeError, "gram: expected torch.float32"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD, ids=lambda x: str(x)[:20])
def test_bad_input_is_refused(
    device: torch.device, changes: dict[str, Any], kind: type[Exception], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use_tile(monkeypatch, Tile(64, 8, 64, 1, 16))
    runs = algorithm_for([TrainConfig(**SMALL, device=device.type)], device)._runs
    options = {"q": 1, "precision": "ieee"}
    options |= {k: v for k, v in changes.items() if k in options}
    spoiled = {k: v(getattr(runs, k)) for k, v in changes.items() if k not in options}
    with pytest.raises(kind, match=message):
        trajectory.trajectory_fwd(replace(runs, **spoiled), 1, **options)


@pytest.mark.parametrize(("n", "m", "word"), [(257, 4, "n"), (0, 4, "n"), (4, 129, "m")])
def test_sizes_are_refused_before_anything_is_made(
    device: torch.device, n: int, m: int, word: str
) -> None:
    with pytest.raises(ValueError, match=f"{word}: expected 1.."):
        trajectory.Layout.of(n, m, "ieee", torch.zeros(0, device=device))
