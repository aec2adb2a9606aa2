"""Rows for comparisons with other libraries, and the comparison."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.support.budget import value_and_grads

N, M, D = 70, 11, 20
T = 0.2
Loss = Callable[..., Tensor]


def inputs(*names: str, unit: bool = False) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(23)
    shapes = {"x": (N, D), "y": (N, D), "shared": (M, D), "paired": (N, 3, D), "views": (12, 3, D)}
    drawn = {k: torch.randn(s, dtype=torch.float64, generator=g) for k, s in shapes.items()}
    drawn = {k: normalize(v, dim=-1) if unit else v for k, v in drawn.items()}
    drawn["scale"] = torch.tensor(7.0, dtype=torch.float64)
    drawn["bias"] = torch.tensor(-3.0, dtype=torch.float64)
    return {name: drawn[name] for name in names}


def assert_same(ours: Loss, theirs: Loss, tensors: dict[str, Tensor]) -> None:
    upstream = torch.tensor(0.7, dtype=torch.float64)
    found, expected = (value_and_grads(loss, tensors, upstream) for loss in (ours, theirs))
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
