"""The native engine of model variants against the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import EngineRefusedError, TrainConfig, train, train_many
from mmcl_fast.data import SignalNoiseData, sample
from mmcl_fast.engines import ENGINES, Engine, EngineSpec, resolve_engine
from mmcl_fast.engines.reference_variants import VariantReferenceEngine
from mmcl_fast.engines.variants.native import VariantNativeEngine
from tests.support.budget import assert_within_budget

EPS = torch.finfo(torch.float32).eps
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"n": 30, "d": 80, "m": 12, "n_test": 9}
EPOCHS = 25
PARTS = ("mu", "noise", "spurious", "views")


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)


def _case(id: str, why: str, **settings: Any) -> Case:
    return Case(id, why, settings)


CASES = [
    _case("paper", "the paper's model is a variant"),
    _case("all_labels", "negatives of every label", negatives="all"),
    _case(
        "all_labels_multi",
        "one product for both directions",
        negatives="all",
        modality="multi",
    ),
    _case("pair_noise", "the positive has another label", pair_noise=0.4),
    _case(
        "pair_noise_multi",
        "the mask is not symmetric, and the diagonal is no negative",
        pair_noise=0.4,
        modality="multi",
        d_b=60,
    ),
    _case("keys", "views are columns", stop_gradient="none"),
    _case(
        "keys_multi",
        "both directions reach both modalities",
        stop_gradient="none",
        modality="multi",
        pair_noise=0.3,
        q=2,
        sigma_0=0.05,
        eta=0.003,  # larger steps amplify any rounding
    ),
    # The unit of a sample's features is their norm, which starts small: eta likewise.
    _case("cosine", "gradients are tangential", similarity="cosine", eta=0.001, sigma_0=0.01),
    _case(
        "cosine_keys",
        "keys and views have norms of their own",
        similarity="cosine",
        stop_gradient="none",
        pair_noise=0.3,
        negatives="all",
        eta=0.001,
        sigma_0=0.01,
    ),
    _case(
        "cosine_multi",
        "keys are positives",
        similarity="cosine",
        stop_gradient="none",
        modality="multi",
        eta=0.001,
        sigma_0=0.01,
    ),
    _case("tau", "the temperature falls", eta_tau=0.01),
    _case("classes", "more signals than one", classes=5),
    _case("classes_multi", "a class without samples", classes=40, modality="multi", pair_noise=0.3),
    _case("spurious", "two signal patches", spurious_norm=3.0),
    _case(
        "spurious_multi",
        "modalities whose signals differ",
        spurious_b_norm=2.0,
        modality="multi",
        pair_noise=0.2,
    ),
    _case("third", "a loss for each pair of modalities", modality="multi", mu_c_norm=8.0, d_c=70),
    _case(
        "third_cosine_keys",
        "every gradient is a sum over two pairs",
        modality="multi",
        mu_c_norm=4.0,
        sigma_xi_c=0.7,
        spurious_c_norm=1.5,
        pair_noise=0.3,
        similarity="cosine",
        stop_gradient="none",
        eta=0.001,
        sigma_0=0.01,
    ),
    _case("third_orthogonal", "K is diagonal", modality="multi", mu_c_norm=8.0, data="orthogonal"),
    _case("logistic", "labels, some of them wrong", objective="logistic", label_noise=0.2),
    _case(
        "logistic_cubic",
        "two signal patches",
        objective="logistic",
        spurious_norm=2.0,
        q=3,
        sigma_0=0.2,
    ),
    _case("views", "views that are no noise patch plus noise", view_scale=0.5),
    _case("orthogonal", "K is diagonal", data="orthogonal", negatives="all"),
    _case(
        "orthogonal_keys",
        "and a view has a product with the noise patch of another sample",
        data="orthogonal",
        stop_gradient="none",
        pair_noise=0.3,
    ),
    _case("orthogonal_logistic", "there are no views", data="orthogonal", objective="logistic"),
    _case("ragged", "less than a vector", n=7, m=3, stop_gradient="none", negatives="all"),
    _case("over", "one more than vectors", n=65, m=33, d=200, stop_gradient="none", classes=3),
    _case("cold", "a naive exp overflows", negatives="all", tau=1e-5, sigma_0=0.1, eta=1e-6),
    _case(
        "everything",
        "every option off its default",
        negatives="all",
        pair_noise=0.3,
        stop_gradient="none",
        similarity="cosine",
        eta_tau=0.01,
        classes=3,
        spurious_norm=1.0,
        view_scale=0.9,
        eta=0.001,
        sigma_0=0.01,
    ),
]


def double(data: SignalNoiseData) -> SignalNoiseData:
    fields = {name: None if x is None else x.double() for name, x in vars(data).items()}
    return SignalNoiseData(**fields)


def measured(engine: Engine, epochs: int) -> dict[str, Tensor]:
    """Curves, embeddings and coefficients of a single run."""
    rows: dict[str, list[Tensor]] = {"loss": [], "signal": [], "noise": [], "tau": []}
    for epoch in range(epochs):
        signal, noise = engine.signal_and_noise()
        tau = engine.temperature()  # type: ignore[attr-defined]
        for name, value in (("signal", signal), ("noise", noise), ("tau", tau)):
            rows[name].append(value[0])
        rows["loss"].append(engine.train_epoch(epoch)[0])
    found = {name: torch.stack(values) for name, values in rows.items()}
    found |= {"train": engine.embeddings().train[0], "test": engine.embeddings().test[0]}
    coefficients = engine.coefficients()
    assert coefficients is not None
    for k, c in enumerate(coefficients):
        for name in PARTS:
            if (x := getattr(c, name)) is not None:
                found[f"{name}_{k}"] = x[0]
    return found


def build(
    kind: type[VariantNativeEngine] | type[VariantReferenceEngine],
    cfg: TrainConfig,
    data: SignalNoiseData,
) -> Engine:
    return kind(EngineSpec([cfg], [data], CPU))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_close_to_float64_as_autograd_in_float32(case: Case) -> None:
    # Four seeds together: on one run plain float32 may be right by luck.
    cfg = TrainConfig(**(SMALL | case.settings))
    runs: dict[str, list[dict[str, Tensor]]] = {"ours": [], "plain": [], "exact": []}
    for seed in range(4):
        data = sample(cfg.replace(seed=seed))
        wide = cfg.replace(dtype="float64")
        runs["ours"].append(measured(build(VariantNativeEngine, cfg, data), EPOCHS))
        runs["plain"].append(measured(build(VariantReferenceEngine, cfg, data), EPOCHS))
        runs["exact"].append(measured(build(VariantReferenceEngine, wide, double(data)), EPOCHS))
    ours, plain, exact = (
        {name: torch.stack([run[name] for run in x]) for name in x[0]} for x in runs.values()
    )
    curves = [name for name in exact if "_" not in name]
    o, p, e = ({name: x[name] for name in curves} for x in (ours, plain, exact))
    assert_within_budget(o, plain=p, exact=e)
    # In any float32 a pre-activation may pass zero an epoch earlier, which moves one coefficient
    # by a step: so the mean error of coefficients, not the largest.
    for name in exact.keys() - set(curves):
        found, allowed = ((x[name] - exact[name]).abs().mean() for x in (ours, plain))
        assert found <= 2 * (allowed + EPS * exact[name].abs().mean()), name
    assert (exact["loss"][:, 0] != exact["loss"][:, -1]).all(), "premise: something was learned"


def test_data_that_are_not_orthogonal_are_trained_as_they_are() -> None:
    cfg = TrainConfig(**SMALL, data="orthogonal", negatives="all")
    data = sample(cfg.replace(data="explicit"))
    ours, exact = (
        build(VariantNativeEngine, cfg, data),
        build(VariantReferenceEngine, cfg.replace(dtype="float64"), double(data)),
    )
    for epoch in range(10):
        torch.testing.assert_close(
            ours.train_epoch(epoch).double(), exact.train_epoch(epoch), rtol=1e-6, atol=0
        )


def test_runs_of_the_library_alone_and_side_by_side() -> None:
    cfg = TrainConfig(
        **SMALL, epochs=12, evaluate_every=5, eta_tau=0.01, spurious_norm=3.0, probe_on="ood"
    )
    configs = [cfg.replace(seed=seed, engine="native") for seed in range(3)]
    names = ("loss", "signal", "noise", "tau", "ood_accuracy", "gamma", "rho")
    for one, together in zip(configs, train_many(configs), strict=True):
        alone = train(one)
        exact = train(one.replace(engine="gram", dtype="float64"))
        for name in names:
            x, y = getattr(alone, name), getattr(together, name)
            assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name
        assert alone.tau is not None
        assert exact.tau is not None
        assert (alone.tau.diff() < 0).all(), "premise: the temperature falls"
        # Data of the two are drawn in their dtypes, which differ by rounding alone.
        torch.testing.assert_close(alone.tau.double(), exact.tau, rtol=1e-5, atol=0)
        torch.testing.assert_close(alone.loss.double(), exact.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            alone.ood_accuracy, exact.ood_accuracy, rtol=0, atol=1 / cfg.n_test, equal_nan=True,
            check_dtype=False,
        )  # fmt: skip


REFUSED = [
    ({"dtype": "float64"}, "float32; use gram"),
    ({"optimizer": "momentum"}, "momentum .* use gram"),
    ({"optimizer": "sgd", "batch_size": 5}, "sgd .* use gram"),
    ({"optimizer": "adam"}, "adam .* use reference"),
    ({"weight_decay": 0.1}, "weight_decay .* use gram"),
    ({"augment": "per_epoch"}, "augment .* use gram"),
    ({"augment": "per_epoch", "stop_gradient": "none"}, "augment .* use reference"),
    ({"negatives_per_sample": 3, "negatives": "other_label", "similarity": "cosine"}, "negatives"),
    (
        {
            "negatives": "other_label",
            "objective": "logistic",
            "label_noise": 0.1,
            "label_noise_draw": "per_epoch",
        },
        "label_noise_draw .* use gram",
    ),
    ({"device": "cuda"}, "device cuda: .* use gram"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=lambda x: str(x)[:25])
def test_what_it_cannot_do_is_refused_by_name(settings: dict[str, Any], reason: str) -> None:
    cfg = TrainConfig(**(SMALL | {"negatives": "all"} | settings), engine="native")
    with pytest.raises(EngineRefusedError, match=f"engine native: .*{reason}"):
        resolve_engine(cfg)


def test_auto_takes_it_for_small_variants() -> None:
    cfg = TrainConfig(**SMALL, negatives="all", device="cpu")
    assert resolve_engine(cfg) == "native"
    spec = EngineSpec([cfg], [sample(cfg)], CPU)
    assert isinstance(ENGINES["native"].build(spec), VariantNativeEngine)
