"""What the host does while a GPU computes: its order, and that no result shows it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import Run, TrainConfig, train, train_many
from mmcl_fast.engines import EngineSpec, NativeEngine, memory_bytes
from mmcl_fast.training import batches, loop, recorder
from mmcl_fast.training.recorder import Recorder
from mmcl_fast.training.resolve import resolve_settings

from .test_batches import same

TINY = TrainConfig(
    n=20, d=50, m=6, n_test=10, epochs=12, evaluate_every=4, device="cpu", engine="native"
)
WIDTH = 3


class Lagging:
    """Makes a CPU lag as a GPU does: a copy from it is NaN until an event after it was waited for.

    Attributes:
        log: What was done, in order.
        copies: Where tensors were sent.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copies: list[Tensor] = []
        self._sent: list[tuple[Tensor, Tensor]] = []
        monkeypatch.setattr(recorder, "_is_asynchronous", lambda device: True)
        monkeypatch.setattr(recorder, "_copy_to_host", self._send)
        monkeypatch.setattr(torch.cuda, "Event", lambda: _Event(self._sent))
        monkeypatch.setattr(batches, "drawing_device", lambda cfg: torch.device("cpu"))
        self.log = watch(monkeypatch)

    def _send(self, x: Tensor) -> Tensor:
        copy = torch.full_like(x, torch.nan)
        self.copies.append(copy)
        self._sent.append((copy, x.clone()))
        return copy


