"""The primal engine on kernels, in the interpreter and on a GPU, against the float64 engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.gpu import DeviceRows
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import EngineSpec, PrimalEngine
from mmcl_fast.engines.encoder_triton import TritonModality
from mmcl_fast.engines.paper_loss import label_halves_triton
from mmcl_fast.losses.triton_backend import chunked

BASE = TrainConfig(
    n=230, d=40, m=24, n_test=6, epochs=3, eta=0.3, sigma_0=0.05, evaluate_every=0, engine="primal",
    device="cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    positives: int | None = None


CASES = [
    Case("single", "one block serves both labels"),
    Case("multi", "two blocks, each for both directions", {"modality": "multi"}),
    Case("quadratic", "act' is not a step", {"q": 2, "eta": 0.05}),
    Case("cubic_multi", "a power of act'", {"q": 3, "eta": 0.02, "modality": "multi"}),
    Case("lonely", "one sample of a label", positives=1),
    Case("lonely_multi", "all but one of a label", {"modality": "multi"}, positives=229),
    Case("one_label", "no negatives at all", positives=230),
    Case("cold", "scores that overflow a naive exp",
         {"modality": "multi", "tau": 1e-5, "eta": 1e-7}),
    Case("momentum", "another rule for weights and coefficients", {"optimizer": "momentum"}),
    Case("minibatches", "samples by index, label by label",
         {"optimizer": "sgd", "batch_size": 210, "n": 420, "epochs": 1}),
    Case("small", "one masked block instead of halves", {"n": 40}),
    Case("small_multi", "the same, both directions", {"n": 40, "modality": "multi", "q": 2,
                                                      "eta": 0.05}),
    Case("drawn", "negatives that are no whole blocks", {"negatives_per_sample": 9, "n": 60}),
    Case("small_minibatches", "a masked block of samples by index",
         {"optimizer": "sgd", "batch_size": 30, "n": 60, "epochs": 1}),
    Case("fresh_views", "views of another epoch", {"augment": "per_epoch", "epochs": 2}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several chunks of rows, the last one ragged, so that columns rescale what they have.
    monkeypatch.setattr(label_halves_triton, "MIN_ROWS", 48)
    monkeypatch.setattr(label_halves_triton, "WORKSPACE", 1)


def data_of(cfg: TrainConfig, positives: int | None) -> SignalNoiseData:
    data = sample(cfg)
    if positives is None:
        return data
    order = torch.randperm(cfg.n, generator=torch.Generator().manual_seed(0))
    labels = torch.full((cfg.n,), -1.0).index_fill_(0, order[:positives], 1.0)
    return SignalNoiseData(**vars(data) | {"labels": labels.to(data.labels.dtype)})


def widened(data: SignalNoiseData) -> SignalNoiseData:
    fields = {k: None if x is None else x.double() for k, x in vars(data).items()}
    return SignalNoiseData(**fields)


def trained(cfg: TrainConfig, data: SignalNoiseData, device: torch.device) -> dict[str, Any]:
    engine = PrimalEngine(EngineSpec([cfg], [data], device))
    losses = [engine.train_epoch(epoch) for epoch in range(cfg.epochs)]
    signal, noise = engine.signal_and_noise()
    found = {"losses": torch.cat(losses), "last": engine.loss(cfg.epochs), "signal": signal,
             "noise": noise, "weights": torch.cat([w.flatten() for w in engine.weights()]),
             "embeddings": engine.embeddings()[0]}  # fmt: skip
    coefficients = engine.coefficients()
    assert coefficients is not None
    found["rho"] = torch.cat([c.noise.flatten() for c in coefficients])
    found["gamma"] = torch.cat([c.mu.flatten() for c in coefficients])
    assert isinstance(engine._modalities[0], TritonModality) == (cfg.dtype == "float32")
    return {name: x.double().cpu() for name, x in found.items()}


def far(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp(min=1e-30))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_against_float64(case: Case, device: torch.device) -> None:
    cfg = BASE.replace(**case.settings)
    data = data_of(cfg, case.positives)
    exact = trained(cfg.replace(dtype="float64"), widened(data), torch.device("cpu"))
    found = trained(cfg, data, device)
    assert exact["losses"][0] > 0 or case.positives == cfg.n
    for name, x in exact.items():
        assert found[name].isfinite().all(), name
        # 100 roundings: eleven products of up to 230 terms an epoch, three epochs. What a mutant
        # breaks is off by far more than that.
        assert far(found[name], x) < 100 * 2**-24 * (30 if cfg.q > 1 else 4), name


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("q", [1, 2])
def test_bfloat16(q: int, modality: str, device: torch.device) -> None:
    cfg = BASE.replace(modality=modality, q=q, eta=0.3 if q == 1 else 0.05, epochs=2)
    data = sample(cfg)
    check_bfloat16(cfg, data, device)


def test_bfloat16_in_one_masked_block(device: torch.device) -> None:
    cfg = BASE.replace(n=40, epochs=2)
    check_bfloat16(cfg, sample(cfg), device)


def check_bfloat16(cfg: TrainConfig, data: SignalNoiseData, device: torch.device) -> None:
    exact = trained(cfg.replace(dtype="float64"), widened(data), torch.device("cpu"))
    found = trained(cfg.replace(precision="bf16"), data, device)
    again = trained(cfg.replace(precision="bf16"), data, device)
    assert all(torch.equal(found[name], again[name]) for name in found)
    # A product of factors rounded to 2^-9 each; powers and updates enlarge it a little.
    for name in ("losses", "weights", "embeddings"):
        assert 2**-24 < far(found[name], exact[name]) < 2**-6, name


PIECES = [
    Case("fixed", "one view, in pieces too"),
    Case("fresh_views", "held samples in the pieces of what is added", {"augment": "per_epoch"}),
    Case("fresh_minibatches", "the same of samples by index",
         {"augment": "per_epoch", "optimizer": "sgd", "batch_size": 290, "epochs": 2}),
]  # fmt: skip


@pytest.mark.parametrize("case", PIECES, ids=lambda case: case.id)
def test_streamed_as_held(
    case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceRows, "piece_elements", 1)  # 256 rows, and the rest
    cfg = BASE.replace(**{"n": 300, "d": 24, "epochs": 1} | case.settings)
    held = trained(cfg, sample(cfg), device)
    streamed = cfg.replace(data="streamed")
    found = trained(streamed, sample(streamed), device)
    assert torch.equal(found["losses"][0], held["losses"][0])  # the same bits were drawn
    for name, x in held.items():  # a gradient is summed piece by piece
        assert far(found[name], x) < 1e-5, name


@pytest.mark.parametrize("augment", ["fixed", "per_epoch"])
@pytest.mark.parametrize("precision", ["ieee", "bf16"])
def test_in_one_piece_streamed_is_held_bit_for_bit(
    precision: str, augment: str, device: torch.device
) -> None:
    cfg = BASE.replace(precision=precision, augment=augment, epochs=2)
    streamed = cfg.replace(data="streamed")
    held, found = (trained(c, sample(c), device) for c in (cfg, streamed))
    for name, x in held.items():
        assert torch.equal(found[name], x), name


def test_a_saved_state_goes_on(device: torch.device) -> None:
    data = sample(BASE)
    first = PrimalEngine(EngineSpec([BASE], [data], device))
    first.train_epoch(0)
    state = {name: x.clone() for name, x in first.state().items()}
    whole = first.train_epoch(1)
    other = PrimalEngine(EngineSpec([BASE], [data], device))
    other.load_state(state)
    assert torch.equal(other.train_epoch(1), whole)
    for one, same in zip(first.state().values(), other.state().values(), strict=True):
        assert torch.equal(one, same)


def test_where_kernels_cannot_run_torch_computes(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sample(BASE)
    exact = trained(BASE, data, device)["losses"]
    lacking = "mmcl_fast.engines.primal.kernels_lack"
    monkeypatch.setattr(lacking, lambda *, on_cuda: "expected a newer GPU")
    engine = PrimalEngine(EngineSpec([BASE], [data], device))
    assert not isinstance(engine._modalities[0], TritonModality)
    losses = torch.cat([engine.train_epoch(epoch) for epoch in range(BASE.epochs)])
    assert far(losses.double().cpu(), exact) < 1e-5


def test_padding_is_no_more_than_a_vector() -> None:
    key = torch.randn(37, 5)
    wide = chunked.padded(key)
    assert wide.shape == (48, 5)
    assert torch.equal(wide[:37], key)
    assert not wide[37:].any()
