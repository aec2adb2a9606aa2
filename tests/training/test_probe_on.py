"""The linear probe, fitted on training or on OOD data, in every engine."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, EpochInfo, Run, TrainConfig, reference, train, train_many
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.sampling import check_drawable
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.metrics import train_accuracy
from mmcl_fast.training.resolve import resolve

ENGINES = ["reference", "primal", "gram", "native"]
SIZES: dict[str, Any] = {
    "n": 20, "d": 60, "m": 8, "n_test": 40, "epochs": 25, "eta": 0.1,
    "mu_norm": 2.0, "mu_b_norm": 6.0, "nu_norm": 1.5, "seed": 2, "device": "cpu",
}  # fmt: skip
OOD: dict[str, Any] = {"probe_on": "ood", "probe_samples": 15}
CURVES = ("loss", "signal", "noise", "gamma", "rho")


def of_engine(engine: str, **changes: Any) -> TrainConfig:
    dtype = "float32" if engine == "native" else "float64"
    return TrainConfig(**SIZES | {"engine": engine, "dtype": dtype} | changes)


def dense_accuracy(run: Run) -> float:
    """Accuracy of the reference's head on the reference's embeddings, in float64."""
    data, q = sample(run.config), run.config.q
    w = run.weights("a").double()

    def embedded(labels: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        patches = reference.signal_patches(labels, signal).double()
        return reference.embedding(w, patches, noise.double(), q)

    test = embedded(data.test_labels, data.nu, data.test_noise)
    if run.config.probe_on == "ood":
        fitted = embedded(data.probe_labels, data.nu, data.probe_noise), data.probe_labels
    else:
        fitted = embedded(data.labels, data.mu, data.noise), data.labels
    penalty = run.config.probe_penalty
    return reference.ood_accuracy(*fitted, test, data.test_labels, penalty).item()


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("engine", ENGINES)
def test_accuracy_is_that_of_the_dense_head(engine: str, modality: str) -> None:
    found = []
    for probe in ({}, OOD, OOD | {"probe_penalty": 1e-4}):
        run = train(of_engine(engine, modality=modality, **probe))
        found.append(run.ood_accuracy[-1].item())
        assert found[-1] == pytest.approx(dense_accuracy(run), abs=1e-7)
    assert found[0] != found[1] != found[2], "premise: the heads differ"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_probe_changes_the_accuracy_alone(engine: str) -> None:
    cfg = of_engine(engine)
    on_train, on_ood = train(cfg), train(cfg.replace(**OOD))
    for name in CURVES:
        assert torch.equal(getattr(on_train, name), getattr(on_ood, name)), name
    assert not torch.equal(on_train.ood_accuracy, on_ood.ood_accuracy)


def test_samples_of_the_probe_are_none_of_the_others() -> None:
    cfg = of_engine("gram", **OOD)
    data, plain = sample(cfg), sample(cfg.replace(probe_on="train", probe_samples=None))
    for name, value in vars(plain).items():
        assert value is None or torch.equal(value, getattr(data, name)), name
    k = cfg.probe_samples
    assert not torch.equal(data.probe_labels, data.test_labels[:k])
    for other in (data.noise, data.test_noise, data.augmented, data.weights):
        assert not torch.isclose(data.probe_noise[:, None, 0], other[None, :, 0]).any()
    # Fewer are the first ones.
    assert torch.equal(sample(cfg.replace(probe_samples=9)).probe_noise, data.probe_noise[:9])


@pytest.mark.parametrize("engine", ["gram", "primal"])
def test_reduced_data(engine: str) -> None:
    point = Scaled(n=20, d=10**6, m=8).config(modality="multi")
    kept = {"n_test": 40, "epochs": 60, "dtype": "float64", "engine": engine}
    cfg = point.replace(**kept, **OOD)
    ours, exact = train(cfg), train(cfg.replace(engine="reference"))
    assert torch.equal(ours.ood_accuracy, exact.ood_accuracy)
    assert exact.ood_accuracy.unique().numel() > 1, "premise"


@pytest.mark.parametrize("engine", ["gram", "native"])
def test_a_batch_of_both_probes_is_its_runs(engine: str) -> None:
    cfg = of_engine(engine, dtype="float32")
    configs = [
        cfg.replace(seed=seed, **probe)
        for seed in (2, 5)
        for probe in ({}, OOD, {"probe_on": "ood"})
    ]
    for one, together in zip(map(train, configs), train_many(configs), strict=True):
        assert torch.equal(one.ood_accuracy, together.ood_accuracy)
        assert one.config.probe_samples == together.config.probe_samples
    assert [resolve(c).probe_samples for c in configs[:3]] == [None, 15, 100]


def test_callbacks_see_the_probe() -> None:
    cfg = of_engine("gram", evaluate_every=10, probe_penalty=1e-3, **OOD)
    seen: list[tuple[float, tuple[int, ...]]] = []

    def observe(info: EpochInfo) -> str | None:
        seen.append((info.accuracy().item(), tuple(info.probe_embeddings().shape)))
        assert info.runs[0].probe_embeddings().shape == (15, cfg.m)
        assert [len(x[0]) for x in info.embeddings()] == [cfg.n, cfg.n_test]
        return "stop" if info.epoch == 13 else None

    run = train(cfg, on_epoch=observe, metrics={"on_training": train_accuracy})
    assert [x for x, _ in seen][::10] == run.ood_accuracy[::10].tolist()
    assert seen[-1] == (run.ood_accuracy[13].item(), (1, 15, cfg.m))
    plain = train(
        cfg.replace(probe_on="train", probe_samples=None, epochs=13),
        metrics={"on_training": train_accuracy},
    )
    assert torch.equal(run.metrics["on_training"], plain.metrics["on_training"])


def test_one_label_is_refused_before_training() -> None:
    cfg = of_engine("gram", probe_on="ood", probe_samples=2)
    alike = [s for s in range(20) if len(set(_probe_labels(cfg, s))) == 1]
    assert 0 < len(alike) < 20, "premise"
    bad, mixed = cfg.replace(seed=alike[0]), min(set(range(20)) - set(alike))
    message = rf"probe_labels: expected both .* seed {alike[0]} draws 2 .* a larger probe_samples"
    for refuses in (check_drawable, train, lambda x: train_many([cfg.replace(seed=mixed), x])):
        with pytest.raises(DataError, match=message):
            refuses(bad)


def _probe_labels(cfg: TrainConfig, seed: int) -> list[float]:
    from mmcl_fast.data.stream.generate import labels

    return labels(seed, "probe_labels", (1, cfg.probe_samples_value))[0].tolist()


def test_samples_of_ones_own() -> None:
    cfg = of_engine("gram", **OOD)
    data = {name: x for name, x in vars(sample(cfg)).items() if x is not None}
    mine = {
        "probe_noise": data["probe_noise"].flip(0),
        "probe_labels": data["probe_labels"].flip(0),
    }
    ours, drawn = train(cfg, mine), train(cfg)
    assert torch.equal(ours.ood_accuracy, drawn.ood_accuracy)  # the order does not matter
    mine["probe_labels"] = -mine["probe_labels"]
    assert not torch.equal(train(cfg, mine).ood_accuracy, drawn.ood_accuracy)
    with pytest.raises(DataError, match=r"probe_labels: expected both .* got 15 labels"):
        train(cfg, {"probe_labels": torch.ones(15)})
