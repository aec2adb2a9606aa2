"""Equations (6) and (9), written out sample by sample, against the one-line calls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmcl_fast.losses import info_nce
from mmcl_fast.reference.losses import multi_modal_loss, other_label, single_modal_loss

N, WIDTH, TAU = 14, 5, 0.3


def features(seed: int) -> Tensor:
    """Non-negative features of two patches, [N, 2 m], as ReLU gives."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, 2 * WIDTH, dtype=torch.float64, generator=generator).relu()


def similarity(query: list[float], key: list[float]) -> float:
    signal = sum(a * b for a, b in zip(query[:WIDTH], key[:WIDTH], strict=True))
    noise = sum(a * b for a, b in zip(query[WIDTH:], key[WIDTH:], strict=True))
    return (signal + noise) / WIDTH


def contrast(query: Tensor, positive: Tensor, key: Tensor, labels: Tensor) -> float:
    """Mean over i of the loss of i; negatives are the samples of the other label."""
    q, p, k, y = query.tolist(), positive.tolist(), key.tolist(), labels.tolist()
    total = 0.0
    for i in range(N):
        top = math.exp(similarity(q[i], p[i]) / TAU)
        rest = sum(math.exp(similarity(q[i], k[j]) / TAU) for j in range(N) if y[j] != y[i])
        total += -math.log(top / (top + rest))
    return total / N


def numeric_gradient(function, at: Tensor, step: float = 1e-6) -> Tensor:  # type: ignore[no-untyped-def]
    """Central differences of `function` at `at`."""
    gradient = torch.zeros_like(at)
    for index in range(at.numel()):
        shift = torch.zeros_like(at)
        shift.view(-1)[index] = step
        gradient.view(-1)[index] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([1, -1, 1, 1, -1, -1, 1, -1, 1, 1, 1, -1, 1, -1])


def test_single_modal_is_equation_6(labels: Tensor) -> None:
    h, h_augmented = features(1).requires_grad_(), features(2).requires_grad_()
    loss = info_nce(
        h,
        h,
        positive_key=h_augmented,
        labels=labels,
        negatives="other_label",
        stop_gradient="key",
        temperature=WIDTH * TAU,
    )
    loss.backward()
    assert loss.item() == pytest.approx(contrast(h, h_augmented, h, labels), rel=1e-13)
    # sg: the second argument is held while the first moves.
    held, augmented = h.detach(), h_augmented.detach()
    expected = numeric_gradient(lambda x: contrast(x, augmented, held, labels), held)
    torch.testing.assert_close(h.grad, expected, rtol=1e-6, atol=1e-9)
    assert h_augmented.grad is None
    reference = single_modal_loss(held, augmented, other_label(labels), TAU)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-13)


def test_multi_modal_is_equation_9(labels: Tensor) -> None:
    h, g = features(3).requires_grad_(), features(4).requires_grad_()
    loss = 2 * info_nce(
        h,
        g,
        symmetric=True,
        labels=labels,
        negatives="other_label",
        stop_gradient="key",
        temperature=WIDTH * TAU,
    )
    loss.backward()
    expected = contrast(h, g, g, labels) + contrast(g, h, h, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    a, b = h.detach(), g.detach()
    for tensor, other in ((h, b), (g, a)):
        moved = numeric_gradient(lambda x, o=other: contrast(x, o, o, labels), tensor.detach())
        torch.testing.assert_close(tensor.grad, moved, rtol=1e-6, atol=1e-9)
    reference = multi_modal_loss(a, b, other_label(labels), TAU)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-13)
