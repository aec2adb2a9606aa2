"""What a run leaves behind: curves after divergence, stored coefficients, weights, its config."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmcl_fast import DataError, Run, TrainConfig, train, train_many
from mmcl_fast.data import sample
from mmcl_fast.engines import Measured
from mmcl_fast.training import linear_probe, recorder
from mmcl_fast.training.recorder import Recorder

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=12, evaluate_every=4)
CURVES = ("loss", "ood_accuracy", "signal", "noise")


def test_every_curve_ends_where_the_loss_does() -> None:
    # Two runs side by side; what is recorded after the first one's divergence is finite.
    configs = [TINY.replace(device="cpu"), TINY.replace(device="cpu", seed=1)]
    recorder = Recorder(configs, [sample(cfg) for cfg in configs])
    for epoch in range(13):
        loss = torch.tensor([torch.inf if epoch == 7 else 2.0, 1.0])
        signal, noise = torch.tensor([[3.0], [4.0]]), torch.tensor([[5.0], [6.0]])
        recorder.record(epoch, Measured(loss[:, None], signal, noise))
    recorder.curves["ood_accuracy"][:, ::4] = 0.5
    bad, good = recorder.runs([None, None])
    assert (bad.status, bad.diverged_at) == ("diverged", 7)
    assert (good.status, good.diverged_at) == ("finished", None)
    for name in CURVES:
        assert bad.curves()[name][7:].isnan().all(), name
        step = 4 if name == "ood_accuracy" else 1
        assert bad.curves()[name][:7:step].isfinite().all(), name
        assert good.curves()[name][::step].isfinite().all(), name


@pytest.mark.parametrize("engine", ["native", "gram", "primal", "reference"])
def test_every_curve_of_a_diverging_run_ends_at_once(engine: str) -> None:
    told: dict[int, tuple[float, float]] = {}
    cfg = TINY.replace(q=3, eta=1e3, sigma_0=1.0, epochs=40, evaluate_every=1, engine=engine)
    run = train(cfg, on_epoch=lambda i: told.update({i.epoch: (i.signal.item(), i.noise.item())}))
    at = run.diverged_at
    assert at is not None
    assert any(value == value for value in told[at]), "premise: there was something to hide"
    for name, curve in run.curves().items():
        assert curve[at:].isnan().all(), name
        assert not curve[:at].isnan().any(), name


def test_labels_are_checked_at_the_first_look_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    check = linear_probe._check
    monkeypatch.setattr(
        linear_probe, "_check", lambda f, labels: seen.append(labels) or check(f, labels)
    )
    monkeypatch.setattr(recorder, "PENDING_PROBES", 1)
    cfg = TINY.replace(device="cpu", engine="native")
    train(cfg)
    assert [len(labels[0]) for labels in seen] == [cfg.n, cfg.n_test], "premise: four looks"
    data = {k: v for k, v in vars(sample(cfg)).items() if v is not None}
    data["test_labels"] = torch.zeros(cfg.n_test)
    with pytest.raises(DataError, match=r"data\.test_labels: expected \+1 and -1, got 0 and 1"):
        train(cfg, data=data)


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("engine", ["native", "gram", "reference"])
def test_stored_coefficients_of_both_modalities_survive_a_resume(
    engine: str, tmp_path: Path
) -> None:
    cfg = TINY.replace(modality="multi", d_b=30, coefficients_every=2, engine=engine)
    whole_file, file = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    whole = train(cfg, checkpoint=whole_file, checkpoint_every=10)

    def die(info) -> None:
        if info.epoch == 7:
            raise Killed

    with pytest.raises(Killed):
        train(cfg, on_epoch=die, checkpoint=file, checkpoint_every=5)
    run = train(cfg, checkpoint=file, checkpoint_every=10)
    assert run.coefficient_epochs == whole.coefficient_epochs == [0, 2, 4, 6, 8, 10, 12]
    assert run.gamma_curve.shape == (7, 6)
    assert run.rho_curve.shape == (7, 6, 20)
    for name in ("gamma_curve", "rho_curve", "gamma", "rho", "gamma_b", "rho_b"):
        assert torch.equal(getattr(run, name), getattr(whole, name)), name
    # Modality B's are in no curve; the next checkpoint has them all the same.
    ours, theirs = load_file(file), load_file(whole_file)
    assert ours.keys() == theirs.keys()
    for epoch in (0, 2, 4, 6, 8):
        for part in ("initial", "mu", "noise"):
            a, b = (theirs[f"recorder.stored.{epoch}.{k}.{part}"] for k in (0, 1))
            assert part == "initial" or epoch == 0 or not torch.equal(a, b)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].nan_to_num(nan=-1), tensor.nan_to_num(nan=-1)), name


def test_stored_coefficients_are_those_of_a_shorter_run() -> None:
    cfg = TINY.replace(modality="multi")
    whole = train(cfg.replace(coefficients_every=5))
    assert whole.coefficient_epochs == [0, 5, 10, 12]
    for k, epoch in enumerate(whole.coefficient_epochs):
        shorter = train(cfg.replace(epochs=epoch))
        assert torch.equal(whole.gamma_curve[k], shorter.gamma)
        assert torch.equal(whole.rho_curve[k], shorter.rho)


def test_coefficients_are_the_decomposition_of_the_weights() -> None:
    # Equation (11): w = w(0) + gamma mu / |mu|^2 + sum_i rho_i xi_i / |xi_i|^2.
    cfg = TINY.replace(modality="multi", d_b=30, dtype="float64", engine="reference")
    run, data = train(cfg), sample(cfg)
    sides = {
        "a": (run.gamma, run.rho, data.weights, data.mu, data.noise),
        "b": (run.gamma_b, run.rho_b, data.weights_b, data.mu_b, data.noise_b),
    }
    for modality, (gamma, rho, initial, mu, noise) in sides.items():
        moved = torch.outer(gamma, mu / mu.square().sum())
        moved += rho @ (noise / noise.square().sum(1, keepdim=True))
        torch.testing.assert_close(run.weights(modality), initial + moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["gram", "primal"])
def test_weights_for_given_data_are_those_of_the_reference(engine: str) -> None:
    cfg = TINY.replace(modality="multi", d_b=30, weight_decay=0.1, dtype="float64")
    drawn = {k: v for k, v in vars(sample(cfg)).items() if v is not None}
    generator = torch.Generator().manual_seed(0)
    given = drawn | {
        name: torch.randn(drawn[name].shape, generator=generator, dtype=torch.float64) * scale
        for name, scale in (
            ("mu", 0.5),
            ("mu_b", 2.0),
            ("noise", 0.7),
            ("noise_b", 1.3),
            ("weights", 0.02),
            ("weights_b", 0.03),
        )
    }
    ours = train(cfg.replace(engine=engine), data=given)
    exact = train(cfg.replace(engine="reference"), data=given)
    for modality in ("a", "b"):
        found, wanted = ours.weights(modality), exact.weights(modality)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        start = given["weights" if modality == "a" else "weights_b"]
        assert (wanted - start).abs().max() > 0.01, "premise: training moved the weights"


@pytest.mark.parametrize("tau", [None, 0.3])
@pytest.mark.parametrize("many", [False, True])
def test_a_run_says_what_was_used(tau: float | None, many: bool) -> None:
    cfg = TINY.replace(tau=tau, seed=4)
    run: Run = train_many([cfg, cfg.replace(seed=5)])[0] if many else train(cfg)
    assert run.config.tau == (1 / 6 if tau is None else 0.3)
    assert run.config.engine in ("native", "gram", "primal")
    assert run.config.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert run.config == cfg.replace(
        tau=run.config.tau, engine=run.config.engine, device=run.config.device
    )
    again = train(run.config)
    assert torch.equal(again.loss, run.loss), "a resolved config is the same run"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_callers_threads_are_given_back() -> None:
    inside: list[int] = []
    small = TINY.replace(engine="gram")
    train(small, on_epoch=lambda _: inside.append(torch.get_num_threads()))
    assert set(inside) == {1}, "premise: a small run takes one thread"
    assert torch.get_num_threads() == 2
    train_many([small, small.replace(m=5)])
    assert torch.get_num_threads() == 2

    def die(info) -> None:
        assert torch.get_num_threads() == 1
        raise Killed

    with pytest.raises(Killed):
        train(small, on_epoch=die)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_the_first_loss_is_as_exact_as_eager_float32(modality: str) -> None:
    # Twenty seeds: one alone may be right by luck. Root mean square; measured 0.9 of eager's.
    errors: dict[str, list[float]] = {k: [] for k in ("reference", "native", "gram", "primal")}
    for seed in range(20):
        cfg = TrainConfig(modality=modality, d=500, epochs=0, evaluate_every=0, seed=seed)
        same = {k: v.double() for k, v in vars(sample(cfg)).items() if v is not None}
        exact = train(cfg.replace(dtype="float64", engine="reference"), data=same).loss.item()
        for engine, found in errors.items():
            found.append(train(cfg.replace(engine=engine)).loss.item() - exact)
    rms = {
        k: torch.tensor(v, dtype=torch.float64).square().mean().sqrt() for k, v in errors.items()
    }
    for engine in ("native", "gram", "primal"):
        assert rms[engine] <= 2 * rms["reference"], engine
