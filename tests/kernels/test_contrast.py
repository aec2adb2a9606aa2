"""Losses and gradients of the Triton backend against the dense float64 evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmcl_fast.kernels import contrast_statistics
from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.triton_backend import chunked, contrast_forward
from tests.support.dense_contrast import FEATURES

from .contrast_problems import (
    CASES,
    CHUNKED,
    FUSED,
    Case,
    all_requested,
    assert_within_budget,
    at_once,
    in_two,
    problem,
    uniform,
)

WAYS = [pytest.param(FUSED, id="fused"), pytest.param(CHUNKED, id="chunked")]
HALVES = ["plain", "symmetric", "stopped_both_ways", "sigmoid", "index", "own"]
BROAD = {torch.bfloat16: "Triton's interpreter multiplies the bits of bfloat16"}


def needs(dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu" and dtype in BROAD:
        pytest.skip(BROAD[dtype])


def upstream_of(contrast: Contrast, *, signed: bool) -> torch.Tensor:
    """Weights of both signs and very different sizes, with zeros."""
    drawn = torch.randn(len(contrast.query), generator=torch.Generator().manual_seed(1))
    drawn[::5] = 0.0
    drawn[1::5] *= 1e-4
    return (drawn if signed else drawn.abs()).to(contrast.query.device)


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32(
    case: Case, features: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    contrast = problem(case.id, features, torch.float32, device)
    upstream = upstream_of(contrast, signed=True)
    assert_within_budget(in_two(contrast, upstream), contrast, upstream)
    # And without partial results: a program sees all keys of its rows, block after block.
    monkeypatch.setattr(contrast_statistics, "TARGET_PROGRAMS", 1)
    assert_within_budget(at_once(contrast, 0.25), contrast, uniform(contrast, 0.25))


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", HALVES)
def test_16_bits(name: str, dtype: torch.dtype, features: int, device: torch.device) -> None:
    needs(dtype, device)
    contrast = problem(name, features, dtype, device)
    assert_within_budget(at_once(contrast, 1e-5), contrast, uniform(contrast, 1e-5))
    upstream = upstream_of(contrast, signed=False)
    assert_within_budget(in_two(contrast, upstream), contrast, upstream)


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("name", ["symmetric", "own", "hard"])
def test_each_gradient_alone(name: str, features: int, device: torch.device) -> None:
    contrast = problem(name, features, torch.float32, device)
    for field, there in zip(FEATURES, all_requested(contrast), strict=True):
        if not there:
            continue
        alone = Requested()._replace(**{field: True})
        for ours in (
            at_once(contrast, 1.0, alone),
            in_two(contrast, uniform(contrast, 1.0), alone),
        ):
            assert set(ours) == {"losses", field}
            assert_within_budget(ours, contrast, uniform(contrast, 1.0))


@pytest.mark.parametrize("name", ["symmetric", "own", "stopped"])
def test_few_programs_and_many_chunks(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few blocks of queries at a time, and programs that see all keys.
    monkeypatch.setattr(contrast_statistics, "MAX_BLOCKS", 1)
    monkeypatch.setattr(contrast_statistics, "TARGET_PROGRAMS", 1)
    monkeypatch.setattr(contrast_statistics, "MANY_PROGRAMS", 1)
    monkeypatch.setattr(chunked, "WORKSPACE", 1)
    monkeypatch.setattr(chunked, "MIN_ROWS", 29)
    for features in (FUSED, CHUNKED):
        contrast = problem(name, features, torch.float32, device)
        assert_within_budget(at_once(contrast, 0.25), contrast, uniform(contrast, 0.25))
        upstream = upstream_of(contrast, signed=True)
        assert_within_budget(in_two(contrast, upstream), contrast, upstream)


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_same_bits_again(features: int, dtype: torch.dtype, device: torch.device) -> None:
    needs(dtype, device)
    for name in ("symmetric", "index"):
        contrast = problem(name, features, dtype, device)
        first, second = (at_once(contrast, 0.3) for _ in range(2))
        assert all(torch.equal(first[key], second[key]) for key in first)
        upstream = upstream_of(contrast, signed=True)
        first, second = (in_two(contrast, upstream) for _ in range(2))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("features", WAYS)
def test_strided_features(features: int, device: torch.device) -> None:
    contrast = problem("symmetric", features, torch.float32, device)
    wide = torch.full((70, 2 * features + 3), torch.nan, device=device)
    wide[:, 2 : 2 + features] = contrast.query
    turned = contrast.key.T.contiguous().T
    strided = replace(contrast, query=wide[:, 2 : 2 + features], key=turned)
    assert not strided.query.is_contiguous()
    ours, straight = at_once(strided, 1.0), at_once(contrast, 1.0)
    assert all(torch.equal(ours[key], straight[key]) for key in ours)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.float64], ids=str)
def test_kinds_of_labels(kind: torch.dtype, device: torch.device) -> None:
    contrast = problem("labels", FUSED, torch.float32, device)
    labels = tuple((x % 2).to(kind) for x in contrast.labels)
    contrast = replace(contrast, labels=labels)
    assert_within_budget(at_once(contrast, 1.0), contrast, uniform(contrast, 1.0))


@pytest.mark.parametrize("features", WAYS)
def test_nothing_wanted_costs_nothing(
    features: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a gradient was computed")

    for name in ("fused.contrast_gradient_bwd", "chunked.scores_weights_bwd",
                 "fused.contrast_one_pass_fwd"):  # fmt: skip
        monkeypatch.setattr(f"mmcl_fast.losses.triton_backend.{name}", refuse)
    contrast = problem("symmetric", features, torch.float32, device)
    done = contrast_forward(contrast, Requested(), 1.0)
    assert done.gradients is None
    assert_within_budget({"losses": done.losses}, contrast, uniform(contrast, 1.0))


@pytest.mark.interpreter
@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("name", ["symmetric", "own", "everything"])
def test_reads_only_what_was_written(name: str, features: int) -> None:
    contrast = problem(name, features, torch.float32, torch.device("cpu"))
    upstream = upstream_of(contrast, signed=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)  # fresh memory is NaN
    try:
        assert torch.empty(1).isnan()
        ours = at_once(contrast, 1.0), in_two(contrast, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for found in ours for x in found.values())
