"""The losses without an operation of torch: same numbers, same refusals, and when that is."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmcl_fast.losses import autograd, info_nce, rounding, transforms
from mmcl_fast.losses.contrast import Contrast

N, D = 12, 5
MODES: dict[str, dict[str, Any]] = {
    "one_way": {},
    "symmetric": {"symmetric": True},
    "sum": {"symmetric": True, "reduction": "sum"},
    "rows": {"stop_gradient": "key", "reduction": "none"},
    "weighted_rows": {"symmetric": True, "reduction": "none"},
    "stopped": {"symmetric": True, "stop_gradient": "key"},
    "labels": {"labels": torch.arange(N) % 3, "negatives": "other_label"},
}


def step(dtype: torch.dtype, **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(N, D, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    t = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    loss = info_nce(x, y, temperature=t, **options)
    upstream = torch.randn(loss.shape, generator=generator).to(loss.dtype)
    grads = torch.autograd.grad(
        loss, (x, y, t), upstream, allow_unused=True, materialize_grads=True
    )
    return [loss.detach(), *grads]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_same_numbers_as_the_operation(
    mode: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = step(dtype, **MODES[mode])
    monkeypatch.setattr(transforms, "needs_custom_op", lambda tensors: True)
    for mine, other in zip(direct, step(dtype, **MODES[mode]), strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


@pytest.mark.parametrize("mode", MODES)
def test_no_operation_is_called(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the operation was called")

    monkeypatch.setattr(transforms, "contrast_forward", refuse)
    step(torch.float32, **MODES[mode])
    step(torch.float64, **MODES[mode])
    with pytest.raises(AssertionError, match="the operation was called"), Seen():
        step(torch.float32, **MODES[mode])


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


class Marked(Tensor):
    """A kind of tensor of its own."""


def test_a_dispatch_mode_sees_one_operation() -> None:
    with Seen() as seen:
        step(torch.float32)
    assert "mmcl_fast::contrast" in seen.names
    assert "aten::exp2" not in seen.names
    assert "aten::mm" not in seen.names


def test_who_wants_operations() -> None:
    def wants(x: Tensor, **others: Tensor) -> bool:
        contrast = Contrast(x, None, torch.tensor(1.0), **others)  # type: ignore[arg-type]
        return autograd.needs_custom_op(contrast)

    x = torch.zeros(2, 2)
    assert not wants(torch.nn.Parameter(x))
    assert not wants(x, positive_key=x)
    assert wants(x.as_subclass(Marked))
    assert wants(x, positive_key=x.as_subclass(Marked))
    with Seen():
        assert wants(x)
    inside: list[bool] = []
    torch.vmap(lambda row: inside.append(wants(row[None])) or row)(x)  # type: ignore[func-returns-value]
    assert inside == [True]


def test_backward_can_be_repeated() -> None:
    x = torch.randn(N, D, requires_grad=True)
    loss = info_nce(x, x.detach())
    once = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(once[0], torch.autograd.grad(loss, x)[0])


def test_nothing_is_kept_without_gradients() -> None:
    x = torch.randn(N, D, requires_grad=True)
    with torch.no_grad():
        assert not info_nce(x, x).requires_grad
    assert info_nce(x.detach(), x.detach()).grad_fn is None
    only = info_nce(x, x.detach())
    assert only.requires_grad
    assert torch.equal(only.detach(), info_nce(x.detach(), x.detach()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_results_are_rounded_once(dtype: torch.dtype) -> None:
    gradient = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    for upstream in (torch.tensor(0.3), torch.rand(40)):
        want = gradient * (upstream if not upstream.dim() else upstream[:, None])
        with torch.no_grad():
            mine = rounding.scaled(gradient, upstream, dtype, add=False)
            assert torch.equal(mine, want.to(dtype))
            mine = rounding.scaled(gradient, upstream, dtype, add=True)
            assert torch.equal(mine, want.sum().to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backward", [False, True])
def test_features_are_freed_with_the_graph(mode: str, dtype: torch.dtype, backward: bool) -> None:
    # A node of autograd that holds its own result is a cycle that no collector sees. And a sum of
    # losses over many steps holds their nodes, but not what they saved for a backward pass.
    freed: list[str] = []
    x = torch.randn(N, D, dtype=dtype, requires_grad=True)
    inner = 2 * x  # its node lives as long as the loss's does
    weakref.finalize(inner, freed.append, "features")
    loss = info_nce(inner, torch.randn(N, D, dtype=dtype), **MODES[mode]).sum()
    if backward:
        loss.backward()
    del inner
    assert freed == (["features"] if backward else [])
    del loss
    assert freed == ["features"]


# A call of the C++ module breaks the graph, of which Dynamo warns.
@pytest.mark.filterwarnings("ignore:.*[Dd]ynamo does not know how to trace:UserWarning")
@pytest.mark.parametrize("mode", MODES)
def test_the_backward_pass_is_compiled(mode: str) -> None:
    torch._dynamo.reset()
    x, y = torch.randn(N, D, requires_grad=True), torch.randn(N, D)
    loss = info_nce(x, y, **MODES[mode]).sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        loss.backward()
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
