"""The native core of model variants against itself: bits, curves, state, interrupts, arguments."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl_fast import TrainConfig, _native
from mmcl_fast.data import sample
from mmcl_fast.engines import EngineSpec
from mmcl_fast.engines.variants.native import VariantNativeEngine

CPU = torch.device("cpu")
VARIANTS: dict[str, dict[str, Any]] = {
    "everything": {
        "negatives": "all", "pair_noise": 0.3, "stop_gradient": "none", "similarity": "cosine",
        "eta_tau": 0.01, "classes": 5, "spurious_norm": 1.0, "eta": 0.001, "sigma_0": 0.01,
    },
    "everything_multi": {
        "modality": "multi", "pair_noise": 0.3, "stop_gradient": "none", "similarity": "cosine",
        "eta_tau": 0.01, "classes": 5, "spurious_b_norm": 1.0, "q": 2, "eta": 0.001,
        "sigma_0": 0.1,
    },
    "keys": {"stop_gradient": "none", "n": 61, "m": 19},
    "inner_multi": {"modality": "multi", "pair_noise": 0.2, "n": 33, "m": 17},
    "third": {
        "modality": "multi", "mu_c_norm": 3.0, "pair_noise": 0.3, "stop_gradient": "none",
        "similarity": "cosine", "eta_tau": 0.01, "classes": 5, "spurious_c_norm": 1.0,
        "eta": 0.001, "sigma_0": 0.01,
    },
    "logistic": {"objective": "logistic", "q": 2, "sigma_0": 0.1, "n": 41, "m": 18},
    "orthogonal": {"data": "orthogonal", "stop_gradient": "none", "pair_noise": 0.3, "d": 120},
}  # fmt: skip


def engine(
    settings: dict[str, Any], runs: int = 1, first: int = 0, **more: Any
) -> VariantNativeEngine:
    base: dict[str, Any] = {"n": 30, "d": 150, "m": 12, "n_test": 5}
    cfg = TrainConfig(**(base | settings | more))
    data = [sample(cfg.replace(seed=seed)) for seed in range(first, first + runs)]
    return VariantNativeEngine(EngineSpec([cfg] * runs, data, CPU))


def trained(of: VariantNativeEngine, epochs: int = 25) -> dict[str, Tensor]:
    """Curves and state."""
    curves = {name: x for name, x in vars(of.train_epochs(0, epochs)).items() if x is not None}
    return curves | of.state()


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), x.numpy(), err_msg=name)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_instruction_set_gives_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, found = _native.train_variants, []
    for target in _native.targets():
        monkeypatch.setattr(_native, "train_variants", partial(train, target=target))
        found.append(trained(engine(VARIANTS[name])))
    assert found[0]["loss"].isfinite().all()
    for other in found[1:]:
        assert_same_bits(other, found[0])


@pytest.mark.parametrize("name", ["everything", "keys", "third", "logistic"])
def test_runs_do_not_depend_on_threads_or_neighbours(name: str) -> None:
    before, together = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            together.append(trained(engine(VARIANTS[name], runs=4)))
    finally:
        torch.set_num_threads(before)
    assert_same_bits(*together)
    for r in range(4):
        alone = trained(engine(VARIANTS[name], first=r))
        assert_same_bits({k: x[r : r + 1] for k, x in together[0].items()}, alone)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stretch_is_its_epochs_one_by_one(name: str) -> None:
    whole, stepped = engine(VARIANTS[name]), engine(VARIANTS[name])
    at_once, rows = trained(whole, 6), []
    for epoch in range(6):
        signal_noise, tau = stepped.signal_and_noise(), stepped.temperature()
        loss = stepped.loss(epoch)  # measures, and changes nothing
        rows.append([loss, *signal_noise, tau])
        assert torch.equal(stepped.train_epoch(epoch), loss)
    for curve, values in zip(
        ("loss", "signal", "noise", "tau"), zip(*rows, strict=True), strict=True
    ):
        if curve in at_once:
            assert torch.equal(at_once[curve][0], torch.cat(values)), curve
    assert_same_bits(stepped.state(), whole.state())


def test_the_state_resumes_bit_for_bit() -> None:
    whole, first, second = (engine(VARIANTS["everything"], runs=2) for _ in range(3))
    trained(first, 7)
    second.load_state({name: x.clone() for name, x in first.state().items()})
    trained(whole, 15)
    trained(second, 8)
    assert_same_bits(second.state(), whole.state())


def test_what_follows_a_loss_that_is_not_finite_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"stop_gradient": "none", "q": 3, "sigma_0": 1.0, "eta": 1e6, "eta_tau": 0.1}
    found = trained(engine(settings), 30)
    at = int(torch.nonzero(~found["loss"][0].isfinite())[0])
    assert 0 <= at < 29, "premise"
    for name in ("loss", "signal", "noise", "tau"):
        assert found[name][0, at + 1 :].isnan().all(), name
    assert found["loss"][0, :at].isfinite().all()


@pytest.mark.parametrize("negatives", ["other_label", "all"])
def test_a_sample_without_negatives_has_no_loss(negatives: str) -> None:
    cfg = TrainConfig(n=9, d=40, m=4, n_test=3, stop_gradient="none", negatives=negatives)
    data = sample(cfg)
    data = type(data)(**(vars(data) | {"labels": torch.ones(cfg.n)}))
    of = VariantNativeEngine(EngineSpec([cfg], [data], CPU))
    before = {name: x.clone() for name, x in of.state().items()}
    loss = of.train_epochs(0, 5).loss
    if negatives == "all":
        assert (loss > 0).all()
    else:
        assert not loss.any()
        assert_same_bits(of.state(), before)


class Alarm(Exception):
    """Raised by the handler of a signal."""


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_a_signal_ends_a_long_call(runs: int) -> None:
    assert threading.current_thread() is threading.main_thread(), "handlers run there alone"
    of = engine(VARIANTS["keys"], runs=runs)

    def handler(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(runs)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.perf_counter()
        with pytest.raises(Alarm):
            of.train_epochs(0, 1_000_000)  # half a minute
        # At most 0.2 s where a core is free; the rest is for machines that are busy.
        assert time.perf_counter() - start < 5
    finally:
        torch.set_num_threads(threads)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _of_first(change: Any) -> Any:
    """A change of the first modality's parts."""
    return lambda a: [change(*a[0]), *a[1:]]


