"""The native engine against the float64 reference, and the core against itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from mmcl_fast import EngineRefusedError, TrainConfig, _native, train, train_many
from mmcl_fast.data import sample
from mmcl_fast.engines import ENGINES, EngineSpec, resolve_engine
from tests.support.budget import assert_within_budget

CURVES = ("loss", "signal", "noise")
EPS = torch.finfo(torch.float32).eps
SMALL: dict[str, Any] = {"n": 30, "d": 80, "m": 12, "n_test": 9, "evaluate_every": 0}


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    positives: int | None = None


CASES = [
    Case("single", "the paper's single-modal loss"),
    Case("multi", "two blocks of scores, each for both directions", {"modality": "multi"}),
    Case("quadratic", "act' is not a step", {"q": 2, "sigma_0": 0.05}),
    Case("quadratic_multi", "the same", {"q": 2, "sigma_0": 0.05, "modality": "multi"}),
    Case("cubic", "act' needs z, not act", {"q": 3, "sigma_0": 0.1, "eta": 0.003}),
    Case(
        "cubic_unequal",
        "d and sigma differ between modalities",
        {"q": 3, "modality": "multi", "sigma_0": 0.1, "d_b": 60, "sigma_xi_b": 0.5, "eta": 0.003},
    ),
    Case("ragged", "less than a vector of samples and of neurons", {"n": 7, "m": 3}),
    Case("ragged_multi", "the same", {"n": 7, "m": 3, "modality": "multi"}),
    Case(
        "over", "one more than whole vectors and tiles", {"n": 101, "m": 51, "d": 300, "epochs": 80}
    ),
    Case(
        "over_multi", "the same", {"n": 101, "m": 51, "d": 300, "modality": "multi", "epochs": 80}
    ),
    Case("lonely", "a single sample of label +1", {"n": 17}, positives=1),
    Case("lonely_multi", "all but one of label +1", {"n": 17, "modality": "multi"}, positives=16),
    Case("cold", "scores in the thousands: a naive exp overflows", {"tau": 1e-5, "sigma_0": 0.1}),
    Case("warm", "the loss hardly falls", {"tau": 1.0}),
    Case("no_signal", "mu = 0: c_mu moves nothing", {"mu_norm": 0.0}),
    Case("below_n", "d < n: inner products of low rank", {"d": 11}),
    Case("reduced", "few coordinates", {"data": "reduced", "d": 10**6, "eta": 2e-5}),
]


def float32_data(cfg: TrainConfig, positives: int | None = None) -> dict[str, torch.Tensor]:
    data = {k: v for k, v in vars(sample(cfg)).items() if v is not None}
    if positives is not None:
        data["labels"] = -torch.ones(cfg.n)
        # Not side by side: the core sorts.
        data["labels"][
            torch.randperm(cfg.n, generator=torch.Generator().manual_seed(1))[:positives]
        ] = 1
    return data


def curves(cfg: TrainConfig, data: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    runs = [train(cfg, x) for x in data]
    assert all(run.status == "finished" for run in runs)
    names = [*CURVES, "gamma", "rho", *(["gamma_b", "rho_b"] if cfg.is_multi else [])]
    return {name: torch.stack([getattr(run, name) for run in runs]) for name in names}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_close_to_float64_as_autograd_in_float32(case: Case) -> None:
    # Four seeds together: on one run plain float32 may be right by luck.
    cfg = TrainConfig(**(SMALL | case.settings), engine="reference")
    data = [float32_data(cfg.replace(seed=s), case.positives) for s in range(4)]
    wide = [{k: v.double() for k, v in x.items()} for x in data]
    exact = curves(cfg.replace(dtype="float64"), wide)
    ours, plain = curves(cfg.replace(engine="native"), data), curves(cfg, data)
    o, p, e = ({k: x[k] for k in CURVES} for x in (ours, plain, exact))
    assert_within_budget(o, plain=p, exact=e)
    # In any float32 a pre-activation may pass zero an epoch earlier, which moves one coefficient
    # by a step: so the mean error of coefficients, not the largest.
    for name in exact.keys() - set(CURVES):
        found, allowed = ((x[name] - exact[name]).abs().mean() for x in (ours, plain))
        assert found <= 2 * (allowed + EPS * exact[name].abs().mean()), name
    assert (exact["loss"][:, -1] < exact["loss"][:, 0]).all(), "premise: something was learned"


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_paper_size(modality: str) -> None:
    # Against the gram engine, whose distance from float64 is tested elsewhere; the loss is compared
    # relative to itself: 0.002 at the end.
    cfg = TrainConfig(modality=modality, evaluate_every=0)
    configs = [cfg.replace(seed=s) for s in range(3)]
    ours, gram, exact = (
        torch.stack([run.loss.double() for run in runs])
        for runs in (
            train_many([c.replace(engine="native") for c in configs]),
            train_many([c.replace(engine="gram") for c in configs]),
            [
                train(
                    c.replace(engine="gram", dtype="float64"),
                    {k: v.double() for k, v in float32_data(c).items()},
                )
                for c in configs
            ],
        )
    )
    assert ((ours / exact - 1).abs()).max() <= 2 * (gram / exact - 1).abs().max()


def test_dead_neurons_and_exact_zeros_stay() -> None:
    cfg = TrainConfig(**SMALL, engine="native", epochs=5)
    data = float32_data(cfg)
    count = (data["labels"] > 0).sum().item()
    start = (
        sum(np.log1p(np.float64(k)) * (cfg.n - k) for k in (count, cfg.n - count)) / cfg.n
    )  # all scores equal
    data["mu"] = torch.zeros(cfg.d)
    data["noise"] = data["noise"].abs()
    data["augmented"] = data["augmented"].abs()
    for weights in (torch.zeros(cfg.m, cfg.d), -torch.ones(cfg.m, cfg.d)):
        run = train(cfg, data | {"weights": weights})
        torch.testing.assert_close(
            run.loss.double(), torch.full((6,), start, dtype=torch.float64), rtol=1e-6, atol=0
        )
        assert not run.rho.any()
        assert not run.gamma.any()
        assert torch.equal(run.weights(), weights)


# From here on: the core alone, on data of its own.


@dataclass(frozen=True)
class Shape:
    n: int
    m: int
    positives: int
    q: int = 1
    multi: bool = False
    tau: float = 0.05
    runs: int = 1


SHAPES = [
    Shape(100, 50, 53, tau=0.02),
    Shape(100, 50, 47, multi=True, tau=0.02),
    Shape(7, 3, 4),
    Shape(101, 51, 96, q=2, multi=True),
    Shape(33, 17, 16, q=3),
    Shape(200, 5, 33, multi=True),
    Shape(16, 16, 0),
    Shape(16, 16, 16, multi=True),
    Shape(1, 1, 1),
    Shape(20, 6, 9, tau=1e-3),
]


def problem(shape: Shape, seed: int = 0) -> tuple[list[np.ndarray], ...]:
    """Inner products, pre-activations and coefficients of each modality, [runs, ...]."""
    rng = np.random.default_rng(seed)
    n, m, d = shape.n, shape.m, 40
    gram, z, moved = [], [], []
    for _ in range(2 if shape.multi else 1):
        columns = rng.standard_normal((shape.runs, n + 1, d))
        columns[:, -1] *= 0.3
        views = columns[:, :n] + 0.1 * rng.standard_normal((shape.runs, n, d))
        vectors = columns if shape.multi else np.concatenate([columns, views], axis=1)
        weights = 0.05 * rng.standard_normal((shape.runs, m, d))
        gram.append((columns @ vectors.mT).astype(np.float32))
        z.append((weights @ vectors.mT).astype(np.float32))
        moved.append(np.zeros((shape.runs, m, n + 1), np.float32))
    return gram, z, moved


def run_core(
    shape: Shape,
    *,
    target: str = "auto",
    threads: int = 1,
    eta: float | None = None,
    epochs: int = 60,
) -> list[np.ndarray]:
    gram, z, moved = problem(shape)
    out = np.zeros((3, shape.runs, epochs), np.float32)
    _native.train_trajectories(
        gram, z, moved, [shape.positives] * shape.runs, [shape.tau] * shape.runs,
        [eta or shape.tau] * shape.runs, out, n=shape.n, m=shape.m, q=shape.q, update=True,
        threads=threads, target=target,
    )  # fmt: skip
    return [out, *z, *moved]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set_gives_the_same_bits(shape: Shape) -> None:
    first, *others = (run_core(shape, target=name) for name in _native.targets())
    assert np.isfinite(first[0]).all()
    for other in others:
        for x, y in zip(first, other, strict=True):
            np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("positives", [0, 9])
def test_without_the_other_label_there_is_nothing_to_learn(positives: int, multi: bool) -> None:
    shape = Shape(9, 4, positives, multi=multi)
    out, *state = run_core(shape)
    assert not out[0].any()
    _, start, _ = problem(shape)
    for z, before in zip(state, start, strict=False):
        np.testing.assert_array_equal(z, before)


def test_runs_do_not_depend_on_threads_or_neighbours() -> None:
    shape = Shape(40, 11, 18, runs=7)
    alone = run_core(shape)
    for threads in (2, 3, 50):
        for x, y in zip(alone, run_core(shape, threads=threads), strict=True):
            np.testing.assert_array_equal(x, y)
    gram, z, moved = problem(shape)
    for r in range(7):
        out = np.zeros((3, 1, 60), np.float32)
        _native.train_trajectories(
            [gram[0][r : r + 1]], [z[0][r : r + 1]], [moved[0][r : r + 1]], [18], [0.05], [0.05],
            out, n=40, m=11, q=1, update=True, threads=1,
        )  # fmt: skip
        np.testing.assert_array_equal(out[:, 0], alone[0][:, r])


def test_a_measurement_changes_nothing() -> None:
    shape = Shape(40, 11, 18)
    gram, z, moved = problem(shape)
    before = z[0].copy()
    out = np.zeros((3, 1, 1), np.float32)
    _native.train_trajectories(
        gram, z, moved, [18], [0.05], [0.05], out, n=40, m=11, q=1, update=False, threads=1
    )
    np.testing.assert_array_equal(z[0], before)
    assert not moved[0].any()
    np.testing.assert_array_equal(out[:, 0, 0], run_core(shape)[0][:, 0, 0])
    assert out[1, 0, 0] == np.abs(before[0, :, 40]).max()
    assert out[2, 0, 0] == before[0, :, :40].max()


@pytest.mark.parametrize("shape", [Shape(40, 11, 18, q=3), Shape(40, 11, 18, q=2, multi=True)])
def test_what_follows_a_loss_that_is_not_finite_is_nan(shape: Shape) -> None:
    for name in _native.targets():
        out = run_core(shape, eta=1e6, target=name)[0][:, 0]
        at = np.flatnonzero(~np.isfinite(out[0]))[0]
        assert 0 < at < 30, "premise"
        assert np.isfinite(out[:, :at]).all()
        assert np.isnan(out[:, at + 1 :]).all()


BAD_BUFFERS = [
    ("gram", lambda a: a.astype(np.float64), r"gram: expected contiguous float32 \[1, 8, 15\]"),
    ("z", lambda a: a[:, :, 1:], r"z: expected contiguous float32 \[1, 3, 15\]"),
    ("moved", lambda a: a[:, ::2], r"moved: expected contiguous float32 \[1, 3, 8\]"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BAD_BUFFERS, ids=lambda x: str(x)[:8])
def test_bad_buffers_are_refused(name: str, spoil, message: str) -> None:
    gram, z, moved = problem(Shape(7, 3, 4))
    given = {"gram": gram[0], "z": z[0], "moved": moved[0]}
    given[name] = spoil(given[name])
    with pytest.raises(ValueError, match=message):
        _native.train_trajectories(
            *([x] for x in given.values()), [4], [0.1], [0.1], np.zeros((3, 1, 2), np.float32),
            n=7, m=3, q=1, update=True, threads=1,
        )  # fmt: skip


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (5, 3, 37), (13, 30, 1025), (100, 7, 2100)])
def test_inner_products(n: int, k: int, d: int) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((rows, d)).astype(np.float32) for rows in (n, k))
    order = rng.permutation(n).tolist()
    exact = np.concatenate([x[order], y[:2]]).astype(np.float64)
    exact = exact @ np.concatenate([x[order], y]).astype(np.float64).T
    found = []
    for name in _native.targets():
        first, second = np.zeros((n, n + k), np.float32), np.zeros((len(y[:2]), n + k), np.float32)
        job = ([first, second], [(x, order), (y[:2], None)], [(x, order), (y, None)], n)
        _native.inner_products([job], threads=1, target=name)
        found.append(np.concatenate([first, second]))
        # A product of d terms is off by at most d eps / 16 of the sum of their sizes here.
        assert np.abs(found[-1] - exact).max() <= 1e-6 * d**0.5 * np.sqrt(d / 16 + 4)
        np.testing.assert_array_equal(found[-1], found[0])


# The engine in the library.


def test_embeddings_are_those_of_the_gram_engine() -> None:
    for q, modality in ((1, "single"), (3, "multi")):
        cfg = TrainConfig(**SMALL, q=q, sigma_0=0.1, modality=modality, device="cpu")
        cfg = cfg.replace(probe_on="ood", probe_samples=5)
        data = [sample(cfg.replace(seed=s)) for s in range(2)]
        found = {}
        for name in ("native", "gram"):
            engine = ENGINES[name].build(EngineSpec([cfg, cfg], data, torch.device("cpu")))
            for epoch in range(20):
                engine.train_epoch(epoch)
            found[name] = engine.embeddings()
        for ours, theirs in zip(found["native"], found["gram"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.max()))


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_a_stretch_is_its_epochs_one_by_one(modality: str) -> None:
    cfg = TrainConfig(
        **(SMALL | {"evaluate_every": 7, "modality": modality}),
        epochs=50,
        coefficients_every=20,
        engine="native",
    )
    seen: list[int] = []
    whole, stepped = train(cfg), train(cfg, on_epoch=lambda info: seen.append(info.epoch))
    assert seen == list(range(51))
    for name in (*CURVES, "ood_accuracy", "gamma", "rho", "gamma_curve", "rho_curve"):
        x, y = getattr(whole, name), getattr(stepped, name)
        assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name


def test_a_stretch_that_diverges_ends_as_its_epochs_do() -> None:
    cfg = TrainConfig(**SMALL, q=3, eta=1e3, sigma_0=1.0, epochs=400, engine="native")
    whole, stepped = train(cfg), train(cfg, on_epoch=lambda info: None)
    assert whole.status == stepped.status == "diverged"
    assert whole.diverged_at == stepped.diverged_at
    assert torch.equal(whole.loss.nan_to_num(nan=-1), stepped.loss.nan_to_num(nan=-1))


REFUSED = [
    ({"dtype": "float64"}, "float32; use gram"),
    ({"optimizer": "momentum"}, "momentum .* use gram"),
    ({"optimizer": "adam"}, "adam .* use primal"),
    ({"optimizer": "sgd", "batch_size": 5}, "sgd .* use gram or primal"),
    ({"weight_decay": 0.1}, "weight_decay"),
    ({"negatives_per_sample": 3}, "negatives_per_sample"),
    ({"augment": "per_epoch"}, "augment"),
    ({"device": "cuda"}, "device cuda"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=lambda x: str(x)[:25])
def test_what_it_cannot_do_is_refused_by_name_and_not_taken_by_auto(
    settings: dict, reason: str
) -> None:
    cfg = TrainConfig(**(SMALL | settings))
    with pytest.raises(EngineRefusedError, match=f"engine native: .*{reason}"):
        resolve_engine(cfg.replace(engine="native"))
    assert resolve_engine(cfg) in ("gram", "primal")
