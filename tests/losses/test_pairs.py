"""Several positives, targets, exclusions and row weights of `info_nce` against the dense formula.

`loss_table.py` has them for every mode of torch and for second derivatives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian
from torch.nn.functional import cross_entropy, normalize

from mmcl_fast import reference
from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.losses import InfoNCELoss, backends, info_nce, sup_con
from mmcl_fast.losses.backends import BACKENDS, Problem
from tests.losses.test_info_nce_cost import Watch
from tests.support.budget import assert_within_budget, compute_dtype, value_and_grads

Blocks = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """`pairs` names what is given of "mask", "list", "shares", "exclude"."""

    id: str
    pairs: str
    why: str
    n: int = 45
    m: int = 61
    d: int = 20
    options: dict[str, Any] = field(default_factory=dict)
    more: bool = False  # extra and hard negatives
    weighted: bool = False
    bias: bool = False  # of the keys, differentiable
    same: bool = False  # query and key are one tensor


BOTH = {"symmetric": True}
ROWS = {"reduction": "none"}
pytestmark = pytest.mark.usefixtures("_either_way")
CASES = [
    Case("mask", "mask", "M > N, some queries without a positive"),
    Case("mask_few_keys", "mask", "M < N", m=7),
    Case("mask_blocks", "mask exclude", "several blocks of rows", 1030, 1100, 8),
    Case("mask_both", "mask", "columns of the mask are the keys' positives", 45, 45, options=BOTH),
    Case("mask_both_rows", "mask exclude", "each direction has its own exclusions", 45, 45,
         options=BOTH | ROWS),
    Case("mask_both_stopped", "mask exclude", "each direction stops its key", 45, 45,
         options=BOTH | {"stop_gradient": "key"}, weighted=True),
    Case("list", "list", "-1 among the row numbers, and numbers that are listed twice"),
    Case("list_self", "list exclude", "row i is listed and left out",
         options={"exclude_self": True}),
    Case("list_stopped", "list", "no gradient of the keys",
         options={"stop_gradient": "key"} | ROWS),
    Case("shares", "shares", "rows that do not sum to 1, and one of zeros"),
    Case("shares_more", "shares exclude", "negatives without a row in the matrices", more=True,
         options=ROWS),
    Case("exclude", "exclude", "the mask has some positives, which stay"),
    Case("exclude_blocks", "exclude", "several blocks of rows, recomputed", 1030, 1100, 8,
         options=ROWS),
    Case("exclude_more", "exclude", "negatives without a column", more=True),
    Case("exclude_both", "exclude", "the transposed mask", 45, 45, options=BOTH),
    Case("exclude_both_blocks", "exclude", "columns merged over blocks", 1100, 1100, 8,
         options=BOTH),
    Case("exclude_stopped", "exclude", "running mixture", 45, 45,
         options=BOTH | {"stop_gradient": "key"}),
    Case("exclude_label", "exclude", "two labels, unsorted", 45, 45,
         options={"negatives": "other_label", "labels": torch.arange(45) % 2}),
    Case("weight", "", "the weighted mean", 45, 45, weighted=True),
    Case("weight_both", "", "in both directions, summed", 45, 45,
         options=BOTH | {"reduction": "sum"}, weighted=True),
    Case("bias", "", "of the positive, too", bias=True),
    Case("bias_more", "shares exclude", "negatives without a bias", bias=True, more=True),
    Case("bias_stopped", "", "the temperature's gradient is whole, the bias has none", bias=True,
         options={"stop_gradient": "key"}),
    Case("bias_smoothed", "", "of every candidate", bias=True, options={"label_smoothing": 0.2}),
    Case("same", "mask", "one tensor, each row without itself: symmetric blocks", 45, 45, same=True,
         options={"exclude_self": True}),
    Case("same_blocks", "mask", "squares and rectangles", 1100, 1100, 8, same=True,
         options={"exclude_self": True} | ROWS),
    Case("same_exclude", "mask exclude", "exclusions need not be symmetric", 45, 45, same=True,
         options={"exclude_self": True}),
    Case("same_stopped", "list", "its own rows as constants", 45, 45, same=True,
         options={"stop_gradient": "key"}),
]  # fmt: skip


def make(case: Case, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Differentiable tensors drawn in `dtype`, and the other arguments."""
    g = torch.Generator().manual_seed(3)
    rows = {"query": case.n, "key": case.m} | ({"extra_negatives": 5} if case.more else {})
    tensors = {k: normalize(torch.randn(n, case.d, generator=g)).to(dtype) for k, n in rows.items()}
    if case.more:
        tensors["hard_negatives"] = normalize(torch.randn(case.n, 3, case.d, generator=g)).to(dtype)
    if case.same:
        del tensors["key"]
    if case.bias:
        tensors["key_bias"] = torch.linspace(-3, 2, case.m)
    tensors["temperature"] = torch.tensor(0.2)
    few, some, share = torch.rand(3, case.n, case.m, generator=g)
    options = dict(case.options)
    if "mask" in case.pairs:
        options["positive_mask"] = few < 0.06
    if "list" in case.pairs:
        listed = torch.randint(-1, case.m, (case.n, 4), generator=g)
        listed[:, 3] = listed[:, 2]
        listed[::3, 0] = torch.arange(case.n)[::3].clamp(max=case.m - 1)
        listed[7] = -1
        options["positive"] = listed
    if "shares" in case.pairs:
        options["targets"] = torch.where(few < 0.2, share, 0.0)
        options["targets"][7] = 0.0
    if "exclude" in case.pairs:
        options["exclude_mask"] = some < 0.4
        options["exclude_mask"][7] = True
    if case.weighted:
        options["weight"] = torch.linspace(0, 2, case.n)
    return tensors, options


