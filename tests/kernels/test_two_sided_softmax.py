"""Both softmaxes of a block of scores against float64, in the interpreter and on a GPU."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from mmcl_fast.kernels.two_sided_softmax import SoftmaxSums, two_sided_bwd, two_sided_fwd

from . import aot, two_sided_softmax_aot

EPS = torch.finfo(torch.float32).eps
SIZES = [
    pytest.param(64, 96, id="whole_tiles"),
    pytest.param(70, 135, id="ragged"),
    pytest.param(1, 50, id="one_row"),
    pytest.param(50, 1, id="one_column"),
]


def scores_of(n: int, m: int, device: torch.device, size: float = 3.0) -> Tensor:
    drawn = torch.randn(n, m, generator=torch.Generator().manual_seed(n + m))
    return (size * drawn).to(device)


def assert_sums(found: SoftmaxSums, scores: Tensor, factor: float, dim: int) -> None:
    """Tops are the largest scores as float32 has them, totals those of float64."""
    x = scores.double() * factor
    assert torch.equal(found.max_score, (scores * factor).amax(dim))
    exact = torch.logsumexp(x * math.log(2.0), dim) / math.log(2.0)
    # A score's rounding changes 2^x by the same share of x; sums add a few roundings.
    budget = EPS * (x.abs().amax(dim) + 4)
    assert (
        ((found.max_score.double() + found.exp_sum.double().log2()) - exact).abs().le(budget).all()
    )
    assert (found.exp_sum >= 1).all()


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_statistics(n: int, m: int, device: torch.device) -> None:
    scores = scores_of(n, m, device)
    rows, columns = two_sided_fwd(scores, scores.shape[1], 1.7, columns=True)
    assert columns is not None
    assert_sums(rows, scores, 1.7, 1)
    assert_sums(columns, scores, 1.7, 0)
    alone, none = two_sided_fwd(scores, scores.shape[1], 1.7, columns=False)
    assert none is None
    assert torch.equal(alone.exp_sum, rows.exp_sum)


@pytest.mark.parametrize("size", [0.0, 1e4, 1e30], ids=["all_equal", "huge", "far_apart"])
def test_scores_of_any_size(size: float, device: torch.device) -> None:
    scores = scores_of(40, 70, device, size)
    rows, columns = two_sided_fwd(scores, scores.shape[1], -0.5, columns=True)
    assert columns is not None
    for found, dim in ((rows, 1), (columns, 0)):
        assert found.exp_sum.isfinite().all()
        assert torch.equal(found.max_score, (scores * -0.5).amax(dim))
        if not size:
            assert (found.exp_sum == scores.shape[dim]).all()
        else:
            assert_sums(found, scores, -0.5, dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_weights(n: int, m: int, dtype: torch.dtype, device: torch.device) -> None:
    scores = scores_of(n, m, device)
    tops = (scores * 1.7).amax(1), (scores * 1.7).amax(0)
    # Rows longer than the block: what follows them is somebody else's.
    wide = torch.full((2, n, m + 5), 7.0, dtype=dtype, device=device)
    weights = wide[0, :, :m], wide[1, :, :m]
    two_sided_bwd(scores, scores.shape[1], 1.7, tops, weights)
    x = scores.double() * 1.7
    eps = torch.finfo(dtype).eps / 2 + EPS * (2 * x.abs().amax() + 4)
    smallest = 0.0 if dtype != torch.float16 else 2.0**-25
    for found, top in zip(weights, (tops[0][:, None], tops[1]), strict=True):
        exact = torch.exp2(x - top)
        assert (found.double() - exact).abs().le(eps * exact + smallest).all()
        assert ((found >= 0) & (found <= 1)).all()
    assert (wide[:, :, m:] == 7.0).all()


def test_weights_of_rows_alone_in_place(device: torch.device) -> None:
    scores = scores_of(70, 135, device)
    top, _ = two_sided_fwd(scores, scores.shape[1], 1.0, columns=False)
    apart = torch.empty_like(scores)
    two_sided_bwd(scores, scores.shape[1], 1.0, (top.max_score, None), (apart, None))
    two_sided_bwd(scores, scores.shape[1], 1.0, (top.max_score, None), (scores, None))
    assert torch.equal(scores, apart)


def test_padded_rows(device: torch.device) -> None:
    wide = torch.full((40, 80), torch.nan, device=device)
    wide[:, :70] = scores_of(40, 70, device)
    found = two_sided_fwd(wide, 70, 1.0, columns=True)
    straight = two_sided_fwd(wide[:, :70].contiguous(), 70, 1.0, columns=True)
    for dim, one, other in zip((1, 0), found, straight, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one.max_score, other.max_score)
        # Whole vectors are added in another order than numbers one by one.
        assert (one.exp_sum - other.exp_sum).abs().le(8 * EPS * other.exp_sum).all()
        assert_sums(one, wide[:, :70], 1.0, dim)
    tops = (straight[0].max_score, straight[1].max_score if straight[1] else None)
    weights = torch.full((2, 40, 80), torch.nan, device=device)
    two_sided_bwd(wide, 70, 1.0, tops, (weights[0], weights[1]))
    assert (weights[:, :, 70:] == 0).all()
    assert (weights[:, :, :70].amax(2)[0] == 1).all()
    assert (weights[:, :, :70].amax(1)[1] == 1).all()


@pytest.mark.parametrize("case", aot.by_lane(two_sided_softmax_aot.CASES), ids=lambda case: case.id)
def test_streams_whole_vectors(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0
    assert needs.shared <= aot.SHARED_LIMIT[case.arch]
    found = aot.compiled(case).asm
    assert aot.narrow_offsets(found["ttir"]) == []
    assert re.search(r"ld\.global\S*\.v4\.b32", found["ptx"])
    assert "atom" not in found["ptx"]
