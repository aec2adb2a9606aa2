"""Which runs the triton engine takes, and what it says of the others; runs: tests/kernels."""

from typing import Any

import pytest
import torch

from mmcl_fast import EngineRefusedError, TrainConfig
from mmcl_fast.data.signal_noise import sampling
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.engines import ENGINES, EngineSpec, TritonEngine, memory_bytes, resolve_engine

CFG = TrainConfig(device="cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has one: nothing is launched."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.mark.usefixtures("gpu")
def test_auto_takes_it_for_small_runs_on_a_gpu() -> None:
    assert resolve_engine(CFG) == "triton"
    assert resolve_engine(CFG.replace(modality="multi", n=256, m=128)) == "triton"
    assert resolve_engine(CFG.replace(n=257)) == "gram"
    assert resolve_engine(CFG.replace(optimizer="momentum")) == "gram"
    assert resolve_engine(CFG.replace(device="cpu")) == "native"
    assert resolve_engine(CFG.replace(precision="tf32x3")) == "triton"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 257}, "n: a run in one program takes up to 256, got 257; use gram"),
    ({"m": 129}, "m: a run in one program takes up to 128, got 129; use gram"),
    ({"dtype": "float64"}, "float32; use gram"),
    ({"optimizer": "momentum"}, "momentum .* use gram"),
    ({"optimizer": "adam"}, "adam .* use primal"),
    ({"weight_decay": 0.1}, "weight_decay .* use gram"),
    ({"negatives_per_sample": 3}, "negatives_per_sample.* use gram"),
    ({"augment": "per_epoch"}, "augment .* use gram"),
    ({"device": "cpu"}, "expected a CUDA device .* got device cpu; use native or gram"),
]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=lambda x: str(x)[:25])
def test_what_it_cannot_do_is_refused_with_the_reason(
    settings: dict[str, Any], reason: str
) -> None:
    cfg = CFG.replace(**settings)
    with pytest.raises(EngineRefusedError, match=f"engine triton: .*{reason}"):
        resolve_engine(cfg.replace(engine="triton"))
    assert resolve_engine(cfg) != "triton"


@pytest.mark.usefixtures("gpu")
def test_old_or_foreign_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "compute capability 8.0" in str(ENGINES["triton"].why_not(CFG))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "NVIDIA" in str(ENGINES["triton"].why_not(CFG))


def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ENGINES["triton"].why_not(CFG.replace(device="cpu")) is None
    monkeypatch.setattr("mmcl_fast.environment.find_spec", lambda name: None)
    assert "expected Triton to be installed" in str(ENGINES["triton"].why_not(CFG))


@pytest.mark.parametrize("engine", ["native", "gram", "primal", "reference"])
def test_reduced_precision_is_its_own(engine: str) -> None:
    cfg = TrainConfig(device="cpu", precision="tf32", engine=engine)
    with pytest.raises(EngineRefusedError, match=r"tf32: it has ieee(, bf16)?; use triton"):
        resolve_engine(cfg)
    with pytest.raises(EngineRefusedError, match=r"engine auto: .* native: precision tf32"):
        resolve_engine(cfg.replace(engine="auto"))


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_memory_counts_the_padded_state(modality: str) -> None:
    cfg = TrainConfig(modality=modality)
    assert memory_bytes(cfg, "triton") > memory_bytes(cfg, "native")
    assert ENGINES["triton"].max_runs(cfg) > 500
    assert ENGINES["triton"].max_runs(cfg.replace(d=10**7)) < 10


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("data", ["explicit", "reduced"])
def test_what_is_computed_stays_on_the_device(
    data: str, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without memory refuse to meet others, so they can stand for those of a GPU."""
    trajectory = pytest.importorskip("mmcl_fast.kernels.trajectory")
    from mmcl_fast.kernels import inner_products

    device, launches = torch.device("meta"), []

    def products(a, b, *, out, rows=None, columns=None, start=None):
        inner_products._check(a, b, out, rows, columns, start)
        launches.append(out)
        return out

    monkeypatch.setattr(inner_products, "row_products_fwd", products)
    monkeypatch.setattr(trajectory, "arch_of", lambda *_: "sm_90")

    def normals(stream, keys, shape, scales, dtype):
        return torch.empty(len(keys), *shape, dtype=dtype, device=device)

    sizes = {"n": 10, "d": 30, "m": 4, "n_test": 6, "d_b": 20, "probe_samples": 5}
    cfg = TrainConfig(**sizes, modality=modality, data=data, probe_on="ood")
    configs = [cfg.replace(seed=seed) for seed in range(3)]
    drawn = SignalNoiseBatch([sampling._Draw(configs, normals).block()])
    for name, value in vars(drawn[0]).items():
        assert value is None or value.device.type == ("cpu" if "labels" in name else "meta"), name
    engine = TritonEngine(EngineSpec(configs, drawn, device))
    found = [*engine.embeddings(), *engine.state().values(), *sum(engine.span_coefficients(), ())]
    assert {x.device for x in found} == {device}
    # Of each modality |mu|^2, <w, mu> and three of each kind of vector; evaluation: six, and one,
    # of the test set and of the probe's samples.
    assert len(launches) == (2 * 5 if cfg.is_multi else 2 + 2 * 3) + 2 * 7
