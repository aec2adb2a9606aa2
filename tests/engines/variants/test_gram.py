"""The engine of variants in coefficient space against autograd on the weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, EngineRefusedError, TrainConfig, train
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.engines import ENGINES, Engine, EngineSpec, resolve_engine
from mmcl_fast.engines.protocol import LearnsTemperature
from mmcl_fast.engines.trajectory_base import unsupported_setting
from mmcl_fast.training.loop import compute_threads
from mmcl_fast.training.span import weights_in_span
from tests.engines.variants.cases import CHOICES, drawn

AGREEMENT = drawn(40, seed=1)
# Of mismatched pairs the negatives of both directions differ, which few of those have.
MISMATCHED: dict[str, Any] = {"modality": "multi", "pair_noise": 0.3, "negatives": "other_label"}
MISMATCHES = [
    *drawn(3, seed=2, **MISMATCHED),
    *drawn(3, seed=3, **MISMATCHED, mu_c_norm=2.5, optimizer="gd"),
]
# Measured at the most 1e-13; the bound is what the engines promise.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def test_every_choice_is_among_the_settings() -> None:
    for name, values in CHOICES.items():
        for value in values:
            expected = value if isinstance(value, dict) else {name: value}
            drawn_so = [cfg for cfg in AGREEMENT if expected.items() <= cfg.to_dict().items()]
            assert drawn_so, expected


@pytest.mark.parametrize("cfg", [*AGREEMENT, *MISMATCHES], ids=lambda cfg: str(cfg.seed))
def test_it_agrees_with_autograd(cfg: TrainConfig) -> None:
    data, device = sample(cfg), torch.device("cpu")
    spec = EngineSpec([cfg], [data], device)
    ours, exact = (ENGINES[name].build(spec) for name in ("gram", "reference"))
    for epoch in range(cfg.epochs):
        for mine, theirs in zip(_measured(ours, epoch), _measured(exact, epoch), strict=True):
            torch.testing.assert_close(mine, theirs, **TOLERANCE)
    torch.testing.assert_close(ours.loss(cfg.epochs), exact.loss(cfg.epochs), **TOLERANCE)
    for mine, theirs in zip(ours.embeddings(), exact.embeddings(), strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE)
    found, expected, weights = ours.coefficients(), exact.coefficients(), exact.weights()
    assert found
    assert expected
    assert weights
    for k, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        for name, value in vars(theirs).items():
            torch.testing.assert_close(getattr(mine, name), value, **TOLERANCE, msg=name)
        rebuilt = weights_in_span(mine.mapped(lambda x: x[0]), data, k)
        torch.testing.assert_close(rebuilt, weights[k][0], **TOLERANCE)


def _measured(engine: Engine, epoch: int) -> Iterator[Tensor]:
    """Signal, noise, temperature and loss before an epoch, which is trained."""
    yield from engine.signal_and_noise()
    # The paper's model with minibatches is no variant in the reference.
    if isinstance(engine, LearnsTemperature):
        yield engine.temperature()
    yield engine.train_epoch(epoch)


INVARIANCE = [
    *drawn(8, seed=8, dtype="float32"),
    *drawn(4, seed=12, dtype="float32", q=5, sigma_0=0.2),
]


@pytest.mark.parametrize("cfg", INVARIANCE, ids=lambda cfg: str(cfg.seed))
def test_a_run_does_not_depend_on_its_batch(cfg: TrainConfig) -> None:
    configs = [cfg.replace(seed=100 * cfg.seed + s) for s in range(5)]
    together = _trained(configs)
    for r, one in enumerate(configs):
        for mine, alone in zip(together, _trained([one]), strict=True):
            assert torch.equal(mine[r], alone[0])


def test_a_learned_temperature_does_not_depend_on_the_batch() -> None:
    """Elementwise powers may round a full vector of runs and the rest by different code."""
    (cfg,) = drawn(1, seed=3, eta_tau=0.3, objective="contrastive")
    configs = [cfg.replace(seed=s) for s in range(50, 71)]
    together = _trained(configs)
    for r in (0, 8, 15, 16, 20):
        for mine, alone in zip(together, _trained(configs[r : r + 1]), strict=True):
            assert torch.equal(mine[r], alone[0])


def _trained(configs: Sequence[TrainConfig]) -> list[Tensor]:
    """Losses, measurements, embeddings and coefficients of runs after a few epochs, [R, ...]."""
    spec = EngineSpec(configs, sample_many(configs), torch.device("cpu"))
    with compute_threads(configs[0].replace(engine="gram", device="cpu")):  # as `train` does
        engine = ENGINES["gram"].build(spec)
        losses = torch.stack([engine.train_epoch(epoch) for epoch in range(8)], dim=1)
        found = engine.coefficients()
        tensors = [losses, *engine.signal_and_noise(), *engine.embeddings()]
    assert found
    tensors.append(engine.temperature() if isinstance(engine, LearnsTemperature) else None)
    tensors += [x for modality in found for x in vars(modality).values()]
    return [x for x in tensors if x is not None]


@pytest.mark.parametrize(
    "cfg",
    [
        *drawn(3, seed=4, stop_gradient="none", similarity="cosine", eta_tau=0.1),
        *drawn(1, seed=5, optimizer="momentum", augment="per_epoch"),
        *drawn(1, seed=6, objective="logistic", label_noise=0.2, label_noise_draw="per_epoch"),
        *drawn(1, seed=7, optimizer="sgd", batch_size=4, negatives_per_sample=2),
    ],
)
def test_it_resumes_bit_for_bit(cfg: TrainConfig, tmp_path: Path) -> None:
    cfg = cfg.replace(engine="gram", coefficients_every=2, evaluate_every=0)
    file = tmp_path / "run.safetensors"
    whole = train(cfg)
    train(cfg.replace(epochs=5), checkpoint=file, checkpoint_every=5)
    first: list[int] = []
    resumed = train(cfg, on_epoch=lambda info: first.append(info.epoch), checkpoint=file)
    assert first[0] == 5
    for name in ("loss", "signal", "noise", "tau", "gamma", "rho", "rho_curve"):
        mine, theirs = getattr(resumed, name), getattr(whole, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    "settings",
    [
        {"stop_gradient": "none", "negatives": "all", "similarity": "cosine", "eta_tau": 0.1},
        {"classes": 5, "spurious_norm": 2.0, "pair_noise": 0.2},
        {"objective": "logistic", "label_noise": 0.1},
        {"modality": "multi", "stop_gradient": "none", "eta_tau": 0.01},
    ],
    ids=["cosine", "signals", "logistic", "clip"],
)
def test_float32_is_as_close_to_float64_as_eager_is(settings: dict[str, Any]) -> None:
    """The worst of several seeds: rounding of a single run is luck, eager's as well as ours."""
    curves = ("loss", "signal", "noise")
    # Weights large enough that a first step along a cosine, over |H|, does not overshoot.
    size: dict[str, Any] = {"n": 40, "d": 200, "m": 20, "epochs": 20, "sigma_0": 0.03}
    base = TrainConfig(**size | settings, evaluate_every=0)
    worst = {(engine, name): 0.0 for engine in ("gram", "reference") for name in curves}
    scale = dict.fromkeys(curves, 0.0)
    for seed in range(4):
        cfg = base.replace(seed=seed, engine="reference")
        given = {k: v.double() for k, v in vars(sample(cfg)).items() if v is not None}
        exact = train(cfg.replace(dtype="float64"), data=given)
        for name in curves:
            scale[name] = max(scale[name], float(getattr(exact, name).abs().max()))
            for engine in ("gram", "reference"):
                run = train(cfg.replace(engine=engine))
                error = (getattr(run, name).double() - getattr(exact, name)).abs().max()
                worst[engine, name] = max(worst[engine, name], float(error))
    for name in curves:
        eps = torch.finfo(torch.float32).eps * scale[name]
        assert worst["gram", name] <= 2 * (worst["reference", name] + eps), name