def on_blocks(options: dict[str, Any]) -> dict[str, Any]:
    """The options with functions for matrices."""

    def block(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        assert rows.dtype == columns.dtype == torch.int64
        assert not torch.is_grad_enabled()
        return matrix[rows][:, columns]

    matrices = ("positive_mask", "targets", "exclude_mask")
    return {k: partial(block, x) if k in matrices else x for k, x in options.items()}


def call(loss: Callable[..., Tensor], options: dict[str, Any], **tensors: Tensor) -> Tensor:
    return loss(**{"key": tensors["query"]} | tensors, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_value_and_gradients(case: Case, dtype: torch.dtype) -> None:
    tensors, options = make(case, dtype)
    upstream = torch.tensor(0.7)
    if case.options.get("reduction") == "none":
        upstream = torch.linspace(-1, 2, case.n)
    wide = {k: x.double() if k == "weight" else x for k, x in options.items()}
    exact = value_and_grads(
        partial(call, reference.info_nce, wide),
        {k: x.double() for k, x in tensors.items()}, upstream,
    )  # fmt: skip
    plain = value_and_grads(
        partial(call, reference.info_nce, options),
        {k: x.to(compute_dtype(dtype)) for k, x in tensors.items()}, upstream,
    )  # fmt: skip
    ours = value_and_grads(partial(call, info_nce, options), tensors, upstream)
    terms = {"temperature": 2 * exact["value"].abs().sum().item()}
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms)
    functions = on_blocks(options)
    if functions != options:
        again = value_and_grads(partial(call, info_nce, functions), tensors, upstream)
        for name, x in ours.items():
            assert torch.equal(again[name], x), name


X, Y = torch.randn(2, 12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 5
SAME = CLASSES[:, None] == CLASSES
NOWHERE = torch.zeros(12, 12, dtype=torch.bool)


def test_positives_of_one_label_are_sup_con() -> None:
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-13)
    expected = sup_con(X, CLASSES, temperature=0.3)
    close(info_nce(X, X, positive_mask=SAME, exclude_self=True, temperature=0.3), expected)
    expected = sup_con(X, CLASSES, key=Y, temperature=0.3, reduction="sum")
    close(info_nce(X, Y, positive_mask=SAME, temperature=0.3, reduction="sum"), expected)


def test_targets_are_those_of_cross_entropy() -> None:
    logits = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shares = logits.softmax(dim=1)
    expected = cross_entropy(X @ Y.T / 0.3, shares)
    torch.testing.assert_close(info_nce(X, Y, targets=shares, temperature=0.3), expected)
    smoothed = torch.full_like(shares, 0.1 / 12) + 0.9 * torch.eye(12)
    expected = info_nce(X, Y, temperature=0.3, label_smoothing=0.1)
    torch.testing.assert_close(info_nce(X, Y, targets=smoothed, temperature=0.3), expected)


def test_the_weighted_mean_is_that_of_cross_entropy_with_weights() -> None:
    # Weights of classes there: one class a row.
    weight = torch.linspace(0.5, 2, 12, dtype=torch.float64).requires_grad_()
    mine = info_nce(X, Y, temperature=0.3, weight=weight)
    expected = cross_entropy(X @ Y.T / 0.3, torch.arange(12), weight=weight.detach())
    torch.testing.assert_close(mine, expected)
    rows = info_nce(X, Y, temperature=0.3, reduction="none")
    (found,) = torch.autograd.grad(mine, weight)
    torch.testing.assert_close(found, ((rows - mine) / weight.sum()).detach())


def test_key_bias_twice_differentiated() -> None:
    bias = torch.linspace(-1, 2, 12, dtype=torch.float64)
    temperature = torch.tensor(0.3, dtype=torch.float64)
    found, exact = (
        hessian(lambda t, m=m: m(X, Y, key_bias=bias * t, temperature=t), temperature)
        for m in (info_nce, reference.info_nce)
    )
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=0)


