"""Logistic problems: the shapes and scales that the head must solve, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    id: str
    n: int
    p: int
    why: str
    batch: int = 3
    gap: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    rank: int | None = None
    relu: bool = True
    tied: bool = False
    sklearn_can: bool = True


CASES = [
    Case("figure_1", 100, 50, "the shape that the experiments fit; separable"),
    Case("overlapping", 100, 10, "not separable: weights from many samples", gap=0.2),
    Case("initial", 100, 50, "features at initialisation; weights near 0", scale=1e-3),
    Case("one_feature", 40, 1, "smallest p", gap=0.5),
    Case("two_samples", 2, 3, "smallest n, dual form", relu=False),
    Case("square", 20, 20, "largest p of the primal form"),
    Case("dual_edge", 20, 21, "smallest p of the dual form"),
    Case("wide", 30, 300, "dual form"),
    Case("wide_initial", 30, 300, "dual form with vanishing kernel", scale=1e-3),
    Case("huge", 100, 50, "saturated probabilities; 22 steps", scale=1e3, relu=False),
    Case("rank_2", 100, 50, "singular Hessian without the penalty", rank=2, scale=1e3, relu=False),
    Case("tied_columns", 60, 12, "equal and all-zero columns", tied=True),
    # scikit-learn's Newton gives up on these (LinAlgWarning), so only optimality is checked.
    Case("huge_wide", 30, 300, "dual form, kernel 3e8", scale=1e3, relu=False, sklearn_can=False),
    Case("offset", 100, 50, "mean far above the spread", offset=1e3, sklearn_can=False),
    Case("enormous", 100, 50, "rounding exceeds l2", scale=1e9, relu=False, sklearn_can=False),
    Case("enormous_rank_2", 100, 50, "the same, singular", rank=2, scale=1e9, sklearn_can=False),
    Case("tiny", 100, 50, "squares near underflow", scale=1e-150, sklearn_can=False),
]


def make(case: Case, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.where(torch.rand(case.batch, case.n, generator=generator) < 0.4, 1.0, -1.0)
    labels[:, 0], labels[:, 1] = 1.0, -1.0
    x = normal(case.batch, case.n, case.p)
    if case.rank is not None:
        x = x[:, :, : case.rank] @ normal(case.batch, case.rank, case.p)
    x = x + case.gap * labels[:, :, None] * normal(case.batch, 1, case.p)
    if case.relu:
        x = x.relu()
    if case.tied:
        x[:, :, 1], x[:, :, 2] = x[:, :, 0], 0.0
    return x * case.scale + case.offset, labels.to(torch.float64)
