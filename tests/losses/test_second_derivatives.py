"""Derivatives of gradients, in every way that torch has to ask for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, functional, gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp

from mmcl_fast.losses import info_nce, nt_xent, second_derivatives
from tests.losses.loss_table import LOSSES, Loss, inputs
from tests.losses.test_info_nce_cost import Watch

# torch's own first use of forward mode, and of nested transforms
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
EVERY = pytest.mark.parametrize("name", LOSSES)


def along(loss: Loss, dtype: torch.dtype) -> list[Tensor]:
    """The Hessian's product with a fixed direction, by two reverse modes."""
    x = inputs(dtype)
    grads = torch.autograd.grad(
        loss(*x), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    direction = [torch.linspace(-1, 1, g.numel()).reshape(g.shape).to(dtype) for g in grads]
    product = sum((g * v).sum() for g, v in zip(grads, direction, strict=True))
    assert isinstance(product, Tensor)
    return list(torch.autograd.grad(product, x, allow_unused=True, materialize_grads=True))


@EVERY
def test_product_is_that_of_the_dense_formula(name: str) -> None:
    ours, dense = LOSSES[name]
    exact = along(dense, torch.float64)
    plain = along(dense, torch.float32)
    assert any(x.abs().max() > 1e-3 for x in exact)
    for mine, expected in zip(along(ours, torch.float64), exact, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-12)
    for mine, other, expected in zip(along(ours, torch.float32), plain, exact, strict=True):
        scale = expected.abs().max().item()
        budget = 2 * ((other.double() - expected).abs().max().item() + 1.2e-7 * scale)
        assert (mine.double() - expected).abs().max().item() <= budget


@EVERY
def test_gradgradcheck(name: str) -> None:
    x = inputs()
    if name not in ("stopped", "paper_6"):  # a stopped gradient is no derivative
        assert gradcheck(LOSSES[name].ours, x, check_batched_grad=True)
        assert gradgradcheck(LOSSES[name].ours, x, check_batched_grad=True)


HESSIANS: dict[str, Callable[..., Tensor]] = {
    "functional": lambda f, x: functional.hessian(f, x),
    "forward over reverse": lambda f, x: hessian(f)(x),
    "reverse over reverse": lambda f, x: jacrev(jacrev(f))(x),
}


@pytest.mark.parametrize("way", HESSIANS)
@EVERY
def test_hessian(name: str, way: str) -> None:
    x, y, t = inputs(grad=False)
    ours, dense = LOSSES[name]
    exact = functional.hessian(lambda q: dense(q, y, t), x)
    assert exact.abs().max() > 1e-3
    found = HESSIANS[way](lambda q: ours(q, y, t), x)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("product", [functional.hvp, functional.vhp])
@EVERY
def test_products_of_torch(name: str, product: Callable[..., tuple[Tensor, Tensor]]) -> None:
    x, y, t = inputs(grad=False)
    v = torch.linspace(-1, 1, x.numel()).reshape(x.shape).double()
    ours, dense = LOSSES[name]
    found = product(lambda q: ours(q, y, t), x, v)[1]
    exact = product(lambda q: dense(q, y, t), x, v)[1]
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@EVERY
def test_forward_mode(name: str) -> None:
    x, tangents = inputs(grad=False), [torch.full_like(z, 0.3) for z in inputs()]
    tangents[0] = tangents[0].detach() * torch.linspace(-1, 1, 6).double()
    ours, dense = LOSSES[name]
    value, found = jvp(ours, tuple(x), tuple(tangents))
    _, exact = jvp(dense, tuple(x), tuple(tangents))
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(value, ours(*x))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(z, v) for z, v in zip(x, tangents, strict=True)]
        found = forward_ad.unpack_dual(ours(*duals)).tangent
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)


def test_a_gradient_penalty_trains() -> None:
    x, y, t = inputs(torch.float32)
    (grad,) = torch.autograd.grad(info_nce(x, y, temperature=t), x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad is not None
    assert t.grad is not None
    assert x.grad.abs().max() > 0
    assert t.grad != 0


@pytest.mark.parametrize("name", ["one_way", "symmetric_rows", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_third_derivatives_are_refused(name: str, dtype: torch.dtype) -> None:
    x, y, t = inputs(dtype)

    def loss(q: Tensor) -> Tensor:
        return LOSSES[name].ours(q, y.detach(), t.detach())

    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    for unused in (False, True):
        with pytest.raises(RuntimeError, match="expected at most two differentiations"):
            torch.autograd.grad(second.sum(), x, retain_graph=True, allow_unused=unused)
    q = x.detach()
    for third in (jacrev(jacrev(jacrev(loss))), jacrev(hessian(loss)), jacfwd(hessian(loss))):
        with pytest.raises(RuntimeError, match="expected at most two differentiations"):
            third(q)


def test_forward_mode_of_forward_mode_is_refused() -> None:
    x, y, _ = inputs(grad=False)
    with pytest.raises(RuntimeError, match="the inner one in reverse mode"):
        jacfwd(jacfwd(lambda q: info_nce(q, y)))(x)


def test_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = along(LOSSES["more_negatives"].ours, torch.float64)
    monkeypatch.setattr(second_derivatives, "_BLOCK", 70)  # three or four rows
    for mine, expected in zip(
        along(LOSSES["more_negatives"].ours, torch.float64), whole, strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-13)


def test_no_tensor_is_as_large_as_the_scores() -> None:
    n = 2048
    x = torch.randn(n, 8, requires_grad=True)
    with Watch() as watch:
        (grad,) = torch.autograd.grad(nt_xent(x, x.detach() + 1), x, create_graph=True)
        torch.autograd.grad(grad.square().sum(), x)
    assert watch.largest <= 2**20 < (2 * n) ** 2 / 8
