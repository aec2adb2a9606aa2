"""Data of one's own: what is not given is drawn, and each wrong thing is one error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl_fast import DataError, EngineRefusedError, TrainConfig, reference, train, train_many
from mmcl_fast.data import SignalNoiseData, from_arrays, sample
from mmcl_fast.data.signal_noise.synthetic import draw_augmented
from mmcl_fast.model import TwoLayerEncoder
from tests.support.names import without_addresses

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=6, evaluate_every=3, device="cpu")
MULTI = TINY.replace(modality="multi", d_b=31)
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((20, 50))
LABELS = RNG.permutation(np.repeat([-1, 1], 10))


def fields(data: SignalNoiseData) -> dict[str, Tensor]:
    return {name: x for name, x in vars(data).items() if x is not None}


def same(a: SignalNoiseData, b: SignalNoiseData) -> None:
    assert fields(a).keys() == fields(b).keys()
    for name, x in fields(a).items():
        assert torch.equal(x, getattr(b, name)), name


@pytest.mark.parametrize(
    "cfg",
    [TINY, MULTI, TINY.replace(data="reduced", d=400), TINY.replace(probe_on="ood")],
)
def test_what_is_not_given_is_drawn(cfg: TrainConfig) -> None:
    drawn = fields(sample(cfg))
    same(from_arrays(cfg), sample(cfg))
    for given in ({"noise"}, {"labels", "mu"}, {"weights"}, {"test_noise", "nu"}, set(drawn)):
        kept = {name: drawn[name].double().numpy() for name in given}
        same(from_arrays(cfg, **kept), sample(cfg))
        same(from_arrays(cfg, **dict.fromkeys(drawn) | kept), sample(cfg))


def test_given_noise_has_views_of_its_own() -> None:
    data = from_arrays(TINY, noise=NOISE, labels=LABELS.tolist())
    assert torch.equal(data.noise, torch.tensor(NOISE, dtype=torch.float32))
    assert torch.equal(data.augmented, draw_augmented(TINY, data.noise, 0))
    assert torch.equal(data.labels, torch.tensor(LABELS, dtype=torch.float32))
    for name in ("mu", "nu", "weights", "test_noise", "test_labels"):
        assert torch.equal(getattr(data, name), getattr(sample(TINY), name)), name


def test_drawn_labels_do_not_decide_where_labels_are_given() -> None:
    """A seed whose two labels are equal has data for labels of one's own."""
    cfg = TINY.replace(n=2)
    seeds = [s for s in range(20) if not _draws(cfg.replace(seed=s))]
    assert seeds, "premise"
    data = from_arrays(cfg.replace(seed=seeds[0]), labels=[1, -1])
    assert data.labels.tolist() == [1.0, -1.0]


def _draws(cfg: TrainConfig) -> bool:
    try:
        sample(cfg)
    except DataError:
        return False
    return True


class Frame:
    """As a DataFrame: an array of another library, with the way to NumPy."""

    def to_numpy(self) -> np.ndarray:
        return NOISE


