"""The streaming Gram matrix against the explicit float64 product of the same numbers."""

from __future__ import annotations

import math

import pytest
import torch

from mmcl_fast import _native
from mmcl_fast.data import normal, streaming_gram

CASES = [
    (1, 1, (0, 0, 0)),  # degenerate
    (7, 300, (0, 0, 0)),  # less than one chunk
    (100, 30_011, (0, 0, 0)),  # thirty chunks, the last one ragged
    (33, 9_000, (2, 5, 1_234)),  # a box that starts inside a tile
]


@pytest.mark.parametrize(("samples", "dims", "start"), CASES)
def test_equals_the_explicit_product(samples: int, dims: int, start: tuple[int, int, int]) -> None:
    x = normal(5, "noise", (1, samples, dims), start, 3, 0.2)[0].double()
    got = streaming_gram(5, "noise", samples, dims, scale=0.2, start=start, epoch=3)
    assert got.dtype is torch.float64
    # A float32 sum of k terms errs like a random walk, sqrt(k) 2^-24 of its size; many partial
    # sums, as in the kernels, do better. A lost column would err by 1/dims, well above the limit.
    norms = x.norm(dim=1)
    terms = min(dims, 1024)  # of a chunk
    limit = math.sqrt(terms) * 2.0**-24 * torch.outer(norms, norms)
    assert ((got - x @ x.T).abs() <= limit).all()
    assert torch.equal(got, got.T)


@pytest.mark.parametrize("samples", [1, 3, 4, 5, 6, 7, 13])
def test_every_edge_of_a_block_on_every_target(samples: int, target: str) -> None:
    x = normal(8, shape=(1, samples, 1030), scale=0.5)[0].double()
    got = torch.full((samples, samples), torch.nan, dtype=torch.float64)
    _native.streaming_gram(
        got.numpy(),
        start=(0, 0, 0),
        dims=1030,
        seed=8,
        tag=1,
        epoch=0,
        scale=0.5,
        threads=1,
        target=target,
    )
    torch.testing.assert_close(got, x @ x.T, rtol=0, atol=1e-4)


def test_threads_change_nothing() -> None:
    one, two, three = (streaming_gram(5, "noise", 60, 50_000, threads=t) for t in (1, 2, 3))
    assert torch.equal(one, two)
    assert torch.equal(one, three)


def test_no_samples_or_dims() -> None:
    assert streaming_gram(1, "noise", 0, 10).shape == (0, 0)
    assert torch.equal(streaming_gram(1, "noise", 3, 0), torch.zeros(3, 3, dtype=torch.float64))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        streaming_gram(-1, "noise", 3, 3)
    with pytest.raises(ValueError, match=r"samples.*expected .* got -3"):
        streaming_gram(1, "noise", -3, 3)
    with pytest.raises(ValueError, match="threads: expected"):
        streaming_gram(1, "noise", 3, 3, threads=0)
