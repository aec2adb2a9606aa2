"""Problems for the hand-written losses, and autograd of the reference on them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast import reference

TAU = 0.3


@dataclass(frozen=True)
class Case:
    id: str
    n: int
    m: int
    why: str
    size: float = 1.0
    positives: int | None = None


CASES = [
    Case("pair", 2, 1, "smallest problem: one negative each"),
    Case("ragged", 13, 5, "nothing is a multiple of anything"),
    Case("paper_width", 40, 50, "m > n"),
    Case("lonely_label", 17, 4, "a single sample of label +1", positives=1),
    Case("overflow", 13, 5, "scores near 1e4 overflow a naive exp", size=60.0),
    Case("tiny", 13, 5, "scores near 0: every weight is uniform", size=1e-6),
]


def problem(case: Case, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Labels [n] and, for query, key and positive, signal [2, m] and noise [n, m] features."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.ones(case.n, dtype=torch.float64)
    labels[case.positives or (case.n + 1) // 2 :] = -1
    labels = labels[torch.randperm(case.n, generator=rng)]

    def draw(rows: int) -> Tensor:
        z = torch.randn(rows, case.m, dtype=torch.float64, generator=rng)
        return torch.relu(z) * case.size

    return labels, [t for _ in range(3) for t in (draw(2), draw(case.n))]


def dense(labels: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Features [n, 2 m] as the reference wants them."""
    return torch.cat([signal[(labels < 0).long()], noise], dim=1)


def by_autograd(labels: Tensor, tensors: list[Tensor], negatives: Tensor) -> tuple[Tensor, ...]:
    qs, qn, ks, kn, ps, pn = tensors
    qs, qn = qs.clone().requires_grad_(), qn.clone().requires_grad_()
    query, key, positive = dense(labels, qs, qn), dense(labels, ks, kn), dense(labels, ps, pn)
    loss = reference.losses.contrastive_terms(
        reference.paired_similarity(query, positive) / TAU,
        reference.similarity(query, key) / TAU,
        negatives,
    ).mean()
    return loss.detach(), *torch.autograd.grad(loss, (qs, qn))
