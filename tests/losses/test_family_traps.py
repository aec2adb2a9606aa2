"""What other libraries' contrastive losses get wrong, for the relatives and options of `info_nce`.

The same traps of plain `info_nce` are in test_info_nce.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast import losses, reference
from tests.support.budget import assert_within_budget, value_and_grads

pytestmark = pytest.mark.usefixtures("_either_way")

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@dataclass(frozen=True)
class Member:
    id: str
    function: str
    tensors: str  # names of [N, D] tensors
    options: Callable[[int], dict[str, Any]] = lambda n: {}
    hard: int = 0
    extra: int = 0
    scalars: dict[str, float] = field(default_factory=dict)


def labels(n: int) -> Tensor:
    """Three classes; where n > 3 the last row is alone in a fourth."""
    return torch.where(torch.arange(n) < max(n - 1, 3), torch.arange(n) % 3, 3)


def options_of_positive(n: int) -> dict[str, Any]:
    return {"positive": torch.arange(n).roll(n // 2), "exclude_self": True}


def options_of_labels(n: int) -> dict[str, Any]:
    return {"labels": labels(n), "negatives": "other_label", "label_smoothing": 0.2}


MEMBERS = [
    Member("nt_xent", "nt_xent", "first second"),
    Member("dcl", "dcl", "first second"),
    Member("siglip", "siglip", "query key", scalars={"bias": -2.0}),
    Member("sup_con", "sup_con", "query", lambda n: {"labels": labels(n)}),
    Member("sup_con_key", "sup_con", "query key", lambda n: {"labels": labels(n)}),
    Member("positive", "info_nce", "query key", options_of_positive),
    Member("smoothing", "info_nce", "query key", lambda n: {"label_smoothing": 0.1}),
    Member("everything", "info_nce", "query key positive_key", options_of_labels, hard=3, extra=5),
]
members = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.id)


def draw(member: Member, n: int, d: int, dtype: torch.dtype, temperature: float) -> dict[str, Any]:
    g = torch.Generator().manual_seed(n + d)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(member.tensors.split(), (n, d))
    if member.hard:
        shapes["hard_negatives"] = (n, member.hard, d)
    if member.extra:
        shapes["extra_negatives"] = (member.extra, d)
    drawn = {k: normalize(torch.randn(s, generator=g), dim=-1).to(dtype) for k, s in shapes.items()}
    numbers = {"temperature": temperature, **member.scalars}
    return drawn | {k: torch.tensor(v) for k, v in numbers.items()}


def three_ways(
    member: Member, tensors: dict[str, Tensor], options: dict[str, Any], upstream: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    ours = partial(getattr(losses, member.function), **options)
    measure = partial(getattr(reference, member.function), **options)
    exact = value_and_grads(measure, {k: v.double() for k, v in tensors.items()}, upstream)
    plain = value_and_grads(measure, {k: v.float() for k, v in tensors.items()}, upstream)
    return value_and_grads(ours, tensors, upstream), plain, exact


def check(member: Member, tensors: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    """Value and gradients within their budgets, for an upstream gradient other than 1.

    The gradients of the scalars are sums over all pairs of terms of both signs; the softmax weights
    of a row add up to at most 2, those of siglip to the number of keys. So is the value of sup_con,
    whose positives' scores are averaged.
    """
    upstream = torch.tensor(0.7)
    ours, plain, exact = three_ways(member, tensors, options, upstream)
    rows = {k: v.float() for k, v in tensors.items() if v.dim()}
    longest = max(v.norm(dim=-1).max().item() for v in rows.values() if v.numel())
    weights = len(next(iter(rows.values()))) if member.function == "siglip" else 2
    slope = 0.7 * weights * longest**2 / tensors["temperature"].item() ** 2
    terms = {"temperature": slope, "bias": 0.7 * weights}
    if member.function == "sup_con":
        terms["value"] = largest_score(tensors)
    assert ours["value"].dtype == torch.float32
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms)
    return ours["value"]


def largest_score(tensors: dict[str, Tensor]) -> float:
    """Of a query of sup_con and its candidates, among which it is not itself."""
    query = tensors["query"].float()
    scores = query @ tensors.get("key", query).float().T
    if "key" not in tensors:
        scores = scores.fill_diagonal_(0)
    return scores.abs().max().item() / tensors["temperature"].item()


@members
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_seventy_rows(member: Member, dtype: torch.dtype) -> None:
    # Not a multiple of a tile. Statistics are float32 whatever the dtype of the features.
    check(member, draw(member, 70, 20, dtype, 0.2), member.options(70))


@members
def test_a_weight_for_every_row(member: Member) -> None:
    tensors, options = draw(member, 70, 20, torch.float32, 0.2), member.options(70)
    count = 140 if member.tensors == "first second" else 70
    upstream = torch.linspace(-1, 1, count).masked_fill(torch.arange(count) % 7 == 3, 0.0)
    ours, plain, exact = three_ways(member, tensors, options | {"reduction": "none"}, upstream)
    size = upstream.abs().sum().item() * (70 if member.function == "siglip" else 2)
    terms = {"temperature": size / 0.2**2, "bias": size}
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms)


@members
def test_non_contiguous_features(member: Member) -> None:
    tensors = draw(member, 20, 24, torch.float32, 0.3)
    scattered = {
        k: v.repeat_interleave(2, dim=-1)[..., ::2] if v.dim() else v for k, v in tensors.items()
    }
    assert not any(v.is_contiguous() for v in scattered.values() if v.dim())
    check(member, scattered, member.options(20))


@members
@pytest.mark.parametrize("sign", [1, -1], ids=["high", "low"])
def test_logits_of_a_thousand(member: Member, sign: int) -> None:
    # Most logits are 1024, 0 or -1024: equal ones are exactly equal, as their rounding, which is
    # nobody's to choose, would otherwise be the result.
    n = 16
    tensors = draw(member, n, n, torch.float32, 1.0)
    names = [name for name, tensor in tensors.items() if tensor.dim()]
    for k, name in enumerate(names):
        # Rows of one class, or of one index, point the same way; or every second the other way.
        along = torch.eye(n)[labels(n) if member.function == "sup_con" else torch.arange(n)]
        signs = torch.where(torch.arange(n) % 2 == k % 2, 1, sign).unsqueeze(1)
        whole = tensors[name].dim() == 2 and len(tensors[name]) == n
        tensors[name] = 32 * (signs * along if whole else tensors[name])
    value = check(member, tensors, member.options(n))
    assert value.isfinite()
    if sign < 0 and member.id != "positive":
        assert value > 100


def test_sup_con_is_not_disturbed_by_its_own_score() -> None:
    # A row is no candidate of itself: its score of 10^5 has no part in the others' rounding.
    n, g = 16, torch.Generator().manual_seed(2)
    x = 300 * torch.eye(n) + 0.0001 * torch.randn(n, n, generator=g)
    tensors = {"query": x, "temperature": torch.tensor(1.0)}
    check(next(m for m in MEMBERS if m.id == "sup_con"), tensors, {"labels": torch.arange(n) % 3})


@members
def test_reruns_are_bit_equal_and_the_value_needs_no_gradient(member: Member) -> None:
    tensors = draw(member, 70, 20, torch.float32, 0.2)
    loss = partial(getattr(losses, member.function), **member.options(70))
    first, second = value_and_grads(loss, tensors), value_and_grads(loss, tensors)
    assert all(torch.equal(first[k], second[k]) for k in first)
    with torch.no_grad():
        assert torch.equal(loss(**tensors), first["value"])


def test_smoothing_is_not_disturbed_by_keys_of_the_own_label() -> None:
    # One negative is left of many keys that all point nearly the same way, as at the start of
    # training: their sum has no part in its rounding.
    n, g = 1500, torch.Generator().manual_seed(0)
    cone = 0.1 * torch.randn(2, n, 16, generator=g) + normalize(torch.randn(16, generator=g), dim=0)
    x, y = normalize(cone, dim=-1)
    options = {"labels": (torch.arange(n) == 5).long(), "negatives": "other_label"}
    tensors = {"query": x, "key": y, "temperature": torch.tensor(0.07)}
    member = next(m for m in MEMBERS if m.id == "smoothing")
    check(member, tensors, options | {"label_smoothing": 0.1})


# --- known answers --------------------------------------------------------------------------------


def all_at_minus_a_tenth(rows: int) -> Tensor:
    """Unit rows [rows, rows] with inner products of -0.1; at most 11 exist."""
    gram = 1.1 * torch.eye(rows, dtype=torch.float64) - 0.1
    return torch.linalg.cholesky(gram).float()


@pytest.mark.parametrize("name", ["nt_xent", "dcl", "sup_con"])
def test_low_temperature_with_every_similarity_at_minus_a_tenth(name: str) -> None:
    # A fixed maximum of 1 / temperature makes these -inf.
    member = next(m for m in MEMBERS if m.id == name)
    z = all_at_minus_a_tenth(8)
    tensors = {"first": z[:4], "second": z[4:]} if name != "sup_con" else {"query": z}
    options = {} if name != "sup_con" else {"labels": torch.arange(8) % 4}
    value = check(member, tensors | {"temperature": torch.tensor(0.01)}, options)
    assert value.item() == pytest.approx(math.log(6 if name == "dcl" else 7), rel=2e-5)


def test_siglip_at_low_temperature() -> None:
    z = all_at_minus_a_tenth(8)
    tensors = {"query": z[:4], "key": z[4:], "temperature": torch.tensor(0.01)}
    value = check(MEMBERS[2], tensors | {"bias": torch.tensor(-10.0)}, {})
    assert value.item() == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_rows(dtype: torch.dtype) -> None:
    row = normalize(torch.randn(1, 24, generator=torch.Generator().manual_seed(4))).to(dtype)
    x = row.repeat(50, 1)
    eps = torch.finfo(torch.float32).eps
    same = {"first": x, "second": x}
    for function, count in ((losses.nt_xent, 99), (losses.dcl, 98)):
        found = value_and_grads(function, same)
        assert found["value"].item() == pytest.approx(math.log(count), rel=4 * eps)
        assert found["first"].abs().max() <= 8 * eps / (50 * 0.1)
    found = value_and_grads(partial(losses.sup_con, labels=torch.arange(50) % 2), {"query": x})
    score = 1 / 0.07  # the mean of the positives' scores is rounded to a share of it
    assert found["value"].item() == pytest.approx(math.log(49), abs=4 * eps * score)
    assert found["query"].abs().max() <= 8 * eps / (50 * 0.07)


def test_one_row_each() -> None:
    x, y = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1))
    pair = {"first": x, "second": y}
    for function in (losses.nt_xent, losses.dcl):
        found = value_and_grads(function, pair)
        assert found["value"] == 0.0
        assert not found["first"].any()
        assert not found["second"].any()
    found = value_and_grads(partial(losses.sup_con, labels=torch.tensor([3])), {"query": x})
    assert found["value"] == 0.0
    assert not found["query"].any()
    found = value_and_grads(losses.siglip, {"query": x, "key": y})
    logit = 10 * (x @ y.T).item() - 10
    assert found["value"].item() == pytest.approx(math.log1p(math.exp(-logit)), rel=1e-6)


@pytest.mark.parametrize("given_key", [False, True])
def test_a_row_without_positives_has_no_loss_and_no_gradient(given_key: bool) -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    own = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    options = {"key": x.detach().clone(), "exclude_self": True} if given_key else {}
    every = losses.sup_con(x, own, reduction="none", **options)
    every.sum().backward()
    assert every[3] == 0.0
    assert (every[own != 2] > 0).all()
    assert losses.sup_con(x, own, **options).item() == pytest.approx(every.mean().item(), rel=1e-6)
    assert x.grad is not None
    if given_key:  # as a key it may not move either: it has no gradient here
        assert not x.grad[3].any()
    lonely = torch.arange(7)
    (moved,) = torch.autograd.grad(losses.sup_con(x, lonely, **options), x)
    assert not moved.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_row_without_negatives_has_no_loss_and_no_gradient(smoothing: float) -> None:
    x, key = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    options = {"labels": torch.tensor([0, 1, 2]), "key_labels": torch.tensor([0, 0, 0])}
    every = losses.info_nce(
        x, key, **options, negatives="other_label", label_smoothing=smoothing, reduction="none"
    )
    every.sum().backward()
    assert every[0] == 0.0
    assert x.grad is not None
    assert not x.grad[0].any()
    assert x.grad[1:].any(dim=1).all()


@pytest.mark.parametrize("reduction", ["sum", "none"])
@members
def test_no_rows(member: Member, reduction: str) -> None:
    tensors = draw(member, 0, 4, torch.float32, 0.2)
    options = {"labels": torch.empty(0, dtype=torch.int64)} if "labels" in member.options(4) else {}
    options = member.options(4) | options | {"reduction": reduction}
    if "positive" in options:
        options["positive"] = torch.empty(0, dtype=torch.int64)
    found = value_and_grads(partial(getattr(losses, member.function), **options), tensors)
    assert found["value"].shape == (() if reduction == "sum" else (0,))
    assert not found["value"].any()
    for name, tensor in tensors.items():
        assert found[name].shape == tensor.shape
        assert not found[name].any()


def test_hard_negatives_alone() -> None:
    # No shared key at all: each query has its own candidates.
    g = torch.Generator().manual_seed(6)
    x, positive = torch.randn(2, 70, 20, generator=g)
    tensors = {"query": x, "key": x[:0], "positive_key": positive}
    tensors |= {"hard_negatives": torch.randn(70, 3, 20, generator=g)}
    tensors |= {"temperature": torch.tensor(2.0)}
    check(MEMBERS[-1], tensors, {})
