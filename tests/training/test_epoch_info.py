"""Callbacks and metrics: what they see of an epoch, and how they end runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from mmcl_fast import ConfigError, EpochInfo, Run, RunState, TrainConfig, train, train_many
from mmcl_fast.data import sample
from tests.support.names import without_addresses

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=9, evaluate_every=4, device="cpu")
KINDS = [
    TINY.replace(engine="native"),
    TINY.replace(engine="native", modality="multi", data="reduced", d=500),
    TINY.replace(engine="gram", optimizer="momentum", weight_decay=0.1),
    TINY.replace(engine="gram", augment="per_epoch", negatives_per_sample=3),
    TINY.replace(engine="primal", optimizer="sgd", batch_size=7),
    TINY.replace(engine="primal", optimizer="adam", eta=1e-3, modality="multi"),
    TINY.replace(engine="reference", optimizer="momentum", coefficients_every=3),
    TINY.replace(engine="native", coefficients_every=2, evaluate_every=3, n=21, m=5),
    TINY.replace(engine="native", eta_tau=0.1, spurious_norm=2.0, stop_gradient="none"),
    TINY.replace(
        engine="gram", optimizer="sgd", batch_size=7, eta_tau=0.1, similarity="cosine", eta=1e-3
    ),
]
STATE = ["gamma", "rho", "gamma_b", "rho_b", "gamma_curve", "rho_curve", "rho_b_curve"]


def equal(a: Run, b: Run) -> None:
    for name in ("loss", "ood_accuracy", "signal", "noise", "tau", *STATE):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1)), name
    assert a.coefficient_epochs == b.coefficient_epochs
    assert a.diverged_at == b.diverged_at
    if a.config.data != "reduced":
        for modality in "ab"[: 1 + a.config.is_multi]:
            assert torch.equal(a.weights(modality), b.weights(modality))


def last_temperature(run: Run) -> float:
    if run.tau is None:
        return torch.tensor(run.config.tau_value, dtype=run.loss.dtype).item()
    return run.tau[-1].item()


def name(cfg: TrainConfig) -> str:
    return f"{cfg.engine}-{cfg.optimizer}-{cfg.modality}-{cfg.augment}-{cfg.n}"


@pytest.mark.parametrize("cfg", KINDS, ids=name)
def test_a_callback_sees_the_weights_of_its_epoch(cfg: TrainConfig) -> None:
    """Whatever it asks for, in whichever order, and training goes on bit for bit."""
    shorter = {t: train(cfg.replace(epochs=t)) for t in (0, 3, 9)}
    seen: list[int] = []

    def watch(info: EpochInfo) -> None:
        if (run := shorter.get(info.epoch)) is None:
            return
        requests = [
            lambda: torch.equal(info.loss[0], run.loss[-1]),
            lambda: torch.equal(info.signal[0], run.signal[-1]),
            lambda: info.runs[0].temperature == last_temperature(run),
            lambda: info.accuracy().item() == pytest.approx(run.ood_accuracy[-1].item(), abs=1e-7),
        ]
        if cfg.data != "reduced":
            requests.append(lambda: torch.equal(info.weights()[0], run.weights()))
            requests.append(lambda: torch.equal(info.runs[0].weights(), run.weights()))
        if cfg.optimizer != "adam":
            requests.append(lambda: torch.equal(info.gamma()[0], run.gamma))
            requests.append(lambda: torch.equal(info.runs[0].rho(), run.rho))
        order = requests if info.epoch == 3 else requests[::-1]
        assert all(request() for request in order)
        seen.append(info.epoch)

    equal(train(cfg, on_epoch=watch), train(cfg))
    assert seen == [0, 3, 9]


@pytest.mark.parametrize("reads_the_loss", [False, True])
@pytest.mark.parametrize("cfg", KINDS, ids=name)
def test_a_stopped_run_is_a_shorter_one(cfg: TrainConfig, reads_the_loss: bool) -> None:
    def stop(info: EpochInfo) -> str | None:
        if reads_the_loss:
            assert info.loss.isfinite().all()
        return "stop" if info.epoch == 5 else None

    run = train(cfg, on_epoch=stop)
    assert (run.status, run.stopped_at) == ("stopped", 5)
    assert run.config.epochs == 9
    equal(run, train(cfg.replace(epochs=5)))


def test_runs_of_a_batch_end_one_by_one() -> None:
    cfg = TINY.replace(engine="native", coefficients_every=4, evaluate_every=2)
    configs = [cfg.replace(seed=s, d=40 + s) for s in range(4)]
    ends = torch.tensor([3, 0, 5, 99])
    # A metric sees each run alone, so it does not know of the batch.
    metrics = {"size": lambda state: state.weights().norm()}
    runs = train_many(configs, lambda info: info.epoch == ends, metrics=metrics)
    for one, run, end in zip(configs, runs, ends.tolist(), strict=True):
        stopped = end < 99
        assert run.status == ("stopped" if stopped else "finished")
        alone = train(one.replace(epochs=min(end, 9)), metrics=metrics)
        equal(run, alone)
        assert torch.equal(run.metrics["size"], alone.metrics["size"])
    epochs = []
    train_many(configs, lambda info: epochs.append(info.epoch) or "stop")
    assert epochs == [0]


def test_a_diverged_run_of_a_stopped_batch_says_so() -> None:
    cfg = TINY.replace(engine="native", q=3, sigma_0=0.2, epochs=60, evaluate_every=0)
    configs = [cfg.replace(eta=eta) for eta in (1e-3, 30.0)]
    runs = train_many(configs, lambda info: "stop" if info.epoch == 12 else None)
    assert [run.status for run in runs] == ["stopped", "diverged"]
    equal(runs[0], train(configs[0].replace(epochs=12)))


def test_features_are_the_losses() -> None:
    """The loss of the features is the measured one: they are what the engine trains on."""
    from mmcl_fast import info_nce

    for modality, augment in (("single", "fixed"), ("single", "per_epoch"), ("multi", "fixed")):
        cfg = TINY.replace(modality=modality, augment=augment, dtype="float64", q=2, sigma_0=0.1)
        losses = []

        def loss(state: RunState) -> torch.Tensor:
            cfg, labels = state.config, state.data.labels
            options = {"labels": labels, "negatives": "other_label"}
            temperature = cfg.m * cfg.tau_value
            if cfg.is_multi:
                a, b = state.features("a"), state.features("b")
                value = 2 * info_nce(a, b, symmetric=True, temperature=temperature, **options)
            else:
                a, view = state.features(), state.features("view")
                value = info_nce(a, a, positive_key=view, temperature=temperature, **options)
            losses.append(value)  # noqa: B023 - called in this round only
            return value

        run = train(cfg, metrics={"own_loss": loss})
        torch.testing.assert_close(run.metrics["own_loss"], run.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.stack(losses), run.loss, rtol=1e-12, atol=0)


def test_refusals_name_what_can() -> None:
    refusals = []

    def ask(info: EpochInfo) -> str:
        for request in (info.weights, info.gamma, lambda: info.features("view")):
            try:
                request()
            except ConfigError as error:
                refusals.append(str(error))
        return "stop"

    train(TINY.replace(data="reduced", modality="multi", d=500), on_epoch=ask)
    train(TINY.replace(optimizer="adam", eta=1e-3), on_epoch=ask)
    train(TINY.replace(data="streamed"), on_epoch=ask)
    assert refusals == [
        "weights: expected explicit data, got reduced (weights in R^d do not exist)",
        "samples: expected a or b of a multi-modal run, got view",
        "gamma: expected weights in the span of the data's vectors, got optimizer adam, "
        "which leaves it; take weights()",
        "features: expected held data, got streamed (no noise patches are held); take data "
        "explicit",
    ]

    def ask_all(info: EpochInfo) -> str:
        with pytest.raises(ConfigError, match="expected runs of one d side by side, got several"):
            info.weights()
        assert [len(run.weights().T) for run in info.runs] == [40, 50]
        return "stop"

    train_many([TINY.replace(d=d, engine="native") for d in (40, 50)], on_epoch=ask_all)


def test_an_epoch_is_over_after_its_callback() -> None:
    kept: list[EpochInfo] = []
    run = train(TINY, on_epoch=kept.append)
    assert [info.loss.item() for info in kept] == run.loss.tolist()
    with pytest.raises(RuntimeError, match="epoch 2: expected a request inside of the callback"):
        kept[2].weights()


def test_a_metric_is_a_curve(tmp_path: Path) -> None:
    numbers = itertools.count()
    kinds = {"a": lambda state: next(numbers), "b": lambda state: torch.tensor([state.epoch])}
    run = train(TINY, metrics=kinds)
    assert run.metrics["a"].tolist() == list(range(10))
    assert run.metrics["b"].tolist() == list(range(10))
    assert run.curves()["b"] is run.metrics["b"]
    assert run.final()["b"] == 9.0
    equal(run, train(TINY))
    # A checkpoint keeps them.
    file = tmp_path / "run.safetensors"
    seen = []

    def watch(info: EpochInfo) -> None:
        seen.append(info.epoch)
        if info.epoch == 6 and len(seen) < 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(TINY, on_epoch=watch, metrics={"b": kinds["b"]}, checkpoint=file, checkpoint_every=4)
    resumed = train(TINY, metrics={"b": kinds["b"]}, checkpoint=file)
    assert resumed.metrics["b"].tolist() == list(range(10))
    with pytest.raises(ConfigError, match=r'metrics \["a"\], got one with \["b"\]'):
        train(TINY, metrics={"a": kinds["a"]}, checkpoint=file)


WRONG = [
    ({"on_epoch": 5}, "on_epoch: expected a function of an EpochInfo, got 5"),
    ({"on_epoch": lambda info: "end"}, "on_epoch: expected \"stop\" or None, got 'end'"),
    (
        {"on_epoch": lambda info: torch.ones(2, dtype=torch.bool)},
        "on_epoch: expected a bool tensor [1] of the runs that end, got one of shape [2]",
    ),
    ({"metrics": len}, "metrics: expected a mapping from names to functions, got"),
    ({"metrics": {"loss": len}}, "metrics: expected a name that no curve or setting has, got"),
    ({"metrics": {"My Metric": len}}, "metrics: expected names of the form my_metric_2, got"),
    ({"metrics": {"x": 3}}, "metrics: expected a function as x, got 3"),
    (
        {"metrics": {"x": lambda state: state.gamma()}},
        "metrics: expected one number from x, got Tensor of shape [6]",
    ),
    ({"metrics": {"x": lambda state: "y"}}, "metrics: expected one number from x, got str 'y'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=without_addresses)
def test_mistakes_are_named(options: dict, message: str) -> None:
    for call in (lambda: train(TINY, **options), lambda: train_many([TINY], **options)):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value).startswith(message)


def test_other_answers_are_no_answer() -> None:
    run = train(TINY, on_epoch=lambda info: True)  # as tqdm's `update` gives
    assert run.status == "finished"
    assert train(TINY, on_epoch=lambda info: info.loss).status == "finished"
    assert torch.equal(sample(TINY).weights, train(TINY.replace(epochs=0)).weights())
