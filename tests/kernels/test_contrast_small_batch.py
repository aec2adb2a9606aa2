"""Small batches: losses and weights in one launch, against the dense float64 evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.triton_backend import contrastive, small_batch
from mmcl_fast.losses.triton_backend.policy import Policy, using
from mmcl_fast.losses.triton_backend.problem import KernelInputs

from .contrast_problems import (
    BY_ID,
    CHUNKED,
    Case,
    all_requested,
    assert_within_budget,
    at_once,
    in_two,
    problem,
    uniform,
)

TAKEN = [
    case for case in BY_ID.values()
    if case.id not in ("sigmoid", "hard", "everything", "own_decoupled")
]  # fmt: skip


@pytest.fixture(autouse=True)
def _policy() -> Iterator[None]:
    with using(Policy(small_batch=True)):
        yield


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An entry for each time that the one launch served a contrast."""
    calls: list[bool] = []
    stock = small_batch.contrast_small_batch_fwd

    def counted(*arguments: object, **options: object) -> object:
        calls.append(True)
        return stock(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(small_batch, "contrast_small_batch_fwd", counted)
    return calls


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.id)
def test_float32(case: Case, device: torch.device, launched: list[bool]) -> None:
    contrast = problem(case.id, CHUNKED, torch.float32, device)
    assert_within_budget(at_once(contrast, 0.25), contrast, uniform(contrast, 0.25))
    assert launched


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["symmetric", "stopped_both_ways", "index", "own"])
def test_16_bits(name: str, dtype: torch.dtype, device: torch.device, launched: list[bool]) -> None:
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16 products")
    contrast = problem(name, CHUNKED, dtype, device)
    assert_within_budget(at_once(contrast, 1e-5), contrast, uniform(contrast, 1e-5))
    assert launched


@pytest.mark.parametrize("name", ["symmetric", "own", "stopped_both_ways"])
def test_each_gradient_alone(name: str, device: torch.device) -> None:
    contrast = problem(name, CHUNKED, torch.float32, device)
    for field in ("query", "key", "temperature"):
        if getattr(contrast, field) is not None:
            ours = at_once(contrast, 1.0, Requested()._replace(**{field: True}))
            assert set(ours) == {"losses", field}
            assert_within_budget(ours, contrast, uniform(contrast, 1.0))


def test_large_scores_and_equal_rows(device: torch.device) -> None:
    contrast = problem("symmetric", CHUNKED, torch.float32, device)
    contrast.query[1] = contrast.query[0]
    contrast.key[1] = contrast.key[0]
    cold = replace(contrast, temperature=torch.tensor(1e-3, device=device))
    ours = at_once(cold, 1.0)
    assert_within_budget(ours, cold, uniform(cold, 1.0), of_scores=2.0**-24)
    assert all(x.isfinite().all() for x in ours.values())


def test_an_index_out_of_range_is_nan(device: torch.device) -> None:
    contrast = problem("index", CHUNKED, torch.float32, device)
    contrast.positive[3] = 40
    losses = at_once(contrast, 1.0)["losses"]
    assert losses[3].isnan()
    assert losses.isnan().sum() == 1


@pytest.mark.parametrize("name", ["sigmoid", "hard", "everything", "own_decoupled"])
def test_what_one_launch_cannot_do_runs_as_before(
    name: str, device: torch.device, launched: list[bool]
) -> None:
    contrast = problem(name, CHUNKED, torch.float32, device)
    with pytest.raises(ValueError, match=r"small batch: expected (form|no hard)"):
        small_batch.losses_and_gradients(contrast, all_requested(contrast), 1.0)
    assert_within_budget(at_once(contrast, 1.0), contrast, uniform(contrast, 1.0))
    assert not launched


def test_rows_weighted_later_run_as_before(device: torch.device, launched: list[bool]) -> None:
    contrast = problem("symmetric", CHUNKED, torch.float32, device)
    assert_within_budget(in_two(contrast, uniform(contrast, 1.0)), contrast, uniform(contrast, 1.0))
    assert not launched


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["symmetric", "plain", "labels", "stopped_both_ways", "own"])
def test_typical_batches_have_one_launch_for_both_gradients(
    name: str, dtype: torch.dtype, device: torch.device, launched: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16 products")
    monkeypatch.setattr(small_batch, "MOST_SCORES", 0)
    pairs: list[bool] = []
    stock = small_batch.contrast_pair_gradients_bwd

    def counted(*arguments: object, **options: object) -> object:
        pairs.append(True)
        return stock(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(small_batch, "contrast_pair_gradients_bwd", counted)
    contrast = problem(name, CHUNKED, dtype, device)
    assert_within_budget(at_once(contrast, 1e-5), contrast, uniform(contrast, 1e-5))
    assert not launched
    assert len(pairs) == (name in ("symmetric", "plain", "labels"))


def test_sizes_alone_choose_the_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(n: int, d: int) -> str:
        x = torch.empty(n, d, device="meta", dtype=torch.bfloat16)
        inputs = KernelInputs.of(Contrast(x, x, torch.tensor(1.0), symmetric=True))
        monkeypatch.setattr(contrastive, "arch_of", lambda *_: "sm_90")
        return type(contrastive.algorithm_for(inputs)).__name__

    assert [chosen(n, 256) for n in (64, 8192, 8208)] == ["Chunked", "Chunked", "Fused"]
    assert chosen(8208, 257) == "Chunked"
    with using(Policy()):
        assert chosen(64, 256) == "Fused"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["symmetric", "own", "stopped_both_ways", "index"])
@pytest.mark.parametrize("n", [64, 512, 2048])
def test_captured_steps_have_the_bits_of_launched_ones(name: str, n: int) -> None:
    """Nothing waits for the device, and no size depends on data: a step can be captured."""
    device = torch.device("cuda")
    contrast = problem(name, CHUNKED, torch.bfloat16, device)
    repeats = max(1, n // len(contrast.query))  # of 512, few enough for the one launch
    wide = {
        field: getattr(contrast, field).repeat(repeats, 1)
        for field in ("query", "key") if getattr(contrast, field) is not None
    }  # fmt: skip
    if contrast.positive is not None:
        wide["positive"] = contrast.positive.repeat(repeats)
    if contrast.key is None:  # its own inverse: pairs of neighbours
        wide["positive"] = torch.arange(len(wide["query"]), device=device) ^ 1
    if contrast.labels is not None:
        wide["labels"] = tuple(x.repeat(repeats) for x in contrast.labels)
    contrast = replace(contrast, **wide)
    launched = at_once(contrast, 1.0 / n)
    at_once(contrast, 1.0 / n)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = at_once(contrast, 1.0 / n)
    for x in captured.values():
        x.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(captured[key], launched[key]) for key in launched)
