"""What small batches take without operations of autograd: a scale, two views, their unit rows.

Value, gradients and second derivatives against the float64 formula, in which autograd records each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast import reference
from mmcl_fast.losses import (
    ClipLoss,
    DCLLoss,
    NTXentLoss,
    SigLipLoss,
    info_nce,
    nt_xent,
    sup_con,
)
from mmcl_fast.losses.torch_backend import dense

Loss = Callable[..., Tensor]


def _clip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return reference.info_nce(x, y, temperature=1 / scale, symmetric=True)


def _siglip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return reference.siglip(x, y, temperature=1 / scale, bias=bias)


def _unit(loss: Loss, temperature: float) -> Loss:
    def of_unit_rows(x: Tensor, y: Tensor, *others: Tensor) -> Tensor:
        return loss(normalize(x, dim=1), normalize(y, dim=1), temperature=temperature)

    return of_unit_rows


CASES: dict[str, tuple[Loss, Loss]] = {
    "ClipLoss": (lambda x, y, scale, bias: ClipLoss()(x, y, scale), _clip),
    "ClipLoss, the same features": (
        lambda x, y, scale, bias: ClipLoss()(x, x, scale),
        lambda x, y, scale, bias: _clip(x, x, scale, bias),
    ),
    "SigLipLoss": (lambda x, y, scale, bias: SigLipLoss()(x, y, scale, bias), _siglip),
    "nt_xent": (
        lambda x, y, *others: nt_xent(x, y, temperature=0.3),
        lambda x, y, *others: reference.nt_xent(x, y, temperature=0.3),
    ),
    "NTXentLoss": (
        lambda x, y, *others: NTXentLoss(0.3)(x, y), _unit(reference.nt_xent, 0.3)
    ),
    "NTXentLoss, one view twice": (
        lambda x, y, *others: NTXentLoss(0.3)(x, x),
        lambda x, y, *others: _unit(reference.nt_xent, 0.3)(x, x),
    ),
    "DCLLoss": (lambda x, y, *others: DCLLoss(0.3)(x, y), _unit(reference.dcl, 0.3)),
}  # fmt: skip


def make(dtype: torch.dtype) -> list[Tensor]:
    """Two views [9, 5], a scale of shape [1] and a bias."""
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 9, 5, generator=g)
    tensors = x, y, torch.tensor([1.7]), torch.tensor(-0.4)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def derivatives(loss: Loss, dtype: torch.dtype) -> list[Tensor]:
    """The value, the gradients, and the gradients of the gradients' squares."""
    inputs = make(dtype)
    ask: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    value = loss(*inputs)
    first = torch.autograd.grad(
        value, inputs, 1.5 * torch.ones_like(value), retain_graph=True, **ask
    )
    again = torch.autograd.grad(value, inputs, create_graph=True, **ask)
    penalty = torch.stack([gradient.square().sum() for gradient in again]).sum()
    second = torch.autograd.grad(penalty, inputs, **ask)
    return [value.detach(), *first, *(x.detach() for x in again), *second]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stored", [True, False], ids=["stored scores", "blocks"])