@pytest.mark.parametrize("engine", ["primal", "native"])
@pytest.mark.parametrize(
    ("settings", "able"),
    [
        ({"negatives": "all", "device": "cuda"}, "gram"),
        ({"negatives": "all", "optimizer": "adam", "device": "cuda"}, "reference"),
        ({"stop_gradient": "none", "augment": "per_epoch", "device": "cuda"}, "reference"),
    ],
    ids=str,
)
def test_other_engines_name_one_that_can(settings: dict[str, Any], able: str, engine: str) -> None:
    cfg = TrainConfig(**settings)
    assert ENGINES[engine].why_not(cfg).endswith(f"use {able}")
    assert unsupported_setting(cfg, "the trajectory kernel").endswith(f"use {able}")
    assert ENGINES[able].why_not(cfg) is None


@pytest.mark.parametrize(
    ("settings", "hints"),
    [
        ({"negatives": "all"}, "a smaller n or d or data = reduced"),
        ({"view_mask": 0.5}, "a smaller n or d"),
        (
            {"stop_gradient": "none", "augment": "per_epoch", "engine": "reference"},
            "a smaller n or d",
        ),
    ],
    ids=str,
)
def test_too_large_runs_are_refused_with_what_they_can_have(
    settings: dict[str, Any], hints: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmcl_fast.engines.cost.available_bytes", lambda: 1000)
    with pytest.raises(DataError, match=f"memory: expected a run of at most .*; take {hints}$"):
        train(TrainConfig(**settings, device="cpu"))


@pytest.mark.parametrize(
    ("settings", "able"),
    [
        ({"optimizer": "adam", "negatives": "all"}, "reference"),
        ({"optimizer": "adam"}, "primal"),
        ({"optimizer": "sgd", "batch_size": 5, "data": "streamed"}, "primal"),
        ({"stop_gradient": "none", "augment": "per_epoch"}, "reference"),
    ],
)
def test_refusals_name_an_engine_that_can(settings: dict[str, Any], able: str) -> None:
    cfg = TrainConfig(**settings)
    with pytest.raises(EngineRefusedError, match=f"engine gram: .*use {able}"):
        resolve_engine(cfg.replace(engine="gram"))
    assert ENGINES[able].why_not(cfg) is None


def test_auto_takes_it_for_variants_alone() -> None:
    # Minibatches of the paper's model stay with the engine of earlier stores.
    minibatches = TrainConfig(optimizer="sgd", batch_size=10)
    assert resolve_engine(minibatches) == "primal"
    assert resolve_engine(minibatches.replace(negatives="all")) == "gram"
    # Weights of variants are in no other engine, whatever it costs.
    tall = TrainConfig(n=4000, d=50, negatives="all", dtype="float64")
    assert resolve_engine(tall) == "gram"


def test_features_shorter_than_the_least_length() -> None:
    """At q = 16 lengths are below 1e-12: there a cosine divides by a constant."""
    cfg = TrainConfig(
        n=8, d=20, m=6, q=16, sigma_0=0.02, similarity="cosine", stop_gradient="none",
        negatives="all", dtype="float64", epochs=3, n_test=4,
    )  # fmt: skip
    ours, exact = (train(cfg.replace(engine=name)) for name in ("gram", "reference"))
    for name in ("gamma", "rho"):
        assert getattr(exact, name).any()
        torch.testing.assert_close(getattr(ours, name), getattr(exact, name), rtol=1e-9, atol=0)
