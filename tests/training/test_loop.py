"""The training loop: given data, callbacks, divergence, checkpoints."""

import math
from pathlib import Path

import pytest
import torch

from mmcl_fast import (
    ConfigError,
    DataError,
    EngineRefusedError,
    OutputError,
    Run,
    TrainConfig,
    train,
)
from mmcl_fast.data import sample
from mmcl_fast.engines import EngineSpec, NativeEngine, memory_bytes
from mmcl_fast.training import batches

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=12, evaluate_every=4)


def equal(a: Run, b: Run) -> None:
    for name in ("loss", "ood_accuracy", "signal", "noise"):
        x, y = getattr(a, name), getattr(b, name)
        assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name
    assert torch.equal(a.weights(), b.weights())


def fields(cfg: TrainConfig) -> dict[str, torch.Tensor]:
    return {k: v for k, v in vars(sample(cfg)).items() if v is not None}


def test_given_data_are_used() -> None:
    data = fields(TINY)
    equal(train(TINY, data=sample(TINY)), train(TINY))
    arrays = {name: tensor.double().numpy() for name, tensor in data.items()}
    equal(train(TINY, data=arrays), train(TINY))
    data["noise"] = data["noise"] * 2
    assert not torch.equal(train(TINY, data=data).loss, train(TINY).loss)


BAD_DATA = [
    ({"noise": torch.zeros(20, 49)}, "data.noise: expected shape [20, 50], got [20, 49]"),
    ({"labels": torch.ones(20)}, "labels: expected both +1 and -1, got 20 labels that are all +1"),
    ({"labels": torch.zeros(20)}, "data.labels: expected +1 and -1, got 0 and 1; take 2 * labels"),
    ({"mu": torch.full((50,), torch.nan)}, "data.mu: expected finite values, got NaN or infinity"),
    ({"extra": 1}, "data: expected fields among"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DATA, ids=lambda x: str(x)[:30])
def test_bad_data_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        train(TINY, data=fields(TINY) | change)
    assert str(caught.value).startswith(message)


def test_a_draw_with_one_label_is_refused() -> None:
    seed = next(s for s in range(50) if len(set(raw_labels(s))) == 1)
    with pytest.raises(DataError, match=f"seed {seed} draws 2 labels that are all"):
        train(TINY.replace(n=2, seed=seed))


def raw_labels(seed: int) -> list[float]:
    from mmcl_fast.data import labels

    return labels(seed, "labels", (1, 2))[0].tolist()


def test_callback_sees_every_epoch() -> None:
    seen = []
    run = train(TINY, on_epoch=lambda info: seen.append((info.epoch, info.loss.item())))
    assert [epoch for epoch, _ in seen] == list(range(13))
    assert [loss for _, loss in seen] == run.loss.tolist()
    assert list(run.epochs) == list(range(13))


def test_zero_epochs_measure_the_start() -> None:
    run = train(TINY.replace(epochs=0, evaluate_every=1))
    assert len(run.loss) == 1
    assert run.loss[0] == train(TINY).loss[0]
    assert torch.equal(run.weights(), sample(TINY).weights)
    assert 0 <= run.ood_accuracy[0] <= 1


@pytest.mark.parametrize("engine", ["native", "gram", "primal", "reference"])
def test_a_diverging_run_stops_and_keeps_its_curves(engine: str) -> None:
    cfg = TINY.replace(q=3, eta=1e3, sigma_0=1.0, epochs=400, engine=engine)
    epochs = []
    run = train(cfg, on_epoch=lambda info: epochs.append(info.epoch))
    assert run.status == "diverged"
    at = run.diverged_at
    assert at is not None
    assert run.loss[:at].isfinite().all()
    assert run.loss[at:].isnan().all()
    assert len(run.loss) == 401
    assert epochs[-1] < 400, "the run stopped"
    assert f"epoch {at}" in run.cause
    assert "eta = 1000" in run.cause
    assert math.isnan(run.final()["loss"])


def test_a_run_that_cannot_begin_says_so() -> None:
    run = train(TINY.replace(sigma_0=1e30))
    assert run.diverged_at == 0
    assert run.cause is not None
    assert "before the first step" in run.cause


def test_one_diverging_run_leaves_its_neighbours_alone() -> None:
    from mmcl_fast import train_many

    # The same settings from different seeds: some blow up, some do not.
    cfg = TINY.replace(q=3, eta=0.3, sigma_0=0.2, epochs=60, evaluate_every=0, engine="gram")
    runs = train_many([cfg.replace(seed=s) for s in range(12)])
    assert {run.status for run in runs} == {"finished", "diverged"}
    for run in runs:
        alone = train(run.config)
        assert alone.status == run.status
        assert alone.diverged_at == run.diverged_at
        assert torch.equal(alone.loss.nan_to_num(nan=-1), run.loss.nan_to_num(nan=-1))


def test_an_engine_is_never_replaced_silently() -> None:
    with pytest.raises(EngineRefusedError, match=r"gram: optimizer adam .* use primal"):
        train(TINY.replace(engine="gram", optimizer="adam"))
    assert train(TINY.replace(optimizer="adam")).config.engine == "primal"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="device: expected cpu"):
        train(TINY.replace(device="cuda"))


def test_encoder_embeds_as_the_engine_does() -> None:
    cfg = TINY.replace(dtype="float64", modality="multi", q=2)
    run = train(cfg)
    data = sample(cfg)
    embedded = run.encoder("a")(data.labels[:, None] * data.mu, data.noise)
    w = run.weights("a")
    expected = (
        torch.relu(torch.outer(data.labels, w @ data.mu)) ** 2 + torch.relu(data.noise @ w.T) ** 2
    )
    torch.testing.assert_close(embedded, expected)
    assert run.encoder("b").weight.shape == (cfg.m, cfg.d)
    with pytest.raises(ConfigError, match="modality: expected a"):
        train(TINY).weights("b")


