"""Precision bf16 of the primal engine: its products are rounded, and nothing else is."""

import math

import pytest
import torch
from torch import Tensor

from mmcl_fast import EngineRefusedError, TrainConfig, train
from mmcl_fast.engines import encoder, resolve_engine
from mmcl_fast.losses.torch_backend.matmul import bfloat16_product
from mmcl_fast.training.run import Run

CURVES = ("loss", "signal", "noise")


def as_bfloat16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


def rounded(x: Tensor, w: Tensor) -> Tensor:
    """The product as it is defined, with exact sums, for float64."""
    return as_bfloat16(as_bfloat16(x) @ as_bfloat16(w).T)


@pytest.mark.parametrize(("rows", "columns", "k"), [(7, 5, 33), (130, 65, 4000), (256, 128, 64)])
def test_product_rounds_factors_and_result_alone(rows: int, columns: int, k: int) -> None:
    draw = torch.Generator().manual_seed(rows)
    x, w = torch.randn(rows, k, generator=draw), torch.randn(columns, k, generator=draw)
    got = bfloat16_product(x, w).double()
    exact = as_bfloat16(x).double() @ as_bfloat16(w).double().T
    # The result's rounding, and float32 sums of k terms before it.
    size = as_bfloat16(x).double().abs() @ as_bfloat16(w).double().abs().T
    assert ((got - exact).abs() <= exact.abs() * 2**-8 + size * k * 2**-24).all()
    stated = 1.01 * 2**-7 * (x.double().abs() @ w.double().abs().T) + 2**-8 * exact.abs()
    assert ((got - x.double() @ w.double().T).abs() <= stated + size * k * 2**-24).all()


@pytest.mark.parametrize("modality_name", ["single", "multi"])
@pytest.mark.parametrize(
    "settings",
    [
        {"n": 100, "d": 400, "m": 20, "epochs": 120},
        {"n": 300, "d": 300, "m": 33, "epochs": 40, "eta": 0.03, "q": 2, "sigma_0": 0.02},
        {"n": 80, "d": 300, "m": 12, "epochs": 15, "optimizer": "sgd", "batch_size": 32},
    ],
    ids=["block", "halves", "minibatches"],
)
def test_error_is_that_of_the_products(
    modality_name: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64: no worse than twice a float64 run with rounded products, over 3 seeds."""
    base = TrainConfig(modality=modality_name, engine="primal", evaluate_every=0, **settings)
    wrong, expected = dict.fromkeys(CURVES, 0.0), dict.fromkeys(CURVES, 0.0)
    for seed in range(3):
        cfg = base.replace(seed=seed)
        exact, ours = train(cfg.replace(dtype="float64")), train(cfg.replace(precision="bf16"))
        with monkeypatch.context() as patch:
            patch.setitem(encoder.PRODUCTS, "ieee", rounded)
            plain = train(cfg.replace(dtype="float64"))
        for name in CURVES:
            wrong[name] = max(wrong[name], error(ours, exact, name))
            expected[name] = max(expected[name], error(plain, exact, name))
    for name in CURVES:
        assert 1e-6 < wrong[name] <= 2 * expected[name], name


def error(run: Run, exact: Run, name: str) -> float:
    truth = getattr(exact, name)
    return float((getattr(run, name).double() - truth).abs().max() / truth.abs().max())


def test_weights_stay_float32() -> None:
    cfg = TrainConfig(n=30, d=200, m=12, epochs=20, engine="primal", evaluate_every=0)
    weights = train(cfg.replace(precision="bf16")).weights()
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, as_bfloat16(weights))
    still = train(cfg.replace(precision="bf16", eta=1e-9)).weights()
    start = train(cfg.replace(precision="bf16", epochs=0)).weights()
    assert 0 < float((still - start).abs().max()) < 2**-12 * float(start.abs().max()), (
        "an update far below bfloat16's spacing is kept"
    )


def test_who_does_it() -> None:
    cfg = TrainConfig(device="cpu", precision="bf16")
    assert resolve_engine(cfg) == "primal"
    with pytest.raises(EngineRefusedError, match="precision bf16: it has ieee; use primal"):
        train(cfg.replace(engine="gram"))
    with pytest.raises(EngineRefusedError, match="expected dtype float32 for weights and sums"):
        train(cfg.replace(engine="primal", dtype="float64"))
    run = train(cfg.replace(n=20, d=50, m=5, epochs=3))
    assert run.config.precision == "bf16"
    assert math.isfinite(run.final()["loss"])
