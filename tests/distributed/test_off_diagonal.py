"""Tiles without positives: against dense scores, over several blocks and in every order of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from mmcl_fast.distributed.off_diagonal import (
    remote_gradients,
    remote_sigmoid,
    remote_statistics,
)
from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.torch_backend import score_blocks
from tests.support.budget import assert_within_budget


@dataclass(frozen=True)
class Case:
    id: str
    n: int
    m: int
    d: int
    why: str
    classes: int = 0
    dtype: torch.dtype = torch.float32


CASES = [
    Case("ragged", 37, 61, 19, "no multiple of anything"),
    Case("few_keys", 40, 3, 8, "M < N"),
    Case("chunks", 300, 9000, 8, "several blocks, columns merged over them"),
    Case("three_labels", 40, 55, 8, "masked", classes=3),
    Case("halves", 40, 55, 8, "rows sorted by label on both sides", classes=2),
    Case("one_label", 12, 15, 8, "no negative at all", classes=1),
    Case("bfloat16", 37, 61, 40, "sums in float32", dtype=torch.bfloat16),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


def contrast_of(case: Case) -> Contrast:
    g = torch.Generator().manual_seed(3)
    x, y = (normalize(torch.randn(k, case.d, generator=g)) for k in (case.n, case.m))
    labels = None
    if case.classes:
        labels = tuple(torch.randint(0, case.classes, (k,), generator=g) for k in (case.n, case.m))
    temperature = torch.tensor(0.2)
    x, y = x.to(case.dtype), y.to(case.dtype)
    return Contrast(x, y, temperature, labels=labels, symmetric=True)


def dense(contrast: Contrast, x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
    """Scores [N, M] in the dtype of `x`, -inf where there is no negative."""
    found = x @ y.T / temperature
    if contrast.labels is None:
        return found
    own, other = contrast.labels
    return found.masked_fill(own[:, None] == other[None, :], -torch.inf)


def inputs(contrast: Contrast, dtype: torch.dtype) -> list[Tensor]:
    assert contrast.key is not None
    tensors = (contrast.query, contrast.key, contrast.temperature)
    return [x.detach().to(dtype).requires_grad_() for x in tensors]


@cases
@pytest.mark.parametrize("symmetric", [False, True])
def test_statistics(case: Case, symmetric: bool) -> None:
    contrast = replace(contrast_of(case), symmetric=symmetric)
    rows, columns = remote_statistics(contrast)
    assert (columns is not None) is symmetric
    exact, plain = (
        dense(contrast, *inputs(contrast, dtype)).detach()
        for dtype in (torch.float64, torch.float32)
    )
    for dim, side in enumerate([rows] if columns is None else [rows, columns]):
        top, total = side
        found = (exact > -torch.inf).any(dim=1 - dim)
        assert (total[~found] == 0).all()
        assert torch.isfinite(top).all()
        ours = (top + torch.log2(total)) * math.log(2)
        assert_within_budget(
            {"sum": ours[found]},
            plain={"sum": plain.logsumexp(dim=1 - dim)[found]},
            exact={"sum": exact.logsumexp(dim=1 - dim)[found]},
        )


@cases
@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients(case: Case, symmetric: bool) -> None:
    contrast = replace(contrast_of(case), symmetric=symmetric)
    g = torch.Generator().manual_seed(4)
    weights = torch.rand(case.n, generator=g), torch.rand(case.m, generator=g)
    sides = remote_statistics(contrast)
    pairs = [
        (top, torch.where(total > 0, weight / total, 0.0))
        for (top, total), weight in zip([s for s in sides if s], weights, strict=False)
    ]
    wanted = Requested(query=True, key=True, temperature=True)
    found = remote_gradients(contrast, wanted, pairs[0], pairs[1] if symmetric else None)
    assert found.temperature is not None
    ours = {"query": found.query, "key": found.key, "temperature": found.temperature.sum()}
    others = []
    for dtype in (torch.float32, torch.float64):
        leaves = inputs(contrast, dtype)
        table = dense(contrast, *leaves)
        loss = table.new_zeros(())
        for dim in range(2 if symmetric else 1):
            sums = table.logsumexp(dim=1 - dim)
            alive = sums > -torch.inf
            loss = loss + (weights[dim].to(dtype)[alive] * sums[alive]).sum()
        grads = torch.autograd.grad(loss, leaves)
        others.append(dict(zip(ours, (x.nan_to_num() for x in grads), strict=True)))
    terms = {"temperature": float(weights[0].sum() + weights[1].sum()) / 0.2**2}
    assert_within_budget(ours, plain=others[0], exact=others[1], terms=terms)


@pytest.mark.parametrize("case", [c for c in CASES if not c.classes], ids=lambda c: c.id)
def test_sigmoid(case: Case) -> None:
    contrast = replace(contrast_of(case), symmetric=False, form="sigmoid", bias=torch.tensor(-1.5))
    wanted = Requested(query=True, key=True, temperature=True, bias=True)
    losses, found = remote_sigmoid(contrast, wanted, 0.3)
    assert found.temperature is not None
    assert found.bias is not None
    ours = {
        "value": losses,
        "query": found.query,
        "key": found.key,
        "temperature": found.temperature.sum(),
        "bias": found.bias.sum(),
    }
    others = []
    for dtype in (torch.float32, torch.float64):
        leaves = [*inputs(contrast, dtype), torch.tensor(-1.5, dtype=dtype).requires_grad_()]
        value = softplus(dense(contrast, *leaves[:3]) + leaves[3]).sum(dim=1)
        grads = torch.autograd.grad(0.3 * value.sum(), leaves)
        others.append(dict(zip(ours, [value.detach(), *grads], strict=True)))
    terms = {"temperature": 0.3 * case.n * case.m / 0.2**2}
    assert_within_budget(ours, plain=others[0], exact=others[1], terms=terms)
    alone, none = remote_sigmoid(contrast, Requested(), 0.3)
    assert torch.equal(alone, losses)
    assert all(x is None for x in none)


def test_chunks_has_several_blocks() -> None:
    case = CASES[2]
    assert len(range(0, case.n, score_blocks.chunk_rows(case.n, case.m))) > 1
