"""The calls of other libraries, against the references: no other library is needed here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmcl_fast import losses, reference
from mmcl_fast.losses.compat import world_size
from mmcl_fast.losses.unit_rows import unit_rows
from tests.support.budget import assert_within_budget, value_and_grads

N, D = 33, 12
Loss = Callable[..., Tensor]


def inputs(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(31)
    return {k: torch.randn(s, generator=g) for k, s in shapes.items()}


def unit(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalised, then rounded to `dtype` as if rounding had slope 1: what the modules promise."""
    exact = normalize(x, dim=-1)
    return exact + (exact.to(dtype).to(x.dtype) - exact).detach()


PAIRS = {"a": (N, D), "b": (N, D)}
SHARED, PAIRED = {**PAIRS, "c": (9, D)}, {**PAIRS, "c": (N, 4, D)}
SCALED = {**PAIRS, "s": ()}
LABELS = torch.arange(N) % 4
ROWS = torch.arange(N).flip(0)
U = Callable[[Tensor], Tensor]


def sup_con_views(views: Tensor, labels: Tensor) -> Tensor:
    rows = torch.cat(views.unbind(1))
    return reference.sup_con(rows, labels.repeat(views.shape[1]), temperature=0.5) * 0.5 / 0.07


def sup_con_first_view(views: Tensor) -> Tensor:
    every = torch.arange(len(views))
    return reference.sup_con(
        views[:, 0], every, key=torch.cat(views.unbind(1)), key_labels=every.repeat(3),
        exclude_self=True, temperature=0.2,
    )  # fmt: skip


# name: shapes of the tensors, the module's call, the reference's call given the normalisation
CALLS: dict[str, tuple[dict[str, Any], Loss, Callable[[U], Loss]]] = {
    "ClipLoss": (
        SCALED, lambda a, b, s: losses.ClipLoss()(a, b, s.exp()),
        lambda u: lambda a, b, s: reference.info_nce(a, b, temperature=1 / s.exp(), symmetric=True),
    ),
    "SigLipLoss": (
        SCALED, lambda a, b, s: losses.SigLipLoss()(a, b, 2.0, s),
        lambda u: lambda a, b, s: reference.siglip(a, b, temperature=0.5, bias=s),
    ),
    "NTXentLoss": (
        PAIRS, losses.NTXentLoss(0.3),
        lambda u: lambda a, b: reference.nt_xent(u(a), u(b), temperature=0.3),
    ),
    "DCLLoss": (
        PAIRS, losses.DCLLoss(0.3),
        lambda u: lambda a, b: reference.dcl(u(a), u(b), temperature=0.3),
    ),
    "InfoNCE": (
        PAIRS, losses.InfoNCE(0.3),
        lambda u: lambda a, b: reference.info_nce(u(a), u(b), temperature=0.3),
    ),
    "InfoNCE_unpaired": (
        SHARED, losses.InfoNCE(0.3, reduction="sum"),
        lambda u: lambda a, b, c: reference.info_nce(
            u(a), u(c), positive_key=u(b), temperature=0.3, reduction="sum"
        ),
    ),
    "InfoNCE_paired": (
        PAIRED, losses.InfoNCE(0.3, negative_mode="paired"),
        lambda u: lambda a, b, c: reference.info_nce(
            u(a), u(b)[:0], positive_key=u(b), hard_negatives=u(c), temperature=0.3
        ),
    ),
    "SupConLoss": (
        {"views": (N, 2, D)}, lambda views: losses.SupConLoss(0.5)(views, LABELS),
        lambda u: lambda views: sup_con_views(views, LABELS),
    ),
    "SupConLoss_one": (
        {"views": (N, 3, D)}, losses.SupConLoss(0.2, "one", 0.2),
        lambda u: sup_con_first_view,
    ),
    "cal_inf_loss": (
        SCALED, lambda a, b, s: losses.cal_inf_loss(a, b, ROWS, s.exp(), head_dim=64),
        lambda u: lambda a, b, s: reference.info_nce(a, b, positive=ROWS, temperature=1 / s.exp()),
    ),
    "cal_inf_loss_plain": (
        PAIRS, losses.cal_inf_loss, lambda u: partial(_positional, reference.info_nce, 1.0)
    ),
    "MemoryEfficientCLIPLoss": (
        PAIRS, losses.MemoryEfficientCLIPLoss(0.3, label_smoothing=0.1),
        lambda u: lambda a, b: reference.info_nce(
            u(a), u(b), temperature=0.3, symmetric=True, label_smoothing=0.1
        ),
    ),
    "MemoryEfficientCLIPLoss_normalized": (
        PAIRS, losses.MemoryEfficientCLIPLoss(0.3, normalized_inputs=True),
        lambda u: lambda a, b: reference.info_nce(a, b, temperature=0.3, symmetric=True),
    ),
}  # fmt: skip


