"""Data of one's own for model variants: checked, and completed from what is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, TrainConfig, train
from mmcl_fast.data import SignalNoiseData, from_arrays, sample
from mmcl_fast.data.signal_noise.discrete import draw_attributes, draw_targets, positives
from mmcl_fast.data.signal_noise.own_arrays import with_own_norms
from mmcl_fast.data.signal_noise.synthetic import draw_augmented
from tests.support.names import without_addresses

BASE = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=3, evaluate_every=0, device="cpu")
CLASSES = BASE.replace(classes=3, prior_exponent=1.0, negatives="all")
SPURIOUS = BASE.replace(spurious_norm=2.0, pair_noise=0.3, probe_on="ood", probe_samples=8)
LOGISTIC = BASE.replace(objective="logistic", label_noise=0.2)
MULTI = SPURIOUS.replace(modality="multi", d_b=31, classes=3, spurious_b_norm=1.0)
EVERY = [
    CLASSES, SPURIOUS, LOGISTIC, MULTI, BASE.replace(view_mask=0.3, view_scale=2.0),
    BASE.replace(stop_gradient="none", data="reduced", d=400), BASE.replace(data="orthogonal"),
]  # fmt: skip
LABELS = np.tile([-1, 1], 10)
NAMES = np.arange(20) % 3


def fields(data: SignalNoiseData) -> dict[str, Tensor]:
    return {name: x for name, x in vars(data).items() if x is not None}


def same(a: SignalNoiseData, b: SignalNoiseData) -> None:
    assert fields(a).keys() == fields(b).keys()
    for name, x in fields(a).items():
        assert torch.equal(x, getattr(b, name)), name


@pytest.mark.parametrize("cfg", EVERY)
def test_what_is_not_given_is_drawn(cfg: TrainConfig) -> None:
    drawn = fields(sample(cfg))
    for given in (set(), {"noise"}, {"labels", "mu"}, {"attributes", "test_labels"}, set(drawn)):
        kept = {name: drawn[name].double().numpy() for name in given & set(drawn)}
        same(from_arrays(cfg, **kept), sample(cfg))
    train(cfg.replace(engine="reference"), data=sample(cfg))


def test_what_follows_from_labels_follows_from_those_given() -> None:
    labels, order = torch.tensor(LABELS, dtype=torch.float32), positives(SPURIOUS)
    data = from_arrays(SPURIOUS, labels=LABELS, test_labels=LABELS[:10])
    attributes = draw_attributes(SPURIOUS, "attributes", labels)
    assert torch.equal(data.attributes, attributes)
    assert torch.equal(data.positive_labels, labels[order])
    assert torch.equal(data.positive_attributes, attributes[order])
    test = draw_attributes(SPURIOUS, "test_attributes", labels[:10])
    assert torch.equal(data.test_attributes, test)
    own = from_arrays(SPURIOUS, attributes=LABELS)
    assert torch.equal(own.positive_attributes, labels[order])
    assert torch.equal(
        from_arrays(LOGISTIC, labels=LABELS).targets, draw_targets(LOGISTIC, labels, 0)
    )
    told = from_arrays(LOGISTIC, targets=LABELS)
    assert torch.equal(told.targets, labels)
    assert torch.equal(told.labels, sample(LOGISTIC).labels)


def test_views_of_own_noise_are_those_of_the_positives() -> None:
    noise = np.random.default_rng(0).standard_normal((20, 50))
    data = from_arrays(SPURIOUS, noise=noise)
    assert torch.equal(data.augmented, draw_augmented(SPURIOUS, data.noise, 0))
    plain = from_arrays(SPURIOUS.replace(pair_noise=0.0), noise=noise)
    assert torch.equal(data.augmented, plain.augmented[positives(SPURIOUS)])


def test_signals_of_classes_may_be_any_orthogonal_ones() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 50)))[0].astype(np.float32)
    cfg = CLASSES.replace(spurious_norm=1.0)
    data = from_arrays(cfg, mu=3 * basis[:3], nu=2 * basis[4:7], spurious=0.5 * basis[9])
    found = with_own_norms(cfg, data)
    assert found.mu_norm == pytest.approx(3, rel=1e-6)
    assert found.nu_norm == cfg.nu_norm
    assert found.spurious_norm == pytest.approx(0.5, rel=1e-6)
    run = train(cfg.replace(engine="reference"), data=data)
    assert run.config.mu_norm == found.mu_norm


BASIS = np.eye(50)
WRONG: list[tuple[TrainConfig, dict[str, Any], str]] = [
    (CLASSES, {"labels": LABELS}, "data.labels: expected classes 0 .. 2, got values [-1.0, 1.0]"),
    (CLASSES, {"labels": NAMES + 0.5}, "data.labels: expected classes 0 .. 2, got values [0.5, 1"),
    (CLASSES, {"labels": NAMES * 0}, "labels: expected at least two classes, got 20 labels that a"),
    (CLASSES, {"test_labels": np.full(10, 3)}, "data.test_labels: expected classes 0 .. 2, got v"),
    (CLASSES, {"mu": BASIS[0]}, "data.mu: expected shape [3, 50], got [50]"),
    (CLASSES, {"mu": np.diag([1, 2, 1]) @ BASIS[:3]}, "data.mu: expected signals of equal norm, g"),
    (CLASSES, {"nu": BASIS[[0, 1, 1]]}, "data.nu: expected orthogonal signals, the spurious one"),
    (CLASSES, {"signal": np.ones((20, 50))}, "data.signal: expected none with negatives, got one"),
    (SPURIOUS, {"spurious": BASIS[0]}, "data.spurious: expected orthogonal signals, the spurious"),
    (SPURIOUS, {"mu": BASIS[1]}, "data.mu: expected orthogonal signals, the spurious one among"),
    (SPURIOUS, {"spurious": 0 * BASIS[0]}, "data.spurious: expected a signal other than 0 with"),
    (SPURIOUS, {"attributes": NAMES}, "data.attributes: expected +1 and -1, got values [0.0, 1.0"),
    (SPURIOUS, {"positive_labels": np.zeros(20)}, "data.positive_labels: expected +1 and -1, got"),
    (SPURIOUS, {"targets": LABELS}, "data.targets: expected none with objective contrastive, got"),
    (SPURIOUS, {"spurious_b": BASIS[1]}, "data.spurious_b: expected none in a single-modal run"),
    (LOGISTIC, {"targets": LABELS > 0}, "data.targets: expected +1 and -1, got 0 and 1; take 2"),
    (LOGISTIC, {"positive_labels": LABELS}, "data.positive_labels: expected none without pair_n"),
    (LOGISTIC, {"attributes": LABELS}, "data.attributes: expected none without spurious_norm"),
]


@pytest.mark.parametrize(("cfg", "arrays", "message"), WRONG, ids=without_addresses)
def test_each_wrong_thing_is_one_error(cfg: TrainConfig, arrays: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        from_arrays(cfg, **arrays)
    assert str(caught.value).startswith(message)


def test_data_of_another_model_are_not_cut_down_in_silence() -> None:
    for cfg, name in (
        (BASE.replace(spurious_norm=1.0), "spurious"),
        (BASE.replace(pair_noise=0.2), "positive_labels"),
    ):
        with pytest.raises(DataError, match=rf"data\.{name}: expected none without"):
            train(BASE, data=sample(cfg))
    # Targets only say what another loss is told.
    assert torch.equal(train(BASE, data=sample(LOGISTIC)).loss, train(BASE).loss)
