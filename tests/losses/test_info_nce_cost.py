"""What the loss may spend: memory, what autograd keeps, and matrix products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmcl_fast.losses import info_nce
from mmcl_fast.torch_impl.scores import chunk_rows

N, D = 4096, 16
SMALL = 2048  # four chunks


class Watch(TorchDispatchMode):
    """The largest tensor any operation returns, and the products' flop in units of 2 N M D."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.product_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        name = func._schema.name
        if name in {"aten::mm", "aten::addmm_"}:
            a, b = args[-2:]
            self.product_elements += a.shape[0] * a.shape[1] * b.shape[1]
        return out


MODES: list[dict[str, Any]] = [
    {},
    {"stop_gradient": "key"},
    {"symmetric": True},
    {"symmetric": True, "stop_gradient": "key"},
    {"symmetric": True, "reduction": "none"},
    {"reduction": "none"},
    {"symmetric": True, "negatives": "other_label", "labels": torch.arange(N) % 2},
]


@pytest.mark.parametrize("options", MODES, ids=lambda m: "-".join(m) or "default")
def test_no_tensor_is_as_large_as_the_scores(options: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(N, D, generator=g).requires_grad_() for _ in range(2))
    temperature = torch.tensor(1.0, requires_grad=True)
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with Watch() as watch:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = info_nce(x, y, temperature=temperature, **options).sum()
        loss.backward()
    assert x.grad is not None
    assert watch.largest <= max(chunk_rows(N, N) * N, 2**20) < N * N / 8
    assert 0 < sum(saved) <= 2 * N * D + 8 * N


@pytest.mark.parametrize(
    ("wanted", "options", "products"),
    [
        ("", {}, 1),
        ("", {"symmetric": True}, 1),
        ("q", {}, 2),
        ("q", {"reduction": "none"}, 2),
        ("t", {}, 2),
        ("k", {}, 2),
        ("qk", {}, 3),
        ("qkt", {}, 3),
        ("qk", {"stop_gradient": "key"}, 2),
        ("qk", {"reduction": "none"}, 4),
        ("qk", {"symmetric": True}, 4 - 1 / 4),
        ("q", {"symmetric": True}, 3 - 1 / 4),
        ("qk", {"symmetric": True, "stop_gradient": "key"}, 3),
        ("q", {"symmetric": True, "stop_gradient": "key"}, 2),
    ],
)
def test_matrix_products(wanted: str, options: dict[str, Any], products: float) -> None:
    tensors = {"q": torch.randn(SMALL, D), "k": torch.randn(SMALL, D), "t": torch.tensor(1.0)}
    for name in wanted:
        tensors[name].requires_grad_()
    with Watch() as watch:
        loss = info_nce(tensors["q"], tensors["k"], temperature=tensors["t"], **options)
        if wanted:
            loss.sum().backward()
    assert watch.product_elements == products * SMALL * SMALL * D


def test_evaluation_does_not_pay_for_gradients() -> None:
    x = torch.randn(SMALL, D, requires_grad=True)
    with torch.no_grad(), Watch() as watch:
        info_nce(x, x, symmetric=True)
    assert watch.product_elements == SMALL * SMALL * D
