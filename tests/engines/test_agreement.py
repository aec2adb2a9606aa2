"""Engines train the same run, for every option that each accepts (native: test_native.py)."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast import DataError, EngineRefusedError, TrainConfig, train
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.gpu import DeviceRows
from mmcl_fast.data.signal_noise.rows import piece_rows
from mmcl_fast.data.signal_noise.synthetic import data_bytes
from mmcl_fast.engines import ENGINES, check_memory, memory_bytes, primal
from mmcl_fast.engines.cost import GPU_ROWS, GPU_SCORES

SMALL: dict[str, Any] = {"n": 30, "d": 80, "m": 12, "epochs": 40, "n_test": 20, "dtype": "float64"}


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("single", "the paper's single-modal run"),
    Case("multi", "the paper's multi-modal run", {"modality": "multi"}),
    Case("quadratic", "act' is not a step", {"q": 2, "sigma_0": 0.05}),
    Case(
        "cubic_unequal",
        "d and sigma differ between modalities",
        {"q": 3, "modality": "multi", "sigma_0": 0.1, "d_b": 60, "sigma_xi_b": 0.5},
    ),
    Case("d_below_n", "the span of the data is all of R^d", {"d": 20}),
    Case("fresh_views", "Gram rows change each epoch", {"augment": "per_epoch"}),
    Case("no_augmentation", "the view is the sample itself", {"sigma_eps": 0.0}),
    Case("no_signal", "|mu| = 0: gamma has nothing to move along", {"mu_norm": 0.0}),
    Case("subset", "N(i) differs from row to row", {"negatives_per_sample": 3}),
    Case(
        "fresh_subset",
        "N(i) differs from epoch to epoch, in both directions",
        {"negatives_per_sample": 3, "negatives_draw": "per_epoch", "modality": "multi"},
    ),
    Case("momentum", "velocity lives in the span", {"optimizer": "momentum", "eta": 0.002}),
    Case("weight_decay", "w(0) shrinks too", {"weight_decay": 0.1}),
    Case(
        "momentum_decay",
        "both at once, both modalities",
        {"optimizer": "momentum", "weight_decay": 0.1, "modality": "multi", "eta": 0.002},
    ),
    Case("sgd", "ragged last minibatch", {"optimizer": "sgd", "batch_size": 7}),
    Case(
        "sgd_subset",
        "N(i) cut down to the minibatch",
        {"optimizer": "sgd", "batch_size": 7, "modality": "multi", "negatives_per_sample": 3},
    ),
    Case("adam", "leaves the span: weights only", {"optimizer": "adam", "eta": 1e-3}),
]
CURVES = ("loss", "ood_accuracy", "signal", "noise")
# Measured 2e-15 at the most; 1e-12 leaves room for another BLAS, not for another formula.
TOLERANCE = 1e-12


@pytest.mark.parametrize("engine", ["primal", "primal, label halves", "gram"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_engine_equals_reference(case: Case, engine: str, monkeypatch) -> None:
    if engine == "primal, label halves":  # which larger runs take
        engine = "primal"
        monkeypatch.setattr(primal, "_HALVES_FROM", 1)
    cfg = TrainConfig(**(SMALL | case.settings))
    mine = cfg.replace(engine=engine)
    if ENGINES[engine].why_not(mine):
        with pytest.raises(EngineRefusedError, match=cfg.optimizer):
            train(mine)
        return
    ours, exact = train(mine), train(cfg.replace(engine="reference"))
    for name in CURVES:
        torch.testing.assert_close(
            getattr(ours, name), getattr(exact, name), rtol=0, atol=TOLERANCE, msg=name
        )
    for modality in ("a", "b") if cfg.is_multi else ("a",):
        torch.testing.assert_close(
            ours.weights(modality), exact.weights(modality), rtol=0, atol=TOLERANCE
        )
    for name in ("gamma", "rho", "gamma_b", "rho_b"):
        a, b = getattr(ours, name), getattr(exact, name)
        assert (a is None) == (b is None)
        if b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE, msg=name)
    assert exact.loss[-1] < exact.loss[0]


@pytest.mark.parametrize("augment", ["fixed", "per_epoch"])
@pytest.mark.parametrize(
    ("engine", "settings"),
    [("primal", {}), ("primal", {"optimizer": "sgd", "batch_size": 7}), ("gram", {})],
    ids=["primal", "primal_minibatches", "gram"],
)
def test_a_view_of_ones_own_is_the_first(
    engine: str, settings: dict[str, Any], augment: str
) -> None:
    cfg = TrainConfig(**(SMALL | settings | {"augment": augment, "epochs": 3}))
    data = {k: v for k, v in vars(sample(cfg)).items() if v is not None}
    data["augmented"] = -data["noise"]  # as the stream would not draw it
    ours, exact = (train(cfg.replace(engine=name), data) for name in (engine, "reference"))
    torch.testing.assert_close(ours.loss, exact.loss, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(ours.weights(), exact.weights(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_paper_size_in_float64(modality: str) -> None:
    cfg = TrainConfig(modality=modality, dtype="float64", evaluate_every=0)
    ours, exact = train(cfg.replace(engine="gram")), train(cfg.replace(engine="reference"))
    torch.testing.assert_close(ours.loss, exact.loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.noise, exact.noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_float32_is_as_close_to_float64_as_eager_is(modality: str) -> None:
    # The worst of several seeds: rounding of a single run is luck, eager's as well as ours. A
    # quarter of the paper's size: eager in float64 takes most of the time.
    engines = ("reference", "primal", "gram")
    curves = ("loss", "signal", "noise")
    worst = {(engine, name): torch.zeros(()) for engine in engines for name in curves}
    scale = dict.fromkeys(curves, torch.zeros(()))
    for seed in range(3):
        cfg = TrainConfig(n=50, d=500, modality=modality, evaluate_every=0, seed=seed)
        cfg = cfg.replace(engine="reference")
        exact = train(cfg.replace(dtype="float64"), data=widened(cfg))
        scale = {k: torch.maximum(v, getattr(exact, k).abs().max()) for k, v in scale.items()}
        for engine in engines:
            run = train(cfg.replace(engine=engine))
            for name in curves:
                error = (getattr(run, name).double() - getattr(exact, name)).abs().max()
                worst[engine, name] = torch.maximum(worst[engine, name], error)
    for engine, name in worst:
        eps = torch.finfo(torch.float32).eps * scale[name]
        assert worst[engine, name] <= 2 * (worst["reference", name] + eps), (engine, name)


def widened(cfg: TrainConfig) -> dict[str, torch.Tensor]:
    """The float32 data of a config, in float64: all three runs see the same numbers."""
    return {k: v.double() for k, v in vars(sample(cfg)).items() if v is not None}


def test_auto_takes_the_cheaper_engine() -> None:
    from mmcl_fast.engines import flop, resolve_engine

    wide = TrainConfig()  # d = 20 n
    tall = TrainConfig(n=4000, d=50, evaluate_every=0)
    assert flop(wide, "gram") < flop(wide, "primal")
    assert resolve_engine(wide) == "native"
    assert resolve_engine(wide.replace(dtype="float64")) == "gram"
    assert resolve_engine(wide.replace(n=2000)) == "native"
    assert resolve_engine(wide.replace(n=3000, d=60_000)) == "gram"
    assert flop(tall, "primal") < flop(tall, "gram")
    assert resolve_engine(tall) == "primal"
    assert resolve_engine(wide.replace(optimizer="adam")) == "primal"


def test_memory_is_predicted() -> None:
    from mmcl_fast.training.resolve import resolve

    large = TrainConfig(n=20_000, d=200_000, data="reduced", evaluate_every=0)
    need = {name: memory_bytes(large, name) for name in ENGINES}
    assert need["gram"] > 2 * 20_000 * 20_001 * 4
    assert need["primal"] < need["gram"]
    assert memory_bytes(large.replace(negatives_per_sample=5), "primal") > need["primal"] + 8e9
    every = large.replace(coefficients_every=1)
    assert memory_bytes(every, "gram") > need["gram"] + 200 * 50 * 20_000 * 4
    huge = TrainConfig(n=10**6, d=4, engine="gram", evaluate_every=0)
    with pytest.raises(DataError, match=r"memory: .* with engine gram .* or engine = primal"):
        resolve(huge)


def test_memory_of_a_gpu_is_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"mem_get_info": (7 << 30, 80 << 30), "memory_reserved": 3 << 30,
            "memory_allocated": 1 << 30}  # fmt: skip
    for name, value in free.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    cfg = TrainConfig(n=65_536, d=4096, m=2048, device="cuda", engine="primal", evaluate_every=0)
    small = cfg.replace(n=8192)
    assert memory_bytes(small, "primal") < 9 << 30 < memory_bytes(cfg, "primal")
    check_memory(small, "primal")
    with pytest.raises(DataError, match=r"memory: .* at most 9.00 GiB \(free on the GPU now\)"):
        check_memory(cfg, "primal")
    monkeypatch.setattr("mmcl_fast.engines.cost.available_bytes", lambda: 1 << 30)
    wide = small.replace(d=40_000)
    with pytest.raises(DataError, match=r"at most 1.00 GiB \(free now, where data are drawn\)"):
        check_memory(wide, "primal")
    from mmcl_fast.engines.paper_loss import label_halves_triton
    from mmcl_fast.losses.triton_backend import chunked

    assert GPU_SCORES == label_halves_triton.WORKSPACE
    assert GPU_ROWS == chunked.MIN_ROWS


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"data": "streamed"}, 2),  # of a sample, and of what is added to it
        ({"augment": "per_epoch"}, 1),  # of what is added to the sample that is held
    ],
    ids=["streamed", "fresh_views"],
)
def test_memory_of_a_gpu_counts_the_pieces_drawn_there(
    settings: dict[str, Any], pieces: int
) -> None:
    cfg = TrainConfig(n=200_000, d=4096, m=16, n_test=1, device="cuda", evaluate_every=0)
    held, drawn = (
        memory_bytes(c, "primal") - data_bytes(c) for c in (cfg, cfg.replace(**settings))
    )
    rows = piece_rows(cfg.n, cfg.d, DeviceRows.piece_elements)
    assert drawn - held >= pieces * rows * cfg.d * 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
def test_peak_memory_is_within_the_prediction() -> None:
    # In a process of its own: peak resident memory is that of the whole process.
    code = """
from pathlib import Path
from mmcl_fast import TrainConfig, train
from mmcl_fast.engines import memory_bytes
def peak():  # not ru_maxrss, which a process inherits from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
train(TrainConfig(n=20, d=20, epochs=1))
cfg = TrainConfig(n=2500, d=3000, epochs=2, evaluate_every=0, engine="ENGINE")
start = peak()
train(cfg)
print((peak() - start) / memory_bytes(cfg, "ENGINE"))
"""
    for engine in ("native", "gram", "primal"):
        command = [sys.executable, "-c", code.replace("ENGINE", engine)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert 0.3 < float(done.stdout) <= 1.1, engine