BAD = [
    (
        "modalities",
        _of_first(lambda p, z, a: ([p[0][:, :1]], z, a)),
        r"gram: expected .* \[1, 66, 66",
    ),
    ("modalities", _of_first(lambda p, z, a: (p, z.astype(float), a)), r"z: expected .* float32"),
    ("modalities", _of_first(lambda p, z, a: (p * 2, z, a)), "products: expected K, or"),
    ("modalities", lambda a: [], "modalities: expected one to three"),
    ("codes", lambda a: (a[0] + 9, *a[1:]), "axis: expected 0 .. axes - 1"),
    ("codes", lambda a: (*a[:2], a[2] - 9), "code: expected 0 .. codes - 1"),
    ("codes", lambda a: (*a[:2], a[2].astype(np.int64)), r"code: expected .* int32 \[1, 2, 30\]"),
    ("code_counts", lambda a: [99], "codes: expected at least 1"),
    ("labels", lambda a: a[:, :1], r"labels: expected contiguous float32 \[1, 2, 30\]"),
    ("tau", lambda a: [], "tau, eta, eta_tau: expected one for each run"),
    ("log_inverse_tau", lambda a: a.astype(np.float32), r"log_inverse_tau: .* float64 \[1\]"),
    ("curves", lambda a: a[:3], r"curves: expected contiguous float32 \[4, 1, 2\]"),
    ("class_axes", lambda a: 99, "class_axes: expected 1 .. axes"),
    ("threads", lambda a: 0, "threads: expected at least 1"),
    ("update", lambda a: False, "epochs: expected 1 without updates"),
]


@pytest.mark.parametrize(
    ("name", "spoil", "message"), BAD, ids=[f"{b[0]}-{b[2][:12]}" for b in BAD]
)
def test_bad_arguments_are_refused(
    name: str, spoil: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = _native.train_variants
    names = (
        "modalities", "codes", "code_counts", "labels", "targets", "tau", "eta", "eta_tau",
        "log_inverse_tau", "curves",
    )  # fmt: skip

    def spoiled(*given: Any, **named: Any) -> None:
        arguments = dict(zip(names, given, strict=True)) | named
        train(**(arguments | {name: spoil(arguments[name])}))

    monkeypatch.setattr(_native, "train_variants", spoiled)
    with pytest.raises(ValueError, match=message):
        engine(VARIANTS["everything"]).train_epochs(0, 2)


def test_the_logistic_loss_has_one_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    # With two, arrays have the shapes that the logistic loss of one would need.
    of = engine(VARIANTS["inner_multi"])
    train = _native.train_variants
    monkeypatch.setattr(
        _native, "train_variants", lambda *a, **named: train(*a, **(named | {"logistic": True}))
    )
    with pytest.raises(ValueError, match="logistic: expected one modality"):
        of.train_epochs(0, 1)


def test_a_partner_is_a_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    of = engine(VARIANTS["orthogonal"])
    of._products[0][2][:] = 0
    with pytest.raises(ValueError, match="partner: expected a permutation"):
        of.train_epochs(0, 1)
