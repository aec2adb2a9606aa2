"""The functions of docs/howto/loss_recipes.md against dense formulas, value and gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from tests.support.budget import value_and_grads

PAGE = Path(__file__).parents[2] / "docs/howto/loss_recipes.md"
N, D, T = 13, 6, 0.3
G = torch.Generator().manual_seed(41)
X, Y, MEMORY = torch.randn(3, N, D, dtype=torch.float64, generator=G)
LABELS, MEMORY_LABELS = torch.randint(0, 4, (2, N), generator=G)
GUIDE = torch.randn(2, N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(42))
LOG_Q = torch.rand(N, dtype=torch.float64, generator=G).log()
PAIRS = torch.tensor([0, 0, 5, 7]), torch.tensor([1, 2, 6, 3])
DIAGONAL, EYE = torch.arange(N), torch.eye(N, dtype=torch.bool)
WIDTHS = [2, 4, 6]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    space: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code, space)
    return space


def four_directions(x: Tensor, y: Tensor) -> Tensor:
    itself = torch.zeros(N, N, dtype=torch.float64).masked_fill(EYE, -torch.inf)
    scores = [x @ y.T / T, x @ x.T / T + itself, (x @ y.T).T / T, y @ y.T / T + itself]
    return (torch.cat(scores, dim=1).logsumexp(dim=1) - (x * y).sum(1) / T).mean()


def with_margin(x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy((x @ y.T - 0.4 * EYE.double()) / T, DIAGONAL)


def with_log_q(x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(x @ y.T / T - LOG_Q, DIAGONAL)


def with_guide(x: Tensor, y: Tensor) -> Tensor:
    guide = GUIDE[0] @ GUIDE[1].T
    false = guide > guide.diagonal()[:, None]
    return cross_entropy((x @ y.T / T).masked_fill(false, -torch.inf), DIAGONAL)


def distilled(x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(x @ y.T / T, (GUIDE[0] @ GUIDE[1].T / T).softmax(dim=1))


def with_memory(x: Tensor, y: Tensor) -> Tensor:
    key = torch.cat([x.detach(), y])
    scores = (x @ key.T / T).masked_fill(torch.eye(N, 2 * N, dtype=torch.bool), -torch.inf)
    positive = LABELS[:, None] == torch.cat([LABELS, MEMORY_LABELS])
    positive = positive & ~torch.eye(N, 2 * N, dtype=torch.bool)
    mean = (x @ key.T / T * positive).sum(1) / positive.sum(1)
    return (scores.logsumexp(1) - mean).mean()


def several_positives(x: Tensor, y: Tensor) -> Tensor:
    sign = (2 * EYE - 1.0).double().index_put(PAIRS, torch.tensor(1.0, dtype=torch.float64))
    return -logsigmoid(sign * (x @ y.T / T - 2.0)).sum() / N


def matryoshka(x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for width in WIDTHS:
        scores = normalize(x[:, :width], dim=1) @ normalize(y[:, :width], dim=1).T / T
        total = total + (cross_entropy(scores, DIAGONAL) + cross_entropy(scores.T, DIAGONAL)) / 2
    return total


RECIPES: dict[str, tuple[Callable[[Callable[..., Tensor]], Callable[..., Tensor]], Any]] = {
    "four_directions": (lambda f: lambda x, y: f(x, y, T), four_directions),
    "with_margin": (lambda f: lambda x, y: f(x, y, 0.4, T), with_margin),
    "with_log_q": (lambda f: lambda x, y: f(x, y, LOG_Q, T), with_log_q),
    "with_guide": (lambda f: lambda x, y: f(x, y, *GUIDE, T), with_guide),
    "distilled": (lambda f: lambda x, y: f(x, y, *GUIDE, T), distilled),
    "with_memory": (lambda f: lambda x, y: f(x, LABELS, y, MEMORY_LABELS, T), with_memory),
    "several_positives": (lambda f: lambda x, y: f(x, y, PAIRS, T, -2.0), several_positives),
    "matryoshka": (lambda f: lambda x, y: f(x, y, WIDTHS, T), matryoshka),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_dense_formula(name: str, page: dict[str, Any]) -> None:
    call, dense = RECIPES[name]
    tensors = {"x": X, "y": Y}
    found, expected = (value_and_grads(f, tensors) for f in (call(page[name]), dense))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-12)


def test_every_recipe_of_the_page_is_tested(page: dict[str, Any]) -> None:
    written = {name for name in page if f"def {name}(" in PAGE.read_text()}
    assert written == set(RECIPES)