def test_one_positive_of_several_is_the_one_positive() -> None:
    at = torch.arange(12).roll(1)
    expected = info_nce(X, Y, positive=at)
    torch.testing.assert_close(info_nce(X, Y, positive=at[:, None]), expected)
    padded = torch.stack([torch.full_like(at, -1), at], dim=1)
    torch.testing.assert_close(info_nce(X, Y, positive=padded), expected)


def test_excluding_every_negative_leaves_nothing() -> None:
    # A mask of false negatives may have the positives: they stay.
    everything = torch.ones_like(SAME)
    x = X.clone().requires_grad_()
    loss = info_nce(x, Y, exclude_mask=everything, symmetric=True)
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert not x.grad.any()
    two = info_nce(X[:1], Y[:2], positive=torch.tensor([[0]]), exclude_mask=everything[:1, :2])
    assert two.abs() < 1e-15


def test_equal_labels_excluded_are_the_negatives_of_the_other_label() -> None:
    expected = info_nce(X, Y, labels=CLASSES, negatives="other_label", symmetric=True)
    found = info_nce(X, Y, exclude_mask=SAME, symmetric=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_exclusions_of_keys_beside_features_of_positives() -> None:
    options = {"positive_key": X + Y, "exclude_mask": SAME, "temperature": 0.3}
    found, exact = (value_and_grads(partial(m, key=Y, **options), {"query": X}) for m in (
        info_nce, reference.info_nce
    ))  # fmt: skip
    for name, expected in exact.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_of_a_thousand(dtype: torch.dtype) -> None:
    x, y = (normalize(z, dim=1).to(dtype) for z in (X, Y))
    options = {"positive_mask": SAME, "exclude_mask": ~SAME & (X[:, :1] < 0), "temperature": 1e-3}
    exact = value_and_grads(
        lambda query: reference.info_nce(query, y.double(), **options), {"query": x.double()}
    )
    found = value_and_grads(lambda query: info_nce(query, y, **options), {"query": x})
    for name, expected in exact.items():
        torch.testing.assert_close(found[name].double(), expected, rtol=2e-5, atol=1e-5)


def test_no_row_and_no_positive() -> None:
    empty = NOWHERE[:0]
    for options in ({"positive_mask": empty}, {"exclude_mask": empty, "positive_mask": empty}):
        assert info_nce(X[:0], Y, reduction="sum", **options) == 0
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    loss = info_nce(x, y, positive_mask=NOWHERE, exclude_mask=~NOWHERE, symmetric=True)
    gradients = torch.autograd.grad(loss, [x, y])
    assert loss == 0
    assert not any(g.any() for g in gradients)
    assert info_nce(X, Y[:0], positive_mask=NOWHERE[:, :0]) == 0
    assert info_nce(X, Y, positive=torch.empty(12, 0, dtype=torch.int64)) == 0


def test_only_blocks_of_a_function_are_asked_for() -> None:
    n, m, sizes = 1500, 3000, []

    def far(rows: Tensor, columns: Tensor) -> Tensor:
        sizes.append(len(rows) * len(columns))
        return (rows[:, None] - columns).abs() > 2900

    x, y = torch.randn(n, 4, requires_grad=True), torch.randn(m, 4, requires_grad=True)
    near = {"positive_mask": lambda rows, columns: ~far(rows, columns), "exclude_mask": far}
    (grad,) = torch.autograd.grad(info_nce(x, y, **near), x, create_graph=True)
    torch.autograd.grad(grad.square().sum(), y)
    assert sum(sizes) >= n * m
    assert max(sizes) <= 2**20 < n * m


def test_no_tensor_is_as_large_as_the_mask() -> None:
    n, m = 1500, 3000
    few, some = torch.rand(n, m) < 0.01, torch.rand(n, m) < 0.3
    x, y = torch.randn(n, 4, requires_grad=True), torch.randn(m, 4, requires_grad=True)
    with Watch() as watch:
        info_nce(x, y, positive_mask=few, exclude_mask=some, reduction="none").sum().backward()
    assert watch.largest <= 2**20


def test_a_function_is_refused_where_tensors_alone_are_taken() -> None:
    def f(rows: Tensor, columns: Tensor) -> Tensor:
        return rows[:, None] == columns

    for name in ("positive_mask", "exclude_mask"):
        for symmetric in (False, True):
            with pytest.raises(RuntimeError, match=rf"^{name}: expected a tensor under torch"):
                torch.func.grad(
                    lambda q, n=name, s=symmetric: info_nce(q, Y, symmetric=s, **{n: f})
                )(X)


def test_triton_refuses_exclusions_by_name_and_takes_several_positives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "triton_interpreted", lambda: True)
    monkeypatch.setattr(backends, "_TRITON_INSTALLED", True)
    problem = Problem(12, 12, 6, torch.float32, torch.device("cpu"))
    assert BACKENDS["triton"].why_not(problem) is None
    x, y = X.float(), Y.float()
    with pytest.raises(
        BackendUnavailableError, match=r"^triton: expected no exclude_mask, got one"
    ):
        info_nce(x, y, exclude_mask=SAME, backend="triton")
    info_nce(x, y, exclude_mask=SAME)  # "auto" takes torch


