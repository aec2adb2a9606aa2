"""Every loss in every mode of torch: the same value, and the same gradients where there are any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmcl_fast import losses
from tests.losses.loss_table import LOSSES, N, inputs

# Dynamo instantiates autograd functions to trace them, and warns of it itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",
    "ignore:.*torch.jit.script:DeprecationWarning",
)
EVERY = pytest.mark.parametrize("name", LOSSES)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
WITHOUT_GRADIENT: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "nothing requires grad": torch.enable_grad,
}


def compiled(name: str, **options: Any) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    function: Callable[..., Tensor] = torch.compile(
        LOSSES[name].ours, fullgraph=True, backend="aot_eager", **options
    )
    return function


def close(mine: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    rtol = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(mine, expected, rtol=rtol, atol=rtol / 10)


@DTYPES
@EVERY
def test_without_gradient(name: str, dtype: torch.dtype) -> None:
    expected = LOSSES[name].dense(*inputs(dtype, grad=False))
    for mode, context in WITHOUT_GRADIENT.items():
        x = inputs(dtype, grad=mode != "nothing requires grad")
        for function in (LOSSES[name].ours, compiled(name)):
            with context():
                close(function(*x).detach(), expected, dtype)


@pytest.mark.slow  # Inductor compiles C++
@pytest.mark.parametrize("name", ["symmetric", "nt_xent", "sup_con", "siglip"])
def test_inductor(name: str) -> None:
    torch._dynamo.reset()
    function = torch.compile(LOSSES[name].ours, fullgraph=True)
    x = inputs(torch.float32)
    expected = LOSSES[name].dense(*x)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            close(function(*x).detach(), expected.detach(), torch.float32)
    mine = torch.autograd.grad(function(*x), x)
    for found, grad in zip(mine, torch.autograd.grad(expected, x), strict=True):
        close(found, grad, torch.float32)


@EVERY
def test_compiled_with_gradients(name: str) -> None:
    x, ours = inputs(torch.float32), compiled(name)
    mine = torch.autograd.grad(ours(*x), x, allow_unused=True, materialize_grads=True)
    dense = LOSSES[name].dense(*x)
    exact = torch.autograd.grad(dense, x, allow_unused=True, materialize_grads=True)
    for found, expected in zip(mine, exact, strict=True):
        close(found, expected, torch.float32)


# The others have labels or weights of a fixed number of rows.
ANY_SIZE = [
    "one_way", "symmetric", "stopped", "smoothed", "more_negatives", "nt_xent", "dcl", "siglip",
]  # fmt: skip


class Model(nn.Module):
    """A layer, and a loss of its features."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.loss = LOSSES[name].ours

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return self.loss(self.layer(x), y, t)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_exported_with_a_dynamic_batch(name: str) -> None:
    model, batch = Model(name), torch.export.Dim("batch", min=4, max=4096)
    rows = {0: batch}
    exported = torch.export.export(
        model, tuple(inputs(torch.float32, grad=False)), dynamic_shapes=(rows, rows, None)
    )
    x, y = torch.randn(N + 3, 6), torch.randn(N + 3, 6)
    close(exported.module()(x, y, torch.tensor(0.7)), model(x, y, torch.tensor(0.7)), torch.float32)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_compiled_for_any_batch(name: str) -> None:
    function = compiled(name, dynamic=True)
    for rows in (8, 12, 20):
        x = [torch.randn(rows, 6), torch.randn(rows, 6), torch.tensor(0.7)]
        close(function(*x), LOSSES[name].ours(*x), torch.float32)


def test_numbers_as_arguments_of_a_compiled_function() -> None:
    torch._dynamo.reset()
    function = torch.compile(
        lambda x, y, t: losses.siglip(x, y, temperature=t, bias=-t),
        fullgraph=True, dynamic=True, backend="aot_eager",
    )  # fmt: skip
    x, y, _ = inputs(torch.float32, grad=False)
    for t in (0.1, 0.2, 0.3):
        close(function(x, y, t), losses.siglip(x, y, temperature=t, bias=-t), torch.float32)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@EVERY
def test_a_traced_function_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"expected no torch\.jit\.trace"):
        torch.jit.trace(LOSSES[name].ours, tuple(inputs(torch.float32, grad=False)))


@DTYPES
@EVERY
def test_vmap(name: str, dtype: torch.dtype) -> None:
    x, y, t = inputs(dtype, grad=False)
    members = torch.stack([x, x.flip(0), 2 * x])
    together = torch.vmap(LOSSES[name].ours, in_dims=(0, None, None))(members, y, t)
    for found, member in zip(together, members, strict=True):
        close(found, LOSSES[name].dense(member, y, t), dtype)


@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-d", "1-d"])
@EVERY
def test_scalars_of_one_element(name: str, shape: tuple[int, ...]) -> None:
    # FSDP2 shards parameters of at least one axis.
    x, y, t = inputs()
    learned = t.detach().reshape(shape).requires_grad_()
    (found,) = torch.autograd.grad(LOSSES[name].ours(x, y, learned), learned)
    exact = torch.autograd.grad(LOSSES[name].dense(x, y, t), t)[0]
    assert found.shape == shape
    close(found.reshape(()), exact, torch.float64)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@EVERY
def test_features_of_two_dtypes_under_autocast(name: str, half: torch.dtype) -> None:
    x, y, t = inputs(torch.float32)
    rounded = x.detach().to(half).requires_grad_()
    # These join x and y themselves, or score one of them alone.
    if name not in ("paper_6", "sup_con", "more_negatives", "listed_rows"):
        with pytest.raises(TypeError, match="expected the dtype of"):
            LOSSES[name].ours(rounded, y, t)
    with torch.autocast("cpu", dtype=half):
        loss = LOSSES[name].ours(rounded, y, t)
        mine = torch.autograd.grad(loss, [rounded, y, t], allow_unused=True, materialize_grads=True)
    wide = rounded.detach().float().requires_grad_()
    dense = LOSSES[name].dense(wide, y, t)
    exact = torch.autograd.grad(dense, [wide, y, t], allow_unused=True, materialize_grads=True)
    close(loss.detach(), dense.detach(), torch.float32)
    assert [g.dtype for g in mine] == [half, torch.float32, torch.float32]
    torch.testing.assert_close(
        mine[0], exact[0].to(half), rtol=2 * torch.finfo(half).eps, atol=1e-6
    )
    for found, expected in zip(mine[1:], exact[1:], strict=True):
        close(found, expected, torch.float32)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_meta_tensors_have_the_shape_of_the_loss(name: str) -> None:
    for context in (torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            loss = LOSSES[name].ours(*(x.to("meta") for x in inputs(torch.float32, grad=False)))
        assert loss.shape == ()
        assert loss.device.type == "meta"


@pytest.mark.parametrize("name", ["one_way", "nt_xent", "siglip"])
def test_a_constant_made_under_a_transform_is_not_kept(name: str) -> None:
    # The first call of this size decides what is kept.
    x, y = torch.randn(23, 6), torch.randn(23, 6)
    within = torch.func.grad(lambda q: LOSSES[name].ours(q, y, 0.437))(x)  # type: ignore[arg-type]
    with torch.device("meta"), torch.inference_mode():
        LOSSES[name].ours(x[:11], y[:11], 0.213)  # type: ignore[arg-type]
    for size, t in ((23, 0.437), (11, 0.213)):
        q = x[:size].clone().requires_grad_()
        LOSSES[name].ours(q, y[:size], t).backward()  # type: ignore[arg-type]
        assert q.grad is not None
        if size == len(x):
            close(q.grad, within, torch.float32)