def _positional(function: Loss, temperature: float, a: Tensor, b: Tensor) -> Tensor:
    return function(a, b, temperature=temperature)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_value_and_gradients(name: str, dtype: torch.dtype) -> None:
    shapes, ours, theirs = CALLS[name]
    tensors = {k: v.to(dtype) if v.dim() else v for k, v in inputs(**shapes).items()}
    upstream = torch.tensor(0.7)
    measure = theirs(partial(unit, dtype=dtype))
    exact = value_and_grads(measure, {k: v.double() for k, v in tensors.items()}, upstream)
    plain = value_and_grads(measure, {k: v.float() for k, v in tensors.items()}, upstream)
    found = value_and_grads(lambda **t: ours(*t.values()), tensors, upstream)
    assert found["value"].dtype == torch.float32
    # The gradient of s is a sum over pairs of both signs.
    terms = {"s": 2 * upstream.item() * exact["value"].item()} if "s" in tensors else None
    assert_within_budget(found, plain=plain, exact=exact, terms=terms)


@pytest.mark.parametrize("name", CALLS)
def test_float64_is_computed_in_float64(name: str) -> None:
    shapes, ours, theirs = CALLS[name]
    tensors = {k: v.double() for k, v in inputs(**shapes).items()}
    exact = value_and_grads(theirs(partial(unit, dtype=torch.float64)), tensors)
    found = value_and_grads(lambda **t: ours(*t.values()), tensors)
    for key, value in found.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, exact[key], rtol=1e-10, atol=1e-13)


# Dynamo instantiates autograd functions to trace them, and warns of it itself.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_compile_without_graph_breaks(name: str) -> None:
    shapes, loss, _ = CALLS[name]
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (
        value_and_grads(lambda f=f, **t: f(*t.values()), inputs(**shapes)) for f in (compiled, loss)
    )
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)


OF_TWO_VIEWS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "ClipLoss": lambda x, y: losses.ClipLoss()(x, y, 3.0),
    "ClipLoss, a bias of each column": lambda x, y: losses.ClipLoss()(x, y, 3.0, x[:, 0]),
    "SigLipLoss": lambda x, y: losses.SigLipLoss()(x, y, 3.0, -1.0),
    "NTXentLoss": lambda x, y: losses.NTXentLoss()(x, y),
    "DCLWLoss": lambda x, y: losses.compat.DCLWLoss()(x, y),
    "cal_inf_loss": lambda x, y: losses.cal_inf_loss(x, y),
    "InfoNCE, paired": lambda x, y: losses.InfoNCE(negative_mode="paired")(
        x, y, torch.stack([y, x], dim=1)
    ),
}


