"""What the loss may spend: memory, what autograd keeps, and matrix products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmcl_fast.losses import custom_op, info_nce, nt_xent
from mmcl_fast.losses.torch_backend import matmul, score_blocks
from mmcl_fast.losses.torch_backend.score_blocks import chunk_rows

N, D = 4096, 16
SMALL = 2048  # four chunks
matmul.has_onednn()  # its trial is a product too
TWO_LABELS = {"negatives": "other_label", "labels": torch.arange(SMALL) % 2}


# Inside an operation of ours a dispatch mode is off; these run its Python with the mode on.
OPERATIONS = {
    op._opoverload: op._init_fn for op in (custom_op.contrast_forward, custom_op.contrast_backward)
}


class Watch(TorchDispatchMode):
    """The largest tensor any operation returns, and the products' flop in units of 2 N M D."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.product_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in OPERATIONS:
            with self:
                return OPERATIONS[func](*args)
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        name = func._schema.name
        if name == "aten::mm":
            self.product_elements += args[0].numel() * args[1].shape[1]
        elif name == "mkldnn::_linear_pointwise":
            self.product_elements += args[0].numel() * len(args[1])
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
        if tensor.data_ptr() not in (x.data_ptr(), y.data_ptr()):  # these are the caller's
            saved.append(tensor.numel())
        return tensor

    with Watch() as watch:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = info_nce(x, y, temperature=temperature, **options).sum()
        loss.backward()
    assert x.grad is not None
    assert N <= watch.largest <= max(chunk_rows(N, N) * N, 2**20) < N * N / 8
    assert 0 < sum(saved) <= 2 * N * D + 8 * N


@pytest.mark.parametrize("d", [D, 48], ids=["small", "onednn"])
@pytest.mark.parametrize(
    ("wanted", "options", "count"),
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
        ("qk", {"symmetric": True, "stop_gradient": "key"} | TWO_LABELS, 3 / 2),
        ("qk", {"symmetric": True} | TWO_LABELS, 2 - 1 / 4),
        ("q", {"stop_gradient": "key"} | TWO_LABELS, 1),
    ],
)
def test_matrix_products(
    wanted: str,
    options: dict[str, Any],
    count: float,
    d: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(score_blocks, "_HELD", 0)  # the last block alone is held
    tensors = {"q": torch.randn(SMALL, d), "k": torch.randn(SMALL, d), "t": torch.tensor(1.0)}
    for name in wanted:
        tensors[name].requires_grad_()
    with Watch() as watch:
        loss = info_nce(tensors["q"], tensors["k"], temperature=tensors["t"], **options)
        if wanted:
            loss.sum().backward()
    assert watch.product_elements == count * SMALL * SMALL * d


@pytest.mark.parametrize(("held", "share"), [(2**20, 1 / 4), (2**21, 1 / 2), (2**22, 1)])
def test_held_scores_are_not_computed_again(
    held: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_blocks, "_HELD", held)
    x, y = (torch.randn(SMALL, D, requires_grad=True) for _ in range(2))
    with Watch() as watch:
        info_nce(x, y, symmetric=True)
    assert watch.product_elements == (4 - share) * SMALL * SMALL * D


def test_the_same_rows_in_both_places_cost_less() -> None:
    x = torch.randn(SMALL, D, requires_grad=True)
    half = x[: SMALL // 2]
    with Watch() as stopped:  # three quarters: one block of scores for both labels
        info_nce(x, x, positive_key=x.detach(), stop_gradient="key", **TWO_LABELS)
    assert stopped.product_elements == 3 / 4 * SMALL * SMALL * D
    with Watch() as views:
        nt_xent(half, half)
    chunks = -(-SMALL // chunk_rows(SMALL, SMALL))
    upper = (1 + 1 / chunks) / 2  # of the scores, with the blocks on the diagonal
    count = 3 * upper - 1 / chunks  # scores held; a block on the diagonal needs one side
    assert views.product_elements == count * SMALL * SMALL * D
    with Watch() as alone, torch.no_grad():
        nt_xent(half, half)
    assert alone.product_elements == upper * SMALL * SMALL * D


def test_evaluation_does_not_pay_for_gradients() -> None:
    x = torch.randn(SMALL, D, requires_grad=True)
    with torch.no_grad(), Watch() as watch:
        info_nce(x, x, symmetric=True)
    assert watch.product_elements == SMALL * SMALL * D