def test_the_module_passes_them_on() -> None:
    options = {"positive_mask": SAME, "exclude_mask": ~SAME, "weight": torch.linspace(0, 1, 12)}
    assert torch.equal(InfoNCELoss()(X, Y, **options), info_nce(X, Y, **options))
    options = {"targets": SAME.float(), "key_bias": torch.linspace(0, 1, 12)}
    assert torch.equal(InfoNCELoss()(X, Y, **options), info_nce(X, Y, **options))


MASK = "expected shape [12, 12], a value for each query and key, got [12, 11]"
LAST = (torch.arange(12) == 11).float()
WRONG: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"positive_mask": SAME.int()}, "positive_mask: expected dtype bool, got int32"),
    (TypeError, {"exclude_mask": 3}, "exclude_mask: expected a tensor or a function of blocks, got "
     "int"),
    (TypeError, {"targets": SAME}, "targets: expected a floating tensor, got bool"),
    (ValueError, {"positive_mask": SAME[:, :11]}, f"positive_mask: {MASK}"),
    (ValueError, {"targets": SAME[:, :11].float()}, f"targets: {MASK}"),
    (ValueError, {"exclude_mask": SAME.to("meta")}, "exclude_mask: expected a tensor on cpu, got "
     "meta"),
    (ValueError, {"targets": -SAME.float()}, "targets: expected finite shares >= 0, got -1.0"),
    (ValueError, {"targets": SAME.float() / 0}, "targets: expected finite shares >= 0, got nan"),
    (ValueError, {"targets": torch.full((12, 12), torch.inf).bfloat16()}, "targets: expected "
     "finite shares >= 0, got inf"),
    (ValueError, {"targets": torch.ones(12, 12, requires_grad=True)}, "targets: expected no "
     "gradient, as it would take all scores (detach them), got a tensor that requires one"),
    (ValueError, {"positive_mask": SAME, "targets": SAME.float()}, "targets: expected None beside "
     "positive_mask, got both"),
    (ValueError, {"positive": CLASSES[:, None], "positive_mask": SAME}, "positive_mask: expected "
     "None beside positive, got both"),
    (ValueError, {"positive_mask": SAME, "positive_key": Y}, "positive_key: expected None beside "
     "positive_mask, got a tensor"),
    (TypeError, {"positive": CLASSES[:, None].int()}, "positive: expected dtype int64, got int32"),
    (ValueError, {"positive": CLASSES[:5, None]}, "positive: expected shape [12] or [12, P], rows "
     "of key for each query, got [5, 1]"),
    (ValueError, {"positive": CLASSES[:, None] - 2}, "positive: expected rows of key, 0 .. 11, or "
     "-1 for none, got -2"),
    (ValueError, {"positive": CLASSES[:, None] + 8}, "positive: expected rows of key, 0 .. 11, or "
     "-1 for none, got 12"),
    (ValueError, {"positive": CLASSES[:, None], "key": Y[:0]}, "key: expected at least 1 row with "
     "positive, got 0"),
    (ValueError, {"positive": CLASSES[:, None], "symmetric": True}, "positive: expected None with "
     "symmetric=True (positive_mask tells the positives of both directions), got one"),
    (ValueError, {"positive_mask": SAME, "symmetric": True, "exclude_self": True}, "exclude_self: "
     "expected False with symmetric=True, got True"),
    (ValueError, {"positive_mask": SAME[:, :11], "symmetric": True, "key": Y[:11]}, "key: expected "
     "the 12 rows of query with symmetric=True, got 11 rows"),
    (ValueError, {"positive_mask": SAME, "negatives": "other_label", "labels": CLASSES},
     "negatives: expected \"all\" with positive_mask (exclude_mask leaves pairs out), got "
     "'other_label'"),
    (ValueError, {"exclude_mask": SAME, "label_smoothing": 0.1}, "label_smoothing: expected 0.0 "
     "with exclude_mask, got 0.1"),
    (ValueError, {"positive_mask": SAME, "label_smoothing": 0.1}, "label_smoothing: expected 0.0 "
     "with positive_mask, got 0.1"),
    (TypeError, {"weight": 2.0}, "weight: expected a tensor, got float"),
    (TypeError, {"weight": CLASSES}, "weight: expected a floating tensor, got int64"),
    (ValueError, {"weight": torch.ones(11)}, "weight: expected shape [12], one number a query, got "
     "[11]"),
    (ValueError, {"weight": -torch.ones(12)}, "weight: expected finite numbers >= 0 in "
     "float64, got -1.0"),
    (ValueError, {"weight": LAST * torch.inf, "reduction": "sum"}, "weight: expected finite "
     "numbers >= 0 in float64, got nan"),
    (ValueError, {"weight": (1 - LAST).log().neg(), "reduction": "none"}, "weight: expected finite "
     "numbers >= 0 in float64, got inf"),
    (ValueError, {"weight": torch.zeros(12)}, "weight: expected a finite sum > 0 in float64 with "
     "reduction=\"mean\", got 0.0"),
    (ValueError, {"key_bias": torch.ones(11)}, "key_bias: expected shape [12], one number a key, "
     "got [11]"),
    (ValueError, {"key_bias": torch.full((12,), -torch.inf)}, "key_bias: expected finite numbers "
     "(exclude_mask leaves keys out), got -inf"),
    (ValueError, {"key_bias": torch.ones(12), "symmetric": True}, "key_bias: expected None with "
     "symmetric=True (average two calls, each with the biases of its keys), got a tensor"),
    (TypeError, {"exclude_mask": lambda r, c: 3}, "exclude_mask: expected a bool tensor [12, 12] "
     "of its function, got int"),
    (TypeError, {"positive_mask": lambda r, c: r[:, None] * c}, "positive_mask: expected a bool "
     "tensor [12, 12] of its function, got dtype int64"),
    (TypeError, {"targets": lambda r, c: r[:, None] == c}, "targets: expected a floating tensor "
     "[12, 12] of its function, got dtype bool"),
    (ValueError, {"exclude_mask": lambda r, c: r == c}, "exclude_mask: expected a bool tensor "
     "[12, 12] of its function, got shape [12]"),
    (ValueError, {"exclude_mask": lambda r, c: SAME.to("meta")}, "exclude_mask: expected a bool "
     "tensor [12, 12] of its function on cpu, got meta"),
    (ValueError, {"targets": lambda r, c: -SAME.float()}, "targets: expected finite shares >= 0, "
     "got -1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "message"), WRONG, ids=[w[2][:48] for w in WRONG])
def test_wrong_arguments(kind: type[Exception], change: dict[str, Any], message: str) -> None:
    with pytest.raises(kind) as caught:
        info_nce(**({"query": X, "key": Y} | change))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (LAST.double() * 1e300, "finite numbers >= 0 in float32, got 1e+300"),
        (torch.full((12,), 1e-60, dtype=torch.float64), 'with reduction="mean", got 0.0'),
        (torch.full((12,), 3e38), 'a finite sum > 0 in float32 with reduction="mean", got inf'),
    ],
)
def test_weights_are_checked_in_the_dtype_of_the_loss(weight: Tensor, message: str) -> None:
    x, y = X.float(), Y.float()
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        info_nce(x, y, weight=weight)
    assert info_nce(X, Y, weight=weight).isfinite()
