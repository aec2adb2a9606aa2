"""NT-Xent, DCL, SupCon and SigLIP against their dense references: value and every gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast import losses, reference
from mmcl_fast.losses.torch_backend import score_blocks
from tests.support.budget import assert_within_budget, compute_dtype, value_and_grads

pytestmark = pytest.mark.usefixtures("_either_way")

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@dataclass(frozen=True)
class Case:
    id: str
    loss: str
    n: int
    why: str
    m: int = 0  # 0: as n
    d: int = 24
    temperature: float = 0.3
    classes: int = 0
    options: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("nt_xent", "nt_xent", 35, "every default"),
    Case("nt_xent_one", "nt_xent", 1, "the partner is all there is: loss 0"),
    Case("nt_xent_chunks", "nt_xent", 560, "partners in squares and in rectangles", d=8),
    Case("nt_xent_none", "nt_xent", 40, "gradient needs every upstream",
         options={"reduction": "none"}),
    Case("nt_xent_sum", "nt_xent", 33, "another weight", options={"reduction": "sum"}),
    Case("dcl", "dcl", 35, "the positive is no competitor"),
    Case("dcl_one", "dcl", 1, "no competitor at all"),
    Case("dcl_chunks", "dcl", 560, "squares and rectangles", d=8),
    Case("dcl_none", "dcl", 20, "recomputed", options={"reduction": "none"}),
    Case("sup_con", "sup_con", 40, "many positives", classes=5),
    Case("sup_con_lonely", "sup_con", 12, "most rows have no positive", classes=40),
    Case("sup_con_one_class", "sup_con", 30, "all are positives", classes=1),
    Case("sup_con_key", "sup_con", 30, "keys of their own", m=47, classes=4),
    Case("sup_con_few_keys", "sup_con", 30, "M < N, self among the first", m=9, classes=3,
         options={"exclude_self": True}),
    Case("sup_con_key_self", "sup_con", 30, "self among the keys", m=47, classes=3,
         options={"exclude_self": True, "reduction": "none"}),
    Case("sup_con_chunks", "sup_con", 1100, "squares and rectangles", d=8, classes=7),
    Case("siglip", "siglip", 35, "every default"),
    Case("siglip_more_keys", "siglip", 35, "M > N", m=50),
    Case("siglip_chunks", "siglip", 1100, "two chunks", d=8),
    Case("siglip_none", "siglip", 20, "recomputed", options={"reduction": "none"}),
    Case("siglip_one", "siglip", 1, "no negative"),
]  # fmt: skip


def make(case: Case, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    g = torch.Generator().manual_seed(len(case.id))

    def rows(n: int) -> Tensor:
        return normalize(torch.randn(n, case.d, generator=g)).to(dtype)

    first, second = rows(case.n), rows(case.m or case.n)
    options = dict(case.options)
    tensors = {"temperature": torch.tensor(case.temperature)}
    if case.loss == "sup_con":
        options["labels"] = torch.randint(0, case.classes, (case.n,), generator=g)
        tensors["query"] = first
        if case.m:
            tensors["key"] = second
            options["key_labels"] = torch.randint(0, case.classes, (case.m,), generator=g)
    elif case.loss == "siglip":
        tensors |= {"query": first, "key": second, "bias": torch.tensor(-1.5)}
    else:
        tensors |= {"first": first, "second": second}
    return tensors, options


def upstream_of(case: Case, losses: int) -> Tensor:
    if case.options.get("reduction") != "none":
        return torch.tensor(0.7)
    weights = torch.randn(losses, generator=torch.Generator().manual_seed(9))
    return weights.masked_fill(torch.arange(losses) % 7 == 3, 0.0)


def three_ways(case: Case, dtype: torch.dtype) -> list[dict[str, Tensor]]:
    tensors, options = make(case, dtype)
    dense = partial(getattr(reference, case.loss), **options)
    ours = partial(getattr(losses, case.loss), **options)
    count = case.n * (2 if case.loss in {"nt_xent", "dcl"} else 1)
    upstream = upstream_of(case, count)
    wide = {k: v.to(compute_dtype(dtype)) for k, v in tensors.items()}
    exact = {k: v.double() for k, v in tensors.items()}
    return [
        value_and_grads(function, given, upstream)
        for function, given in ((ours, tensors), (dense, wide), (dense, exact))
    ]


def terms(case: Case) -> dict[str, float]:
    """Sizes of the terms that the gradients of single numbers are sums of: unit rows."""
    count = case.n * (2 if case.loss in {"nt_xent", "dcl"} else 1)
    rows = 1 if case.options.get("reduction", "mean") == "mean" else count
    return {"temperature": 2 * rows / case.temperature**2, "bias": 2.0 * rows}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradients(case: Case, dtype: torch.dtype) -> None:
    ours, plain, exact = three_ways(case, dtype)
    assert ours["value"].dtype == torch.float32
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms(case))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_float64_is_computed_in_float64(case: Case) -> None:
    ours, _, exact = three_ways(case, torch.float64)
    for name, value in ours.items():
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-6, atol=1e-12)
        if name not in {"temperature", "bias"}:  # those were given in float32
            torch.testing.assert_close(value, exact[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", [c for c in CASES if 1 < c.n < 500], ids=lambda c: c.id)
@pytest.mark.parametrize("rows", [1, 7])
def test_chunk_size_changes_rounding_only(
    case: Case, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_blocks, "chunk_rows", lambda n, m: rows)
    test_float64_is_computed_in_float64(case)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_reruns_are_bit_equal(case: Case) -> None:
    tensors, options = make(case, torch.float32)
    loss = partial(getattr(losses, case.loss), **options)
    first, second = (value_and_grads(loss, tensors) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("loss", ["nt_xent", "dcl", "sup_con", "siglip"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_every_subset_of_wanted_gradients(loss: str, reduction: str) -> None:
    case = Case("", loss, 9, "", d=5, classes=3, m=11 if loss in {"sup_con", "siglip"} else 0)
    tensors, options = make(case, torch.float64)
    tensors = {k: v.double() for k, v in tensors.items()}
    options["reduction"] = reduction
    dense = value_and_grads(partial(getattr(reference, loss), **options), tensors)
    for size in range(1, len(tensors) + 1):
        for wanted in itertools.combinations(tensors, size):
            rest = {k: v for k, v in tensors.items() if k not in wanted}
            some = value_and_grads(
                partial(getattr(losses, loss), **options, **rest), {k: tensors[k] for k in wanted}
            )
            for name, value in some.items():
                torch.testing.assert_close(value, dense[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("scale", [1000.0, -1000.0])
@pytest.mark.parametrize("name", ["nt_xent", "dcl", "siglip"])
def test_logits_of_a_thousand(name: str, scale: float) -> None:
    x = torch.eye(12) * abs(scale) ** 0.5
    tensors = {"a": x, "b": x * (1 if scale > 0 else -1)}
    loss, dense = getattr(losses, name), getattr(reference, name)
    mine = value_and_grads(lambda a, b: loss(a, b, temperature=1.0), tensors)
    plain = value_and_grads(lambda a, b: dense(a, b, temperature=1.0), tensors)
    wide = {k: v.double() for k, v in tensors.items()}
    exact = value_and_grads(lambda a, b: dense(a, b, temperature=1.0), wide)
    assert_within_budget(mine, plain=plain, exact=exact)
    assert mine["value"].isfinite()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_rows(dtype: torch.dtype) -> None:
    x = normalize(torch.randn(1, 24, generator=torch.Generator().manual_seed(4))).to(dtype)
    x = x.repeat(20, 1)
    assert losses.nt_xent(x, x).item() == pytest.approx(torch.tensor(39.0).log().item(), rel=1e-6)
    assert losses.dcl(x, x).item() == pytest.approx(torch.tensor(38.0).log().item(), rel=1e-5)


Wrong = tuple[type[Exception], Callable[[], Tensor], str]
X, Y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
WRONG: list[Wrong] = [
    (ValueError, lambda: losses.nt_xent(X, Y[:3]), "second: expected the 4 rows of first, got 3"),
    (TypeError, lambda: losses.nt_xent(X, Y.double()),
     "second: expected the dtype of first, float32, got float64"),
    (ValueError, lambda: losses.dcl(X, Y[:, :2]), "second: expected 3 features as in first, got 2"),
    (TypeError, lambda: losses.dcl([X], Y), "first: expected a tensor, got list"),  # type: ignore[arg-type]
    (ValueError, lambda: losses.nt_xent(X[:0], Y[:0]),
     'first: expected at least 1 row with reduction="mean", got 0'),
    (ValueError, lambda: losses.sup_con(X, torch.arange(3)),
     "labels: expected shape [4], one label a row of query, got [3]"),
    (ValueError, lambda: losses.sup_con(X, torch.arange(4), exclude_self=True),
     "exclude_self: expected False without key, got True"),
    (ValueError, lambda: losses.sup_con(X, torch.arange(4), key_labels=torch.arange(4)),
     "key_labels: expected None without key, got a tensor"),
    (ValueError, lambda: losses.siglip(X, Y[:3]),
     "key: expected at least the 4 rows of query, whose positives they are, got 3 rows"),
    (ValueError, lambda: losses.siglip(X, Y, bias=float("nan")),
     "bias: expected a finite number, got nan"),
    (TypeError, lambda: losses.siglip(X, Y, bias="a"),  # type: ignore[arg-type]
     "bias: expected a number or a tensor of one element, got str"),
    (ValueError, lambda: losses.nt_xent(X, Y, temperature=0.0),
     "temperature: expected a number > 0 in the normal range of float32, got 0.0"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call", "message"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_wrong_arguments(kind: type[Exception], call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