class OfTwoViews(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.loss = OF_TWO_VIEWS[name]

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.loss(x, y)


@pytest.mark.parametrize("name", OF_TWO_VIEWS)
def test_exported_with_a_dynamic_batch(name: str) -> None:
    model, rows = OfTwoViews(name), {0: torch.export.Dim("batch", min=4, max=4096)}
    exported = torch.export.export(
        model, (torch.randn(6, D), torch.randn(6, D)), dynamic_shapes=(rows, rows)
    )
    x, y = inputs(**PAIRS).values()
    torch.testing.assert_close(exported.module()(x, y), model(x, y), rtol=1e-6, atol=1e-6)


# --- what differs from the other libraries, and what they have beside ---------------------------


def test_rows_are_normalised_in_float32_and_rounded_once() -> None:
    # A norm rounded to bfloat16 first is wrong by up to 0.2 % for the whole row.
    x = inputs(a=(N, D))["a"].bfloat16()
    y = unit_rows(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, normalize(x.double(), dim=-1).bfloat16())
    assert unit_rows(torch.zeros(2, 3)).eq(0).all()


def test_autocast_does_not_lower_the_precision() -> None:
    for name in ("ClipLoss", "NTXentLoss", "InfoNCE", "MemoryEfficientCLIPLoss"):
        shapes, ours, _ = CALLS[name]
        tensors = list(inputs(**shapes).values())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = ours(*tensors)
        assert torch.equal(inside, ours(*tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scale_of_one_element_learns(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = inputs(**PAIRS).values()
    scale = torch.full(shape, 5.0, dtype=dtype, requires_grad=True)
    bias = torch.full(shape, -2.0, dtype=dtype, requires_grad=True)
    losses.ClipLoss()(a, b, scale).backward()
    exact = value_and_grads(
        lambda scale: reference.info_nce(
            a.double(), b.double(), temperature=1 / scale, symmetric=True
        ),
        {"scale": torch.tensor(5.0).double()},
    )["scale"]
    assert scale.grad is not None
    assert scale.grad.shape == shape
    assert scale.grad.item() == pytest.approx(exact.item(), rel=max(torch.finfo(dtype).eps, 1e-5))
    losses.SigLipLoss()(a, b, scale, bias).backward()
    assert bias.grad is not None
    assert bias.grad.shape == shape


def test_a_bias_of_clip_has_gradient_zero_but_not_none() -> None:
    # DistributedDataParallel waits for the gradient of every parameter.
    a, b = inputs(**PAIRS).values()
    bias = torch.tensor(-3.0, requires_grad=True)
    with_bias = losses.ClipLoss()(a, b, 5.0, bias)
    with_bias.backward()
    assert torch.equal(with_bias.detach(), losses.ClipLoss()(a, b, 5.0))
    assert bias.grad is not None
    assert bias.grad == 0.0


def test_the_scales_gradient_needs_no_process_group() -> None:
    a, b = inputs(**PAIRS).values()
    scale = torch.tensor(2.0, requires_grad=True)
    losses.cal_inf_loss(a, b, scale=scale).backward()
    assert scale.grad is not None
    assert scale.grad != 0.0


def test_the_gradient_of_memeffs_loss_is_that_of_the_loss() -> None:
    # There it is sqrt(N * temperature) times that by default.
    a, b = (x[:7].double() for x in inputs(**PAIRS).values())
    loss = losses.MemoryEfficientCLIPLoss(0.5)
    assert torch.autograd.gradcheck(loss, (a.requires_grad_(), b.requires_grad_()))


def test_an_anchor_without_positive_is_no_nan() -> None:
    views = inputs(views=(5, 1, D))["views"].requires_grad_()
    labels = torch.tensor([0, 1, 0, 2, 1])
    loss = losses.SupConLoss()(views, labels)
    loss.backward()
    assert loss.isfinite()
    assert views.grad is not None
    assert views.grad.isfinite().all()


def test_sup_con_takes_labels_in_a_column_and_further_axes() -> None:
    views = inputs(views=(6, 2, 3, 4))["views"]
    labels = torch.tensor([0, 1, 0, 2, 1, 1])
    loss = losses.SupConLoss()
    assert torch.equal(loss(views, labels[:, None]), loss(views.flatten(2), labels))


def test_info_nce_pytorch_learns_its_temperature() -> None:
    module = losses.InfoNCE(nn.Parameter(torch.tensor(0.3)))
    module(*inputs(**PAIRS).values()).backward()
    (temperature,) = module.parameters()
    assert temperature.grad is not None
    assert temperature.grad != 0.0


def test_gather_distributed_in_one_process_changes_nothing() -> None:
    a, b = inputs(**PAIRS).values()
    for kind in (losses.NTXentLoss, losses.DCLLoss):
        assert torch.equal(kind(gather_distributed=True)(a, b), kind()(a, b))


def test_inf_cl_refuses_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_size.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(world_size.distributed, "get_world_size", lambda: 4)
    with pytest.raises(ValueError, match=r"torch\.distributed: expected one process, got 4"):
        losses.cal_inf_loss(*inputs(**PAIRS).values())


X, Y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
ROWS_OF_VIEWS = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))
WRONG: list[tuple[type[Exception], Callable[[], object], str]] = [
    (ValueError, lambda: losses.ClipLoss(use_horovod=True), "use_horovod: expected False, got "
     "True: Horovod is not supported"),
    (TypeError, lambda: losses.ClipLoss()([1.0], Y, 1.0), "image_features: expected a tensor, got "
     "list"),
    (TypeError, lambda: losses.ClipLoss()(X, Y.int(), 1.0), "text_features: expected dtype "
     "float16 | bfloat16 | float32 | float64, got int32"),
    (ValueError, lambda: losses.ClipLoss()(X, Y[0], 1.0), "text_features: expected 2 axes, got "
     "shape [3]"),
    (ValueError, lambda: losses.ClipLoss()(X, Y, 0.0), "logit_scale: expected a finite number > 0, "
     "got 0.0"),
    (ValueError, lambda: losses.ClipLoss()(X, Y, torch.ones(2)), "logit_scale: expected one "
     "element, got shape [2]"),
    (TypeError, lambda: losses.ClipLoss()(X, Y, torch.tensor(3)), "logit_scale: expected a "
     "floating tensor, got torch.int64"),
    (TypeError, lambda: losses.ClipLoss()(X, Y, "5"), "logit_scale: expected a number or a tensor, "
     "got str"),
    (ValueError, lambda: losses.SigLipLoss()(X, Y[:3], 1.0, 0.0), "text_features: expected the 4 "
     "rows of image_features, got 3"),
    (ValueError, lambda: losses.NTXentLoss(memory_bank_size=64), "memory_bank_size: expected 0 or "
     "(rows, features), both >= 0, got 64"),
    (ValueError, lambda: losses.DCLLoss(0.0), "temperature: expected a number > 0 in the normal "
     "range of float32, got 0.0"),
    (ValueError, lambda: losses.InfoNCE(negative_mode="both"), "negative_mode: expected 'unpaired' "
     "| 'paired', got 'both'"),
    (ValueError, lambda: losses.InfoNCE(reduction="max"), "reduction: expected 'mean' | 'sum' | "
     "'none', got 'max'"),
    (ValueError, lambda: losses.InfoNCE()(X, Y[:3]), "positive_key: expected the 4 rows of query, "
     "got 3"),
    (ValueError, lambda: losses.InfoNCE()(X, Y, ROWS_OF_VIEWS), "negative_keys: expected 2 axes, "
     "got shape [4, 2, 3]"),
    (ValueError, lambda: losses.SupConLoss(contrast_mode="two"), "contrast_mode: expected 'all' | "
     "'one', got 'two'"),
    (ValueError, lambda: losses.SupConLoss()(X), "features: expected 3 axes, got shape [4, 3]"),
    (ValueError, lambda: losses.SupConLoss()(ROWS_OF_VIEWS, torch.arange(3)), "labels: expected "
     "[4], got [3]"),
    (ValueError, lambda: losses.cal_inf_loss(X, Y, scale=-1.0), "scale: expected a finite number > "
     "0, got -1.0"),
    (ValueError, lambda: losses.MemoryEfficientCLIPLoss(stable=True), "stable: expected False, got "
     "True: it multiplies the gradient by sqrt(N * temperature); put that factor into the learning "
     "rate"),
    (ValueError, lambda: losses.MemoryEfficientCLIPLoss(tau_plus=0.1), "tau_plus: expected 0.0, "
     "got 0.1: the debiased estimate of the negatives' sum is not built"),
    (ValueError, lambda: losses.MemoryEfficientCLIPLoss()(X, Y, torch.ones(4)), "tau_plus: "
     "expected 0.0, got a tensor: the debiased estimate of the negatives' sum is not built"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call", "message"), WRONG, ids=[m[:40] for _, _, m in WRONG])
def test_bad_input(kind: type[Exception], call: Callable[[], object], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message


def test_dcl_weights_multiply_the_positives_score() -> None:
    """lightly's formula, written out; the weights of both orders differ."""
    t = 0.3
    a, b = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def weigh(x: Tensor, y: Tensor) -> Tensor:
        return 1 + x[:, 0] ** 2 + y[:, 1] ** 2

    def one_way(x: Tensor, y: Tensor) -> Tensor:
        rest = ~torch.eye(len(x), dtype=torch.bool)
        scores = torch.cat([(x @ z.T)[rest].view(len(x), -1) for z in (x, y)], dim=1) / t
        return (scores.logsumexp(1) - weigh(x, y) * (x * y).sum(1) / t).mean()

    u, v = (normalize(x, dim=1) for x in (a, b))
    expected = (one_way(u, v) + one_way(v, u)) / 2
    torch.testing.assert_close(losses.DCLLoss(t, weigh)(a, b), expected)
    assert (losses.DCLLoss(t)(a, b) - expected).abs() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_zero_row_has_a_finite_gradient(dtype: torch.dtype) -> None:
    # A GradScaler skips every step with an infinite gradient.
    x, y = (torch.randn(6, 4, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (0, 1))
    x[2] = 0
    x.requires_grad_()
    (256 * losses.InfoNCE()(x, y)).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[2].any()
    assert x.grad[1].any()