KIND = "expected an array, a tensor or a list of numbers, got"
MAPPED = "expected +1 and -1, got 0 and 1; take 2 *"
WRONG = [
    ({"noise": Frame()}, f"data.noise: {KIND} a Frame; take .to_numpy()"),
    ({"noise": {"a": 1}}, f"data.noise: {KIND} a dict"),
    ({"noise": (x for x in NOISE)}, f"data.noise: {KIND} a generator; take a list"),
    ({"noise": NOISE + 1j}, "data.noise: expected real numbers, got an array of complex128"),
    ({"noise": torch.tensor(NOISE + 0j)}, "data.noise: expected real numbers, got torch.c"),
    ({"noise": NOISE.astype(str)}, "data.noise: expected real numbers, got an array of <U"),
    ({"noise": NOISE.astype(object)}, "data.noise: expected real numbers, got an array of object"),
    ({"noise": [[1.0, 2.0], [3.0]]}, "data.noise: expected rows of one length, got a ragged list"),
    ({"noise": NOISE.T}, "data.noise: expected shape [20, 50], got [50, 20]"),
    ({"noise": NOISE * 1e39}, "data.noise: expected finite values, got NaN or infinity (in"),
    ({"labels": (LABELS + 1) // 2}, f"data.labels: {MAPPED} labels - 1"),
    ({"labels": LABELS > 0}, f"data.labels: {MAPPED} labels - 1"),
    ({"labels": np.arange(20)}, "data.labels: expected +1 and -1, got values [0.0, 1.0, 2.0,"),
    ({"labels": np.ones(20)}, "labels: expected both +1 and -1, got 20 labels that are all +1"),
    ({"test_labels": np.zeros(10)}, f"data.test_labels: {MAPPED}"),
    ({"nois": NOISE}, "data: expected fields among labels, mu, nu, noise,"),
    ({"probe_noise": NOISE}, "data.probe_noise: expected none with probe_on train, got one"),
    ({"noise_b": NOISE}, "data.noise_b: expected none in a single-modal run, got one"),
    ({"signal": NOISE}, "data.labels: expected the labels of the patches in signal, got none"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), WRONG, ids=without_addresses)
def test_each_wrong_thing_is_one_error(arrays: dict, message: str) -> None:
    for call in (lambda: from_arrays(TINY, **arrays), lambda: train(TINY, data=arrays)):
        with pytest.raises(DataError) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [NOISE, 3, "noise", Frame(), iter([NOISE])])
def test_data_is_a_mapping(data: object) -> None:
    with pytest.raises(DataError, match="data: expected a SignalNoiseData or a mapping of its"):
        train(TINY, data=data)


@pytest.mark.parametrize(
    "form",
    [lambda x: x[::-1][::-1], lambda x: x.astype(">f8"), lambda x: x.astype(np.longdouble),
     lambda x: torch.tensor(x), lambda x: x.tolist(), lambda x: np.asfortranarray(x)],
)  # fmt: skip
def test_forms_of_arrays(form: Callable) -> None:
    array = form(NOISE)
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    same(from_arrays(TINY, noise=array), from_arrays(TINY, noise=NOISE))


def test_the_config_has_the_norms_of_the_data() -> None:
    mu, nu = 3 * np.eye(50)[4], 0.5 * np.eye(50)[7]
    run = train(TINY, data={"mu": mu, "nu": nu})
    assert (run.config.mu_norm, run.config.nu_norm) == (3.0, 0.5)
    assert run.config.mu_b_norm == TINY.mu_b_norm
    plain = train(TINY, data=sample(TINY))
    assert plain.config == train(TINY).config
    # Data of both modalities serve one as well.
    both = sample(MULTI.replace(d_b=None))
    assert torch.equal(train(TINY, data=both).loss, train(TINY).loss)


@pytest.mark.parametrize("engine", ["native", "gram", "primal"])
def test_many_runs_of_own_data(engine: str) -> None:
    configs = [TINY.replace(engine=engine, seed=s, eta=eta) for s in (0, 1) for eta in (0.01, 0.1)]
    one = {"noise": NOISE, "labels": LABELS}
    each = [{"noise": NOISE * k, "labels": LABELS} for k in (1, 2, 3, 4)]
    for runs, data in ((train_many(configs, data=one), [one] * 4),
                       (train_many(configs, data=each), each)):  # fmt: skip
        for cfg, run, own in zip(configs, runs, data, strict=True):
            alone = train(cfg, data=own)
            assert torch.equal(run.loss, alone.loss)
            assert torch.equal(run.weights(), alone.weights())
            assert run.config == alone.config
    with pytest.raises(DataError, match="data: expected one, or one for each of 4 configs, got 3"):
        train_many(configs, data=each[:3])


def test_views_of_own_noise_are_drawn_anew_in_each_epoch() -> None:
    cfg = TINY.replace(augment="per_epoch", engine="primal", sigma_eps=0.5)
    seen = {}

    def keep(state: object) -> float:
        seen[state.epoch] = state.features("view")
        return 0.0

    data = {"noise": NOISE, "labels": LABELS, "augmented": NOISE + 1}
    run = train(cfg, data=data, metrics={"keep": keep})
    assert run.status == "finished"
    held = from_arrays(cfg, **data)
    signal = held.labels[:, None] * held.mu
    first = TwoLayerEncoder(held.weights).features(signal, held.augmented)
    torch.testing.assert_close(seen[0], first.detach())
    last = run.encoder().features(signal, draw_augmented(cfg, held.noise, cfg.epochs))
    torch.testing.assert_close(seen[cfg.epochs], last.detach())


def one_way(query: Tensor, key: Tensor, positive: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """Loss (6) of queries, by its formula."""
    scores = reference.similarity(query, key) / tau
    own = reference.paired_similarity(query, positive) / tau
    pool = scores.masked_fill(~negatives, -torch.inf)
    return (torch.logsumexp(torch.cat([own[:, None], pool], 1), 1) - own).mean()


@pytest.mark.parametrize("cfg", [TINY, MULTI], ids=["single", "multi"])
def test_a_signal_patch_for_each_sample(cfg: TrainConfig) -> None:
    """Against plain gradient descent on the reference's losses, in float64."""
    cfg = cfg.replace(dtype="float64", optimizer="momentum", weight_decay=0.01)
    drawn = sample(cfg)
    signal = torch.tensor(RNG.standard_normal((20, 50)))
    given = {"signal": signal, "labels": drawn.labels, "noise": drawn.noise}
    if cfg.is_multi:
        given["signal_b"] = torch.tensor(RNG.standard_normal((20, 31)))
        given["noise_b"] = drawn.noise_b
    run = train(cfg, data=given)
    held = from_arrays(cfg, **given)
    assert run.config.engine == "reference"
    torch.testing.assert_close(held.mu, (drawn.labels[:, None] * signal).mean(0))
    assert run.config.mu_norm == pytest.approx(held.mu.norm().item())
    assert run.gamma is None
    w = [held.weights.clone().requires_grad_()]
    w += [held.weights_b.clone().requires_grad_()] if cfg.is_multi else []
    optimizer = torch.optim.SGD(w, lr=cfg.eta, momentum=0.9, weight_decay=0.01)
    negatives = reference.other_label(held.labels)
    for epoch in range(cfg.epochs + 1):
        h = reference.features(w[0], signal, held.noise)
        # The stop-gradient of (4): keys are constants.
        if cfg.is_multi:
            g = reference.features(w[1], given["signal_b"], held.noise_b)
            value = one_way(h, g.detach(), g.detach(), negatives, cfg.tau_value)
            value = value + one_way(g, h.detach(), h.detach(), negatives, cfg.tau_value)
        else:
            g = reference.features(w[0], signal, held.augmented)
            value = one_way(h, h.detach(), g.detach(), negatives, cfg.tau_value)
        assert run.loss[epoch].item() == pytest.approx(value.item(), rel=1e-12)
        if epoch < cfg.epochs:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    torch.testing.assert_close(run.weights(), w[0].detach(), rtol=1e-10, atol=1e-13)
    for engine in ("native", "gram", "primal"):
        with pytest.raises(EngineRefusedError, match=rf"{engine}: data\.signal .* use reference"):
            train(cfg.replace(engine=engine), data=given)


def test_a_signal_needs_both_modalities() -> None:
    with pytest.raises(DataError, match="expected signal and signal_b together"):
        from_arrays(MULTI, signal=np.ones((20, 50)), labels=LABELS)


def test_encoders_give_the_features_of_the_loss() -> None:
    data = sample(TINY.replace(q=2))
    encoder = TwoLayerEncoder(data.weights, q=2)
    signal = data.labels[:, None] * data.mu
    features = encoder.features(signal, data.noise)
    assert features.shape == (20, 12)
    torch.testing.assert_close(features, reference.features(data.weights, signal, data.noise, 2))
    torch.testing.assert_close(features[:, :6] + features[:, 6:], encoder(signal, data.noise))