class _Event:
    def __init__(self, sent: list[tuple[Tensor, Tensor]]) -> None:
        self._sent = sent

    def record(self) -> None:
        self._before = list(self._sent)

    def synchronize(self) -> None:
        for copy, source in self._before:
            copy.copy_(source)


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A log of what is done, in batches of `WIDTH`, whose heads are fitted after each look."""
    log: list[str] = []
    monkeypatch.setattr(batches, "_width", lambda kinds: WIDTH)
    monkeypatch.setattr(recorder, "PENDING_PROBES", 1)
    for owner, name, what in (
        (batches, "sample_many", "draw"),
        (NativeEngine, "train_epochs", "train"),
        (recorder, "probe_accuracy", "heads"),
        (Recorder, "runs", "read"),
    ):
        monkeypatch.setattr(owner, name, _logged(log, what, getattr(owner, name)))
    return log


def _logged(log: list[str], what: str, plain: Any) -> Any:
    def logged(*arguments: Any, **named: Any) -> Any:
        log.append(what)
        return plain(*arguments, **named)

    return logged


def seeds(cfg: TrainConfig, count: int = 7) -> list[TrainConfig]:
    return [cfg.replace(seed=seed) for seed in range(count)]


def check(runs: Sequence[Run], alone: Sequence[Run]) -> None:
    for ours, want in zip(runs, alone, strict=True):
        same(ours, want)
        assert ours.coefficient_epochs == want.coefficient_epochs
        if ours.config.data == "explicit":
            found, expected = (run.weights().nan_to_num(nan=-1) for run in (ours, want))
            assert torch.equal(found, expected)


def test_a_batch_is_begun_before_the_one_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seeds(TINY.replace(evaluate_every=0))
    alone = [train(cfg) for cfg in configs]
    log = Lagging(monkeypatch).log
    check(train_many(configs), alone)
    first, more = ["draw", "train"], ["draw", "train", "read"]
    assert log == [*first, *more, *more, "read"]


def test_what_is_not_begun_ahead_waits_for_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither has the other's memory when it is made.
    log, cpu = Lagging(monkeypatch).log, torch.device("cpu")
    ahead = {"native": cpu, "gram": None}
    monkeypatch.setattr(batches, "drawing_device", lambda cfg: ahead[cfg.engine])
    monkeypatch.setattr(batches, "_width", lambda kinds: log.append("width") or WIDTH)
    both = [TINY.replace(engine=engine, evaluate_every=0) for engine in ("native", "gram")]
    train_many(both)
    assert log == ["width", "width", "draw", "train", "read", "draw", "read"]
    log.clear()
    train_many(both[::-1])
    assert log == ["width", "width", "draw", "read", "draw", "train", "read"]


def test_data_and_engine_are_made_beside_what_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    log = watch(monkeypatch)
    _log_entries(monkeypatch, batches, "_on_side_stream", log)
    monkeypatch.setattr(NativeEngine, "_project", _logged(log, "make", NativeEngine._project))
    train_many([TINY.replace(evaluate_every=0)])
    assert log == ["in", "draw", "out", "in", "make", "out", "train", "read"]


def test_training_waits_for_what_was_made_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            assert other is made[0]
            log.append("wait")

    made: list[Stream] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda *a, **k: made.append(Stream()) or made[-1])
    monkeypatch.setattr(batches, "_side_stream", cache(batches._side_stream.__wrapped__))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    _log_entries(monkeypatch, torch.cuda, "stream", log)
    for _ in range(2):
        with batches._on_side_stream(torch.device("cuda")):
            log.append("launch")
    with batches._on_side_stream(None):
        log.append("launch")
    assert log == ["in", "launch", "out", "wait"] * 2 + ["launch"]
    assert len(made) == 1


def _log_entries(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, log: list[str]) -> None:
    @contextmanager
    def entered(*_: Any) -> Iterator[None]:
        log.append("in")
        yield
        log.append("out")

    monkeypatch.setattr(owner, name, entered)


def test_a_run_keeps_no_memory_that_copies_arrive_in(monkeypatch: pytest.MonkeyPatch) -> None:
    # It cannot be moved by the system, and torch gives none of it back.
    copies = Lagging(monkeypatch).copies
    run = train_many([TINY])[0]
    mine = [*run.curves().values(), run.gamma, run.rho]
    mine += [x for c in run._span for x in (c.initial, c.mu, c.noise)]
    places = [{x.untyped_storage().data_ptr() for x in tensors} for tensors in (mine, copies)]
    assert len(places[0]) == len(mine), "premise: one run shares memory with no other"
    assert not places[0] & places[1]


def test_an_engine_lives_until_its_results_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its memory is that of a stream which does not wait for training.
    Lagging(monkeypatch)
    engines: list[weakref.ref[NativeEngine]] = []

    def build(spec: EngineSpec) -> NativeEngine:
        engine = NativeEngine(spec)
        engines.append(weakref.ref(engine))
        return engine

    found = loop.train_batch([TINY], batches.sample_many([TINY]), build=build)
    assert engines[0]() is not None
    found.runs([None])
    assert engines[0]() is None


def test_heads_are_fitted_while_the_next_epochs_train(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seeds(TINY, WIDTH)
    alone = [train(cfg) for cfg in configs]
    log = Lagging(monkeypatch).log
    check(train_many(configs), alone)
    assert log == ["draw", *["train", "heads"] * 3, "read", "heads"]


def test_a_cpu_does_one_thing_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log = watch(monkeypatch)
    train_many(seeds(TINY, WIDTH + 1))
    assert log == ["draw", *["heads", "train"] * 3, "heads", "read"] * 2


@pytest.mark.parametrize("data", ["explicit", "reduced"])
@pytest.mark.parametrize(
    "change",
    [
        {"modality": "multi", "coefficients_every": 5},
        {"q": 3, "eta": 0.3, "sigma_0": 0.2, "epochs": 60},
        {"q": 3, "eta": 1e3, "sigma_0": 1.0, "epochs": 40},
        {"q": 3, "eta": 1e3, "sigma_0": 1.0, "epochs": 40, "coefficients_every": 10},
        {"epochs": 0},
    ],
    ids=["multi", "some_diverge", "all_diverge", "all_diverge_with_coefficients", "no_epochs"],
)
def test_no_result_shows_it(
    change: dict[str, Any], data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = seeds(TINY.replace(data=data, **change))
    alone = [train(cfg) for cfg in configs]
    Lagging(monkeypatch)
    monkeypatch.setattr(recorder, "PENDING_PROBES", 2 * WIDTH)  # two looks at a time
    check(train_many(configs), alone)


def test_callbacks_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(configs: Sequence[TrainConfig]) -> list[tuple[int, list[float]]]:
        seen: list[tuple[int, list[float]]] = []
        train_many(configs, lambda info: seen.append((info.epoch, info.loss.tolist())))
        return seen

    configs = seeds(TINY)
    monkeypatch.setattr(batches, "_width", lambda kinds: WIDTH)
    plain = told(configs)
    Lagging(monkeypatch)
    assert told(configs) == plain


def test_a_failed_batch_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
    log, calls = Lagging(monkeypatch).log, []

    def die(info: loop.EpochInfo) -> None:
        calls.append(info.epoch)
        if calls.count(0) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_many(seeds(TINY), die)
    assert "read" not in log
    assert len(waits) == 1
    train_many(seeds(TINY))
    assert len(waits) == 1


def test_a_last_look_at_losses_that_changes_nothing_is_spared() -> None:
    def looks(lags: bool, cfg: TrainConfig) -> list[bool]:
        found = Recorder([cfg], batches.sample_many([cfg]))
        found._is_asynchronous = lags
        return [found.all_diverged(epoch) for epoch in (8, 16)]

    # No loss was recorded, so all of them are NaN. 16 is the last epoch but one.
    cfg = TINY.replace(epochs=17)
    assert looks(False, cfg) == [True, True]
    assert looks(True, cfg) == [True, False]
    assert looks(True, cfg.replace(coefficients_every=4)) == [True, True], "a run would show it"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_leaves_the_host_its_threads(device: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with loop.compute_threads(TINY.replace(engine="gram", device=device)):
            assert torch.get_num_threads() == (2 if device == "cuda" else 1)
    finally:
        torch.set_num_threads(threads)


def test_reduced_runs_keep_no_coefficients_for_weights_they_have_not() -> None:
    assert train(TINY)._span is not None
    assert train(TINY.replace(data="reduced"))._span is None


@pytest.mark.gpu
@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("evaluate_every", [0, 3])
def test_batches_in_flight_on_a_gpu(
    evaluate_every: int, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = TrainConfig(d=300, epochs=50, modality=modality, evaluate_every=evaluate_every,
                       device="cuda", engine="triton")  # fmt: skip
    configs = seeds(base, 60)
    whole = train_many(configs)
    monkeypatch.setattr(batches, "_width", lambda kinds: 7)
    check(train_many(configs), whole)
    check(train_many(configs[:3]), [train(cfg) for cfg in configs[:3]])


def test_a_batch_that_does_not_fit_beside_another_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Lagging(monkeypatch).log
    configs = [TINY.replace(seed=seed, evaluate_every=0) for seed in range(2 * WIDTH)]
    train_many(configs)
    assert log.index("read") > max(k for k, what in enumerate(log) if what == "draw")
    log.clear()
    seen: list[int] = []
    monkeypatch.setattr(batches, "_fits_beside", lambda cfg, needed: seen.append(needed))
    train_many(configs)
    assert log.index("read") < max(k for k, what in enumerate(log) if what == "draw")
    assert seen == [WIDTH * memory_bytes(resolve_settings(TINY), "native")] * 2


def test_what_fits_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = TINY.replace(device="cuda", engine="triton")
    monkeypatch.setattr(batches, "free_gpu_bytes", lambda: 20)
    assert batches._fits_beside(on_gpu, 10)
    assert not batches._fits_beside(on_gpu, 11)
    assert batches._fits_beside(TINY, 11)
