"""The measuring stick itself: against loops over samples, and by finite differences."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast.reference.contrastive import info_nce as reference

N, M, D = 5, 8, 3


def inputs(m: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(11)
    draw = {"query": N, "key": m, "positive_key": N}
    tensors = {k: torch.randn(n, D, dtype=torch.float64, generator=g) for k, n in draw.items()}
    return tensors | {"temperature": torch.tensor(0.6, dtype=torch.float64)}


def by_loops(tensors: dict[str, Tensor], labels: list[int], key_labels: list[int]) -> list[float]:
    """Losses of one direction; empty label lists make every key a negative."""
    q, k = tensors["query"].tolist(), tensors["key"].tolist()
    p = tensors["positive_key"].tolist() if "positive_key" in tensors else None
    t = tensors["temperature"].item()

    def score(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / t

    losses = []
    for i, row in enumerate(q):
        positive = score(row, k[i] if p is None else p[i])
        rest = 0.0
        for j, other in enumerate(k):
            is_positive = p is None and i == j
            same_label = bool(labels) and labels[i] == key_labels[j]
            if not is_positive and not same_label:
                rest += math.exp(score(row, other))
        losses.append(-math.log(math.exp(positive) / (math.exp(positive) + rest)))
    return losses


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("shape", ["own", "positive_key", "symmetric"])
def test_value_is_the_formula(shape: str, *, with_labels: bool) -> None:
    tensors = inputs(N if shape == "symmetric" else M)
    if shape != "positive_key":
        del tensors["positive_key"]
    options: dict[str, Any] = {"symmetric": shape == "symmetric", "reduction": "none"}
    own, other = [0, 1, 2, 0, 1], [0, 0, 1, 2, 1, 1, 0, 2][: len(tensors["key"])]
    if with_labels:
        options |= {"labels": torch.tensor(own), "key_labels": torch.tensor(other)}
        options |= {"negatives": "other_label"}
    else:
        own, other = [], []
    expected = by_loops(tensors, own, other)
    if shape == "symmetric":
        mirror = tensors | {"query": tensors["key"], "key": tensors["query"]}
        pairs = zip(expected, by_loops(mirror, other, own), strict=True)
        expected = [(a + b) / 2 for a, b in pairs]
    losses = reference(**tensors, **options)
    assert losses.tolist() == pytest.approx(expected, rel=1e-13)
    options["reduction"] = "sum"
    assert reference(**tensors, **options).item() == pytest.approx(sum(expected), rel=1e-13)
    options["reduction"] = "mean"
    assert reference(**tensors, **options).item() == pytest.approx(sum(expected) / N, rel=1e-13)


@pytest.mark.parametrize(("shape", "reduction"), [
    *itertools.product(["own", "positive_key", "symmetric"], ["none"]), ("own", "mean"),
])  # fmt: skip
def test_gradcheck(shape: str, reduction: str) -> None:
    tensors = inputs(N if shape == "symmetric" else M)
    if shape != "positive_key":
        del tensors["positive_key"]
    names = list(tensors)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    options = {"symmetric": shape == "symmetric", "reduction": reduction}
    options |= {"labels": torch.tensor([0, 1, 2, 0, 1]), "negatives": "other_label"}
    options |= {"key_labels": torch.arange(len(tensors["key"])) % 3}

    def loss(*values: Tensor) -> Tensor:
        return reference(**dict(zip(names, values, strict=True)), **options)

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


@pytest.mark.parametrize("symmetric", [False, True])
def test_stopped_keys_are_constants(*, symmetric: bool) -> None:
    tensors = inputs(N)
    q, k = tensors["query"].requires_grad_(), tensors["key"].requires_grad_()
    t = tensors["temperature"]
    reference(q, k, temperature=t, symmetric=symmetric, stop_gradient="key").backward()
    expected = reference(q, k.detach(), temperature=t)
    weight = 0.5 if symmetric else 1.0
    (moved,) = torch.autograd.grad(weight * expected, q)
    torch.testing.assert_close(q.grad, moved, rtol=1e-12, atol=1e-14)
    if symmetric:
        (moved,) = torch.autograd.grad(weight * reference(k, q.detach(), temperature=t), k)
        torch.testing.assert_close(k.grad, moved, rtol=1e-12, atol=1e-14)
    else:
        assert k.grad is None


def test_dtype_is_kept() -> None:
    x = torch.randn(4, 3).half()
    assert reference(x, x).dtype == torch.float16
    assert reference(x.double(), x.double()).dtype == torch.float64
