"""What the package asks torch by private names, for which there is no public one.

Another torch may rename or change them: each is asked where the answer is known.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = Path(__file__).parents[2] / "mmcl_fast"
FUNCTORCH = torch._C._functorch


class Kept(torch.autograd.Function):
    """Notes in its backward pass whether autograd keeps the graph."""

    seen: list[bool] = []  # noqa: RUF012 - emptied by the one test

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        Kept.seen.append(torch._C._autograd._get_current_graph_task_keep_graph())
        return upstream[0]


def keeps_graph() -> tuple[Any, Any]:
    Kept.seen.clear()
    loss: Tensor = Kept.apply(torch.zeros((), requires_grad=True))  # type: ignore[no-untyped-call]
    loss.backward(retain_graph=True)
    loss.backward()
    kept, freed = Kept.seen
    return freed, kept


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return func(*args, **(kwargs or {}))


def dispatch_modes() -> tuple[Any, Any]:
    outside = torch._C._len_torch_dispatch_stack()
    with Mode():
        return outside, torch._C._len_torch_dispatch_stack()


def autocast() -> tuple[Any, Any]:
    outside = torch._C._is_any_autocast_enabled()
    with torch.autocast("cpu"):
        return outside, torch._C._is_any_autocast_enabled()


def forward_level() -> tuple[Any, Any]:
    outside = forward_ad._current_level
    with forward_ad.dual_level():
        return outside, forward_ad._current_level


def tracing() -> tuple[Any, Any]:
    inside = []

    def traced(x: Tensor) -> Tensor:
        inside.append(torch._C._get_tracing_state() is None)
        return x + 1

    outside = torch._C._get_tracing_state() is not None
    torch.jit.trace(traced, torch.zeros(2), check_trace=False)
    return outside, not inside[0]


def of_vmap(ask: Callable[[Tensor], Any]) -> tuple[Any, Any]:
    x, inside = torch.zeros(2), []

    def mapped(row: Tensor) -> Tensor:
        inside.append(ask(row))
        return row

    torch.vmap(mapped)(x)
    return ask(x), inside[0]


def unwrapped() -> tuple[Any, Any]:
    x, inside = torch.zeros(2), []

    def mapped(row: Tensor) -> Tensor:
        inside.append(FUNCTORCH.get_unwrapped(row) is x)
        return row

    torch.vmap(mapped)(x)
    return False, inside[0]


def batched_gradients() -> tuple[Any, Any]:
    x, inside = torch.zeros((), requires_grad=True), []
    y = x.clone()
    y.register_hook(lambda g: inside.append(FUNCTORCH.is_legacy_batchedtensor(g)))
    torch.autograd.grad(y, x, torch.zeros(2), is_grads_batched=True)
    return FUNCTORCH.is_legacy_batchedtensor(x), inside[0]


# By name, what it answers outside of that for which it is asked, and inside.
KNOWN: dict[str, tuple[Callable[[], tuple[Any, Any]], Any, Any]] = {
    "torch._C._autograd._get_current_graph_task_keep_graph": (keeps_graph, False, True),
    "torch._C._len_torch_dispatch_stack": (dispatch_modes, 0, 1),
    "torch._C._is_any_autocast_enabled": (autocast, False, True),
    "torch._C._get_tracing_state": (tracing, False, True),
    "torch._C._are_functorch_transforms_active": (
        lambda: of_vmap(lambda _: torch._C._are_functorch_transforms_active()), False, True
    ),
    "torch._C._functorch.is_functorch_wrapped_tensor": (
        lambda: of_vmap(FUNCTORCH.is_functorch_wrapped_tensor), False, True
    ),
    "torch._C._functorch.get_unwrapped": (unwrapped, False, True),
    "torch._C._functorch.is_legacy_batchedtensor": (batched_gradients, False, True),
    "forward_ad._current_level": (forward_level, -1, 0),
}  # fmt: skip
TRIED = "torch.ops.mkldnn._linear_pointwise"  # `has_onednn` asks whether torch has it


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", KNOWN)
def test_torch_answers_as_the_package_expects(name: str) -> None:
    ask, outside, inside = KNOWN[name]
    assert ask() == (outside, inside), f"torch {torch.__version__} answers {name} otherwise"


def test_no_other_private_name_is_used() -> None:
    found = {name for path in PACKAGE.rglob("*.py") for name in private_names(path)}
    assert found == {*KNOWN, TRIED}


def private_names(path: Path) -> Iterator[str]:
    """Dotted names below torch, or a part of it, with a private part; the longest ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(x.value) for x in ast.walk(tree) if isinstance(x, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            name = ast.unparse(node)
            if re.fullmatch(r"(torch|forward_ad)\.(\w+\.)*_(?!_)\w+(\.\w+)*", name):
                yield name
