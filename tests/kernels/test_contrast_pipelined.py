"""Long features whose scores are never stored, against the dense float64 evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mmcl_fast.kernels import contrast_products
from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.triton_backend import chunked, contrastive, pipelined
from mmcl_fast.losses.triton_backend.policy import Policy, using
from mmcl_fast.losses.triton_backend.problem import KernelInputs

from .contrast_problems import (
    BY_ID,
    CHUNKED,
    Case,
    assert_within_budget,
    at_once,
    in_two,
    problem,
    uniform,
)

DTYPES = [torch.float16, torch.bfloat16]
TAKEN = [BY_ID[x] for x in ("symmetric", "labels", "own", "index", "everything", "extra")]


@pytest.fixture(autouse=True)
def _policy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pipelined, "MAX_KEPT", 0)
    monkeypatch.setattr(contrast_products, "PROGRAMS", 2)  # each takes several tiles
    monkeypatch.setattr(contrast_products, "_GROUP", 2)  # of three blocks: the last has one
    with using(Policy(pipelined=True)):
        yield


def needs(dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16 products")


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("scores were stored")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.id)
def test_losses_and_gradients(
    case: Case, dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(dtype, device)
    contrast = problem(case.id, CHUNKED, dtype, device)
    for name in ("scores_statistics_fwd", "scores_weights_bwd"):
        monkeypatch.setattr(chunked, name, refuse)
    upstream = uniform(contrast, 1.0)
    upstream[::3] = 0.25
    assert_within_budget(in_two(contrast, upstream), contrast, upstream)
    if contrast.symmetric or contrast.key is None:  # one way keeps the scores of a chunk
        assert_within_budget(at_once(contrast, 1e-5), contrast, uniform(contrast, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_chunks(
    dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(dtype, device)
    monkeypatch.setattr(chunked, "WORKSPACE", 1)
    monkeypatch.setattr(chunked, "MIN_ROWS", 29)
    contrast = problem("symmetric", CHUNKED, dtype, device)
    assert_within_budget(at_once(contrast, 0.25), contrast, uniform(contrast, 0.25))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_which_program_takes_a_tile_changes_no_bit(
    dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(dtype, device)
    contrast = problem("symmetric", CHUNKED, dtype, device)
    few = at_once(contrast, 1.0)
    monkeypatch.setattr(contrast_products, "PROGRAMS", 7)
    many = at_once(contrast, 1.0)
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_features_that_a_descriptor_cannot_describe(device: torch.device) -> None:
    contrast = problem("symmetric", CHUNKED, torch.float32, device)
    for given, reason in (
        (contrast, "query: expected dtype float16 or bfloat16, got torch.float32"),
        (replace(contrast, query=contrast.query.half()[:, :-1].contiguous()),
         "query: expected rows at multiples of 16 bytes, got others"),
    ):  # fmt: skip
        query, key = given.query, given.key
        with pytest.raises(ValueError, match=reason):
            contrast_products.product_statistics_fwd(
                query, key, KernelInputs.of(given).pairs, columns=True
            )
    # They run, as before.
    assert_within_budget(at_once(contrast, 1.0), contrast, uniform(contrast, 1.0))


def test_sizes_alone_choose_the_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "MAX_KEPT", chunked.MAX_KEPT)

    def chosen(n: int, d: int, arch: str = "sm_90", dtype: torch.dtype = torch.bfloat16) -> str:
        for module in (contrastive, contrast_products):
            monkeypatch.setattr(module, "arch_of", lambda *_: arch)
        # One row in memory stands for all.
        x = torch.as_strided(torch.empty(d, dtype=dtype), (n, d), (0, 1))
        inputs = KernelInputs.of(Contrast(x, x, torch.tensor(1.0), symmetric=True))
        return type(contrastive.algorithm_for(inputs)).__name__

    assert [chosen(n, 768) for n in (16384, 23170, 23171)] == ["Chunked", "Chunked", "Pipelined"]
    assert chosen(32768, 256) == "Fused"
    assert chosen(32768, 768, "sm_80") == "Chunked"
    assert chosen(32768, 768, dtype=torch.float32) == "Chunked"
    with using(Policy()):
        assert chosen(32768, 768) == "Chunked"