def test_derivatives(name: str, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not stored:
        monkeypatch.setattr(dense, "LIMIT", 0)
    ours, exact = CASES[name]
    # Float32 features of size 2 and scores of size 10: first and second derivatives of size 1.
    for mine, other in zip(
        derivatives(ours, torch.float32), derivatives(exact, torch.float64), strict=True
    ):
        torch.testing.assert_close(mine.double(), other.reshape(mine.shape), rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", CASES)
def test_one_node_of_autograd(name: str) -> None:
    inputs = make(torch.float32)
    inputs[2] = inputs[2].detach().reshape(()).requires_grad_()
    node = CASES[name][0](*inputs).grad_fn
    assert node is not None
    assert {type(child).__name__ for child, _ in node.next_functions if child is not None} == {
        "AccumulateGrad"
    }


def test_a_second_view_that_changed_in_place_is_noticed() -> None:
    x, y, *_ = make(torch.float32)
    second = y * 1
    loss = NTXentLoss()(x, second)
    second.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("view", [0, 1])
def test_one_view_alone_has_a_gradient(view: int) -> None:
    both = make(torch.float32)[:2]
    NTXentLoss()(*both).backward()
    alone = make(torch.float32)[:2]
    alone[1 - view].requires_grad_(False)
    NTXentLoss()(*alone).backward()
    expected, found = both[view].grad, alone[view].grad
    assert expected is not None
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert alone[1 - view].grad is None


def test_a_scale_of_another_dtype_is_differentiated_in_its_own() -> None:
    x, y, *_ = make(torch.float32)
    scale = torch.tensor(1.7, dtype=torch.bfloat16, requires_grad=True)
    ClipLoss()(x, y, scale).backward()
    wide = scale.detach().double().requires_grad_()
    _clip(x.double(), y.double(), wide, wide).backward()
    assert scale.grad is not None
    assert wide.grad is not None
    assert scale.grad.dtype == torch.bfloat16
    torch.testing.assert_close(scale.grad.double(), wide.grad, rtol=2**-8, atol=0)


ROWS = torch.arange(9)
CHANGING: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "row numbers": lambda x, y, at: info_nce(x, y, positive=at),
    "labels": lambda x, y, at: sup_con(x, at),
    "row numbers, loss by loss": lambda x, y, at: info_nce(
        x.double(), y.double(), positive=at, reduction="none"
    ).sum(),
    "counts, loss by loss": lambda x, y, at: info_nce(
        x.double(),
        y.double(),
        hard_negatives=x.detach().double()[:, None].expand(9, 9, 5),
        hard_negative_counts=at,
        reduction="none",
    ).sum(),
}


@pytest.mark.parametrize("name", CHANGING)
def test_numbers_that_changed_in_place_are_noticed(name: str) -> None:
    # Stored row numbers are places of memory: after a change they would be written to.
    x, y, *_ = make(torch.float32)
    at = torch.arange(9)
    loss = CHANGING[name](x, y, at)
    at.fill_(2**40)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(("name", "numbers"), [("row numbers", ROWS), ("labels", ROWS // 3)])
def test_numbers_that_others_change_have_no_influence(name: str, numbers: Tensor) -> None:
    # NumPy's view of the memory, of whose changes torch knows nothing.
    x, y, *_ = make(torch.float32)
    memory = numbers.numpy().copy()
    loss = CHANGING[name](x, y, torch.from_numpy(memory))
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    memory[:] = ROWS.flip(0) // 2
    (found,) = torch.autograd.grad(loss, x)
    assert torch.equal(found, expected)


def test_numbers_that_change_before_the_second_derivative_are_noticed() -> None:
    x, y, *_ = make(torch.float32)
    at = torch.arange(9)
    (gradient,) = torch.autograd.grad(info_nce(x, y, positive=at), x, create_graph=True)
    at.copy_(at.flip(0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient.square().sum().backward()


def test_numbers_of_inference_mode_are_taken() -> None:
    with torch.inference_mode():
        at = torch.arange(9)
    x, y, *_ = make(torch.float32)
    (found,) = torch.autograd.grad(info_nce(x, y, positive=at), x)
    (expected,) = torch.autograd.grad(info_nce(x, y), x)
    assert torch.equal(found, expected)


def test_features_without_columns() -> None:
    # Each has address 0, as what is absent.
    x, positive_key = (torch.zeros(4, 0, requires_grad=True) for _ in range(2))
    loss = info_nce(x, torch.zeros(3, 0), positive_key=positive_key)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(4.0).log())
    assert positive_key.grad is not None
    assert positive_key.grad.shape == (4, 0)


def test_floating_labels_where_tensors_are_made_elsewhere() -> None:
    x, *_ = make(torch.float32)
    labels = ROWS % 3 / 2
    expected = sup_con(x, labels)
    with torch.device("meta"):
        assert torch.equal(sup_con(x, labels), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stored", [True, False], ids=["stored scores", "blocks"])
def test_a_batch_of_upstream_gradients(
    stored: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stored:
        monkeypatch.setattr(dense, "LIMIT", 0)
    x, y, temperature, _ = make(dtype)
    loss = info_nce(x, y, temperature=temperature)
    ask: dict[str, Any] = {"retain_graph": True}
    several = torch.tensor([1.0, -0.5, 3.0])
    batched = torch.autograd.grad(loss, (x, temperature), several, is_grads_batched=True, **ask)
    single = [torch.autograd.grad(loss, (x, temperature), u, **ask) for u in several]
    for mine, other in zip(batched, zip(*single, strict=True), strict=True):
        assert torch.equal(mine, torch.stack(other))