class Killed(RuntimeError):
    pass


CHECKPOINTED = [
    TINY.replace(engine="native", coefficients_every=3),
    TINY.replace(engine="native", modality="multi", evaluate_every=0),
    TINY.replace(engine="gram", coefficients_every=3),
    TINY.replace(engine="gram", optimizer="momentum", weight_decay=0.1, modality="multi"),
    TINY.replace(
        engine="gram", augment="per_epoch", negatives_per_sample=2, negatives_draw="per_epoch"
    ),
    TINY.replace(engine="primal", optimizer="adam", eta=1e-3),
    TINY.replace(engine="primal", optimizer="sgd", batch_size=7),
    TINY.replace(engine="reference", optimizer="momentum"),
    TINY.replace(engine="reference", optimizer="adam"),
]


@pytest.mark.parametrize("cfg", CHECKPOINTED, ids=lambda c: f"{c.engine}-{c.optimizer}-{c.augment}")
def test_a_killed_run_continues_bit_for_bit(cfg: TrainConfig, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"

    def die(info) -> None:
        if info.epoch == 8:
            raise Killed

    with pytest.raises(Killed):
        train(cfg, on_epoch=die, checkpoint=file, checkpoint_every=5)
    assert file.exists()
    resumed_at = []
    run = train(
        cfg, on_epoch=lambda i: resumed_at.append(i.epoch), checkpoint=file, checkpoint_every=5
    )
    assert resumed_at[0] == 5
    whole = train(cfg)
    equal(run, whole)
    assert run.coefficient_epochs == whole.coefficient_epochs
    if whole.rho_curve is not None:
        assert torch.equal(run.rho_curve, whole.rho_curve)
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


@pytest.mark.parametrize("cfg", CHECKPOINTED, ids=lambda c: f"{c.engine}-{c.optimizer}-{c.augment}")
def test_a_finished_run_goes_on_for_more_epochs(cfg: TrainConfig, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    metrics = {"epoch_now": lambda state: state.epoch}
    train(cfg, checkpoint=file, checkpoint_every=6, metrics=metrics)
    resumed_at = []
    longer = cfg.replace(epochs=17)
    run = train(
        longer, on_epoch=lambda i: resumed_at.append(i.epoch), checkpoint=file, metrics=metrics
    )
    assert resumed_at[0] == 12
    whole = train(longer)
    equal(run, whole)
    assert run.metrics["epoch_now"].tolist() == list(range(18))
    assert run.coefficient_epochs == whole.coefficient_epochs
    with pytest.raises(ConfigError, match="a run of at most epochs = 9, got one at epoch 12"):
        train(cfg.replace(epochs=9), checkpoint=file, metrics=metrics)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    train(TINY, checkpoint=file, checkpoint_every=5)
    with pytest.raises(ConfigError, match=r"expected eta = 0.02, got a run with 0.01"):
        train(TINY.replace(eta=0.02), checkpoint=file)
    other = fields(TINY)
    other["noise"] = other["noise"] + 1
    with pytest.raises(ConfigError, match="same data"):
        train(TINY, data=other, checkpoint=file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(OutputError, match=r"run\.safetensors: expected an undamaged file"):
        train(TINY, checkpoint=file)
    with pytest.raises(OutputError, match="expected an existing directory"):
        train(TINY, checkpoint=tmp_path / "nowhere" / "run.safetensors")
    with pytest.raises(ConfigError, match="checkpoint_every: expected an integer >= 1, got 0"):
        train(TINY, checkpoint=file, checkpoint_every=0)


def test_a_batch_on_a_gpu_fits_into_what_is_free(monkeypatch) -> None:
    small = TrainConfig(device="cuda", engine="triton", tau=1.0)
    large = small.replace(d=20_000)
    needed = memory_bytes(large, "triton")
    # Two batches are under way at a time, and beside each what it is made from.
    for free, most in ((100 << 30, batches.ENGINES["triton"].max_runs(large)), (17 * needed, 4)):
        monkeypatch.setattr(batches, "free_gpu_bytes", lambda free=free: free)
        assert batches._width([small, large]) == most
    monkeypatch.setattr(batches, "free_gpu_bytes", lambda: 0)
    assert batches._width([small]) == 1
    alone = large.replace(engine="gram")
    monkeypatch.setattr(batches, "free_gpu_bytes", lambda: 9 * memory_bytes(alone, "gram"))
    assert batches._width([alone]) == 4
    cpu = small.replace(device="cpu", engine="native")
    assert batches._width([cpu]) == batches.ENGINES["native"].max_runs(cpu)


def test_state_of_other_padding_is_refused_whole() -> None:
    cfg = TrainConfig(n=12, d=30, m=4, n_test=3, epochs=3, engine="native", device="cpu")
    engine = NativeEngine(EngineSpec([cfg], [sample(cfg)], torch.device("cpu")))
    before = {name: x.clone() for name, x in engine.state().items()}
    *names, last = before
    other = {name: before[name] + 1 for name in names} | {last: torch.zeros(7, 7)}
    with pytest.raises(
        OutputError, match=f"checkpoint: expected {last} of shape .* got \\[7, 7\\]"
    ):
        engine.load_state(other)
    assert all(torch.equal(x, before[name]) for name, x in engine.state().items())
