"""Several upstream gradients at once: `is_grads_batched`, `vectorize=True`, and `torch.vmap`.

Every loss in float64 is in `test_second_derivatives.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import functional

from mmcl_fast import reference
from mmcl_fast.losses import info_nce, nt_xent
from mmcl_fast.losses.torch_backend import dense
from tests.losses.loss_table import OTHER, inputs

ROWS: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "one way": lambda f, _: lambda x, y, t: f(x, y, temperature=t, reduction="none"),
    "both ways": lambda f, _: (
        lambda x, y, t: f(x, y, temperature=t, symmetric=True, reduction="none", **OTHER)
    ),
    "smoothed": lambda f, _: (
        lambda x, y, t: f(x, y, temperature=t, label_smoothing=0.1, reduction="none")
    ),
    "two views": lambda _, f: lambda x, y, t: f(x, y, temperature=t, reduction="none"),
}
MODES = pytest.mark.parametrize("mode", ROWS)
REFUSED = "expected create_graph=False with is_grads_batched=True"
STORED = pytest.mark.parametrize("stored", [True, False], ids=["stored scores", "blocks"])


def ours(mode: str) -> Callable[..., Tensor]:
    return ROWS[mode](info_nce, nt_xent)


@STORED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@MODES
def test_jacobian_of_the_rows(
    mode: str, dtype: torch.dtype, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stored:
        monkeypatch.setattr(dense, "LIMIT", 0)
    x = tuple(inputs(dtype, grad=False))
    batched = functional.jacobian(ours(mode), x, vectorize=True)
    for mine, single in zip(batched, functional.jacobian(ours(mode), x), strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(
            mine, single, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-6
        )
    formula = ROWS[mode](reference.info_nce, reference.nt_xent)
    exact = functional.jacobian(formula, tuple(z.double() for z in x))
    for mine, expected in zip(batched, exact, strict=True):
        largest = expected.abs().max().item()
        assert largest > 0.1
        error = (mine.double() - expected).abs().max().item()
        assert error <= 4 * torch.finfo(dtype).eps * largest
    several = torch.eye(len(batched[0]))
    q, k, t = (z.clone().requires_grad_() for z in x)
    rows = ours(mode)(q, k, t)
    slices = torch.vmap(lambda u: torch.autograd.grad(rows, (q, k, t), u, retain_graph=True))(
        several
    )
    for mine, other in zip(slices, batched, strict=True):
        assert torch.equal(mine, other)


@STORED
@MODES
def test_hessian(mode: str, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not stored:
        monkeypatch.setattr(dense, "LIMIT", 0)
    x, y, t = inputs(torch.float32, grad=False)

    def squares(q: Tensor) -> Tensor:
        return ours(mode)(q, y, t).square().sum()

    batched = functional.hessian(squares, x, vectorize=True)
    assert batched.abs().max() > 0.1
    torch.testing.assert_close(batched, functional.hessian(squares, x), rtol=1e-5, atol=1e-5)


@STORED
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_a_graph_of_several_is_refused(
    loss: Callable[..., Tensor], reduction: str, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Torch would return gradients that pass for constants.
    if not stored:
        monkeypatch.setattr(dense, "LIMIT", 0)
    x, y, _ = inputs(torch.float32)
    ask = {"is_grads_batched": True, "create_graph": True}
    value = loss(x, y, reduction=reduction)
    several = torch.ones(3, *value.shape)
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(value, x, several, **ask)
    (once,) = torch.autograd.grad(value, x, several[0], create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(once, x, torch.ones(3, *once.shape), **ask)
