"""CUDA graphs of the gram engine's epochs against the same epochs launched one by one."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig, train
from mmcl_fast.data import sample
from mmcl_fast.engines import EngineSpec, GramEngine, MultiEpochEngine, memory_bytes
from mmcl_fast.engines.cuda_graph import cuda_graph
from mmcl_fast.engines.gram_cuda_graph import ReplayedGramEngine, gram_engine
from mmcl_fast.training import loop
from mmcl_fast.training.resolve import resolve_settings

from .replay_cases import CASES, Case, copied, one_by_one, same, same_state, spec_of

pytestmark = pytest.mark.gpu
LARGER: dict[str, Any] = {"n": 300, "m": 40, "d": 400, "device": "cuda"}


@contextmanager
def no_waiting() -> Iterator[None]:
    """To wait for the device is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once: that it does not find all
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_stretches_are_epochs_one_by_one(
    case: Case, runs: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.apply(monkeypatch)
    spec = spec_of(runs, dtype=dtype, device="cuda", **case.settings)
    ours, plain = gram_engine(spec), GramEngine(spec)
    assert isinstance(ours, MultiEpochEngine)
    epoch = 0
    for count in (1, 4, 1, 7):
        same(ours.train_epochs(epoch, count), one_by_one(plain, epoch, count))
        same_state(ours, plain)
        epoch += count
        assert all(map(torch.equal, ours.embeddings()[:2], plain.embeddings()[:2]))
        assert torch.equal(ours.loss(epoch), plain.loss(epoch))
    saved = copied(ours)
    first = ours.train_epochs(epoch, 3)
    ours.load_state({name: x.cpu() for name, x in saved.items()})
    with no_waiting():
        again = ours.train_epochs(epoch, 3)
    same(again, first)


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_two_larger_engines_in_turn(modality: str) -> None:
    specs = [spec_of(2, modality=modality, q=q, **LARGER) for q in (1, 2)]
    pairs = [(ReplayedGramEngine(spec), GramEngine(spec)) for spec in specs]
    for epoch, count in ((0, 2), (2, 30), (32, 1), (33, 8)):
        found = [ours.train_epochs(epoch, count) for ours, _ in pairs]  # nothing waits in between
        for mine, (ours, plain) in zip(found, pairs, strict=True):
            same(mine, one_by_one(plain, epoch, count))
            same_state(ours, plain)


def test_an_engine_survives_one_that_was_captured_before_it() -> None:
    """They share what cuBLAS holds for the stream of captures."""
    specs = [spec_of(1, **LARGER), spec_of(1, **(LARGER | {"n": 500}))]
    before = ReplayedGramEngine(specs[0])
    before.train_epochs(0, 3)
    ours, plain = ReplayedGramEngine(specs[1]), GramEngine(specs[1])
    same(ours.train_epochs(0, 3), one_by_one(plain, 0, 3))
    del before
    torch.cuda.empty_cache()
    other = torch.full((1 << 26,), torch.nan, device="cuda")  # on what was given back
    same(ours.train_epochs(3, 5), one_by_one(plain, 3, 5))
    del other


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_training_by_graphs_is_training(modality: str) -> None:
    cfg = TrainConfig(n=300, d=400, m=40, modality=modality, epochs=40, evaluate_every=15)
    cfg = resolve_settings(cfg.replace(device="cuda"))
    assert cfg.engine == "gram"
    data = [sample(cfg)]
    want = loop.train_batch([cfg], data, build=GramEngine).runs([None])[0]
    found = train(cfg)
    for name in ("loss", "signal", "noise", "ood_accuracy", "gamma", "rho"):
        a, b = getattr(found, name), getattr(want, name)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=name)


def test_built_and_captured_in_inference_mode() -> None:
    spec = spec_of(weight_decay=0.1, device="cuda")
    with torch.inference_mode():
        ours = ReplayedGramEngine(spec)
        start = copied(ours)
        first = ours.train_epochs(0, 4)
    ours.load_state(start)
    same(ours.train_epochs(0, 4), first)
    first.loss.clone().requires_grad_().sum().backward()


def test_another_thread_may_call_cuda_during_a_capture() -> None:
    x, found = torch.zeros(3, device="cuda"), []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            taken = torch.ones(1 << 27, device="cuda")  # nothing is cached then: asks the driver
            found.append(taken[:8].sum().item())

    work()  # loads kernels
    x.add_(0)

    def step() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        x.add_(1)

    again = cuda_graph(step)
    assert found == [8.0, 8.0]
    assert not x.any()  # a capture executes nothing
    again()
    again()
    assert x.tolist() == [2.0] * 3
    assert found == [8.0, 8.0]


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("n", [700, 2500], ids=["whole", "chunks"])
def test_memory_is_within_the_prediction_and_given_back(n: int, modality: str) -> None:
    settings = {"n": n, "m": 200, "d": 500, "modality": modality, "weight_decay": 0.1}
    spec = spec_of(**settings)
    ReplayedGramEngine(spec_of(device="cuda")).train_epochs(0, 2)  # what stays: handles, workspace
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held, taken = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    ours = ReplayedGramEngine(EngineSpec(spec.configs, spec.data, torch.device("cuda")))
    ours.train_epochs(0, 5)
    torch.cuda.synchronize()
    predicted = memory_bytes(spec.cfg.replace(device="cuda"), "gram")
    assert torch.cuda.max_memory_reserved() - taken <= predicted
    del ours
    assert torch.cuda.memory_allocated() <= held
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= taken
