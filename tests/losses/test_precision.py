"""Rounding where it shows: gradients of half features near an optimum, and very large logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast import losses, reference

EITHER_WAY = pytest.mark.usefixtures("_either_way")


def relative(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


LABELS = torch.arange(64) // 4
Formula = Callable[..., Tensor]
SUMS: dict[str, Formula] = {
    "smoothed": lambda m, x, y: m.info_nce(
        x, y, temperature=0.1, symmetric=True, label_smoothing=0.1
    ),
    "smoothed_one_way": lambda m, x, y: m.info_nce(x, y, temperature=0.1, label_smoothing=0.1),
    "sup_con": lambda m, x, y: m.sup_con(torch.cat([x, y]), LABELS.repeat(2), temperature=0.2),
    "sup_con_keys": lambda m, x, y: m.sup_con(x, LABELS, key=y, temperature=0.2),
    "several_positives": lambda m, x, y: m.info_nce(
        x, y, positive_mask=LABELS[:, None] == LABELS, temperature=0.2
    ),
}


def trained(loss: Formula) -> list[Tensor]:
    """Features near an optimum, where the parts of a gradient nearly cancel."""
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(64, 32, generator=generator).double().requires_grad_() for _ in range(2)]
    optimizer = torch.optim.Adam(x, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(reference, *(normalize(z, dim=1) for z in x)).backward()
        optimizer.step()
    return [normalize(z, dim=1).detach() for z in x]


@EITHER_WAY
@pytest.mark.parametrize("name", SUMS)
def test_parts_of_a_half_gradient_are_added_before_they_are_rounded(name: str) -> None:
    state = trained(SUMS[name])
    for half in (torch.bfloat16, torch.float16):
        rounded = [z.to(half).requires_grad_() for z in state]
        wide = [z.detach().double().requires_grad_() for z in rounded]
        mine = torch.autograd.grad(SUMS[name](losses, *rounded), rounded)
        exact = torch.autograd.grad(SUMS[name](reference, *wide), wide)
        single = [z.detach().float().requires_grad_() for z in rounded]
        plain = torch.autograd.grad(SUMS[name](reference, *single), single)
        for found, other, expected in zip(mine, plain, exact, strict=True):
            budget = 2 * relative(other.to(half), expected)
            assert budget < 2 * torch.finfo(half).eps  # one rounding
            assert relative(found, expected) <= budget


@EITHER_WAY
def test_a_single_temperature_of_double_features() -> None:
    x, y = (torch.randn(12, 5).double() for _ in range(2))
    t = torch.tensor(0.3, requires_grad=True)
    (found,) = torch.autograd.grad(losses.info_nce(x, y, temperature=t, label_smoothing=1.0), t)
    wide = t.detach().double().requires_grad_()
    loss = reference.info_nce(x, y, temperature=wide, label_smoothing=1.0)
    (exact,) = torch.autograd.grad(loss, wide)
    assert abs(found.double() - exact) <= torch.finfo(torch.float32).eps * abs(exact)


LARGE: dict[str, Formula] = {
    "nt_xent": lambda m, x, y: m.nt_xent(x, y, temperature=1e-5),
    "dcl": lambda m, x, y: m.dcl(x, y, temperature=1e-5),
    "sup_con": lambda m, x, y: m.sup_con(torch.cat([x, y]), LABELS.repeat(2), temperature=1e-5),
    "symmetric": lambda m, x, y: m.info_nce(x, y, temperature=1e-5, symmetric=True),
}


@EITHER_WAY
@pytest.mark.parametrize("name", LARGE)
def test_one_rounding_of_a_score_serves_both_its_rows(name: str) -> None:
    # The largest logits are 1e5: a score's rounding is 4e-3, more than any probability may be off.
    generator = torch.Generator().manual_seed(1)
    x, y = (normalize(torch.randn(64, 48, generator=generator), dim=1) for _ in range(2))
    mine, plain, exact = (
        torch.autograd.grad(LARGE[name](m, *z), z)
        for m, z in (
            (losses, [x.clone().requires_grad_(), y.clone().requires_grad_()]),
            (reference, [x.clone().requires_grad_(), y.clone().requires_grad_()]),
            (reference, [x.double().requires_grad_(), y.double().requires_grad_()]),
        )
    )
    for found, other, expected in zip(mine, plain, exact, strict=True):
        assert relative(found, expected) <= 2 * (relative(other, expected) + 1.2e-7)
