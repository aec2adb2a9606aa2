"""The references of every option and of InfoNCE's relatives, against loops over samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import reference

N, M, D, K = 5, 7, 3, 2
LABELS = torch.tensor([0, 1, 2, 0, 1])
KEY_LABELS = torch.tensor([0, 0, 1, 2, 1, 1, 0])
POSITIVE = torch.tensor([3, 0, 6, 6, 1])
COUNTS = torch.tensor([2, 0, 1, 1, 2])
Row = list[float]


@dataclass(frozen=True)
class Case:
    id: str
    tensors: tuple[str, ...] = ()  # beside query and key
    options: dict[str, Any] = field(default_factory=dict)


OTHER = {"negatives": "other_label", "labels": LABELS, "key_labels": KEY_LABELS}
CASES = [
    Case("plain"),
    Case("positive", options={"positive": POSITIVE}),
    Case("positive_exclude_self", options={"positive": POSITIVE, "exclude_self": True}),
    Case("positive_other_label", options={"positive": POSITIVE, **OTHER}),
    Case("exclude_self", ("positive_key",), {"exclude_self": True}),
    Case("extra", ("extra_negatives",)),
    Case("extra_other_label", ("extra_negatives",), OTHER),
    Case("hard", ("hard_negatives",), OTHER),
    Case("hard_counts", ("hard_negatives",), {"hard_negative_counts": COUNTS}),
    Case(
        "smoothing_hard_counts",
        ("hard_negatives",),
        {"hard_negative_counts": COUNTS, "label_smoothing": 0.3},
    ),
    Case("smoothing", options={"label_smoothing": 0.3}),
    Case("smoothing_other_label", options={"label_smoothing": 0.3, **OTHER}),
    Case(
        "everything",
        ("positive_key", "extra_negatives", "hard_negatives"),
        {"label_smoothing": 0.2, "exclude_self": True, **OTHER},
    ),
]


def inputs(*names: str) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(17)
    shapes = {
        "query": (N, D), "key": (M, D), "positive_key": (N, D), "extra_negatives": (K, D),
        "hard_negatives": (N, K, D), "first": (N, D), "second": (N, D),
    }  # fmt: skip
    drawn = {k: torch.randn(s, dtype=torch.float64, generator=g) for k, s in shapes.items()}
    return {k: drawn[k] for k in names} | {"temperature": torch.tensor(0.6, dtype=torch.float64)}


def score(a: Row, b: Row) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / 0.6


def loss_of_row(positive: float, negatives: list[float], smoothing: float) -> float:
    total = sum(math.exp(s) for s in [positive, *negatives])
    terms = [-math.log(math.exp(s) / total) for s in [positive, *negatives]]
    return (1 - smoothing) * terms[0] + smoothing * sum(terms) / len(terms)


def info_nce_by_loops(tensors: dict[str, Tensor], options: dict[str, Any]) -> list[float]:
    rows = {name: tensor.tolist() for name, tensor in tensors.items()}
    keys, losses = rows["key"], []
    for i, query in enumerate(rows["query"]):
        if "positive_key" in rows:
            column, positive = None, rows["positive_key"][i]
        else:
            column = POSITIVE[i].item() if "positive" in options else i
            positive = keys[column]
        negatives = []
        for j, key in enumerate(keys):
            same_label = "labels" in options and LABELS[i] == KEY_LABELS[j]
            itself = options.get("exclude_self", False) and i == j
            if j != column and not same_label and not itself:
                negatives.append(score(query, key))
        negatives += [score(query, key) for key in rows.get("extra_negatives", [])]
        own = rows.get("hard_negatives", [[]] * N)[i]
        if "hard_negative_counts" in options:
            own = own[: COUNTS[i]]
        negatives += [score(query, key) for key in own]
        smoothing = options.get("label_smoothing", 0.0)
        losses.append(loss_of_row(score(query, positive), negatives, smoothing))
    return losses


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_info_nce_is_its_formula(case: Case) -> None:
    tensors = inputs("query", "key", *case.tensors)
    losses = reference.info_nce(**tensors, **case.options, reduction="none")
    expected = info_nce_by_loops(tensors, case.options)
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_symmetric_smoothing_is_the_mean_of_both_directions() -> None:
    tensors = inputs("query", "positive_key")
    x, y = tensors["query"], tensors["positive_key"]
    options = {"label_smoothing": 0.3, "reduction": "none", "temperature": 0.6}
    both = reference.info_nce(x, y, symmetric=True, **options)
    forward, backward = (reference.info_nce(a, b, **options) for a, b in ((x, y), (y, x)))
    torch.testing.assert_close(both, (forward + backward) / 2, rtol=1e-14, atol=0.0)


def test_smoothing_is_that_of_torchs_cross_entropy() -> None:
    tensors = inputs("query", "key")
    losses = reference.info_nce(**tensors, label_smoothing=0.1)
    logits = tensors["query"] @ tensors["key"].T / tensors["temperature"]
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(N), label_smoothing=0.1)
    torch.testing.assert_close(losses, expected, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_row_without_negatives_has_loss_0(smoothing: float) -> None:
    tensors = inputs("query", "key")
    options = {"labels": LABELS, "key_labels": torch.zeros(M, dtype=torch.int64)}
    options |= {"negatives": "other_label", "label_smoothing": smoothing}
    losses = reference.info_nce(**tensors, **options, reduction="none")
    assert (losses == 0).tolist() == (LABELS == 0).tolist()


def test_stopped_keys_are_all_of_them() -> None:
    names = ("key", "positive_key", "extra_negatives", "hard_negatives")
    tensors = inputs("query", *names)
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    reference.info_nce(**leaves, stop_gradient="key").backward()
    assert [k for k, v in leaves.items() if v.grad is not None] == ["query", "temperature"]


# --- relatives ------------------------------------------------------------------------------------


def by_loops(name: str, tensors: dict[str, Tensor], **options: Any) -> list[float]:
    rows = {k: v.tolist() for k, v in tensors.items()}
    losses = []
    if name in ("nt_xent", "dcl"):
        anchors = rows["first"] + rows["second"]
        for i, anchor in enumerate(anchors):
            other = (i + N) % (2 * N)
            skipped = {i, other} if name == "dcl" else {i}
            scores = [score(anchor, z) for j, z in enumerate(anchors) if j not in skipped]
            denominator = math.log(sum(math.exp(s) for s in scores))
            losses.append(denominator - score(anchor, anchors[other]))
    elif name == "siglip":
        for i, query in enumerate(rows["query"]):
            logits = [score(query, key) - 1.5 for key in rows["positive_key"]]
            signed = [-s if i == j else s for j, s in enumerate(logits)]
            losses.append(sum(math.log1p(math.exp(s)) for s in signed))
    else:
        keys = rows.get("key", rows["query"])
        key_labels = KEY_LABELS if "key" in rows else LABELS
        no_self = "key" not in rows or options.get("exclude_self", False)
        for i, query in enumerate(rows["query"]):
            candidates = [j for j in range(len(keys)) if not (no_self and i == j)]
            positives = [j for j in candidates if key_labels[j] == LABELS[i]]
            total = math.log(sum(math.exp(score(query, keys[j])) for j in candidates))
            terms = [total - score(query, keys[j]) for j in positives]
            losses.append(sum(terms) / len(terms) if terms else 0.0)
    return losses


RELATIVES: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("nt_xent", ("first", "second"), {}),
    ("dcl", ("first", "second"), {}),
    ("siglip", ("query", "positive_key"), {"bias": -1.5}),
    ("sup_con", ("query",), {"labels": LABELS}),
    ("sup_con", ("query", "key"), {"labels": LABELS, "key_labels": KEY_LABELS}),
    ("sup_con", ("query", "key"),
     {"labels": LABELS, "key_labels": KEY_LABELS, "exclude_self": True}),
]  # fmt: skip


def call(name: str, tensors: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    function: Callable[..., Tensor] = getattr(reference, name)
    renamed = {"key" if name == "siglip" and k == "positive_key" else k: v
               for k, v in tensors.items()}  # fmt: skip
    return function(**renamed, **options)


@pytest.mark.parametrize(("name", "names", "options"), RELATIVES)
def test_relatives_are_their_formulas(
    name: str, names: tuple[str, ...], options: dict[str, Any]
) -> None:
    tensors = inputs(*names)
    losses = call(name, tensors, options | {"reduction": "none"})
    assert losses.tolist() == pytest.approx(by_loops(name, tensors, **options), rel=1e-12)
    mean = sum(losses.tolist()) / len(losses)
    assert call(name, tensors, options).item() == pytest.approx(mean, rel=1e-13)
    total = call(name, tensors, options | {"reduction": "sum"}).item()
    assert total == pytest.approx(mean * len(losses), rel=1e-13)


def test_a_row_without_positives_has_loss_0_and_no_gradient() -> None:
    query = inputs("query")["query"].requires_grad_()
    losses = reference.sup_con(query, LABELS, reduction="none")
    assert losses.tolist()[2] == 0.0
    assert all(losses[i] > 0 for i in (0, 1, 3, 4))
    reference.sup_con(query[:1], LABELS[:1]).backward()
    assert query.grad is not None
    assert not query.grad.any()
    reference.sup_con(query, LABELS, key=query[:0].detach(), key_labels=LABELS[:0]).backward()
    assert not query.grad.any()


def test_one_pair_alone() -> None:
    x, y = inputs("first", "second")["first"][:1].requires_grad_(), torch.ones(1, D).double()
    for loss in (reference.nt_xent(x, y), reference.dcl(x, y)):
        (moved,) = torch.autograd.grad(loss, x)
        assert loss == 0.0
        assert not moved.any()


def test_siglip_is_exact_where_logits_are_large() -> None:
    x = torch.full((1, 1), 5.0, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[-5.0], [5.0]], dtype=torch.float64)
    loss = reference.siglip(x, y, temperature=1.0, bias=0.0)
    (moved,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(2 * (25 + math.log1p(math.exp(-25))), rel=1e-15)
    assert moved.item() == pytest.approx(2 * 5 / (1 + math.exp(-25)), rel=1e-15)


GRADCHECKS = [("info_nce", ("query", "key", *c.tensors), c.options) for c in CASES] + RELATIVES


@pytest.mark.parametrize(("name", "names", "options"), GRADCHECKS)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradcheck(
    name: str, names: tuple[str, ...], options: dict[str, Any], reduction: str
) -> None:
    tensors = inputs(*names)
    if name == "siglip":
        tensors["bias"] = torch.tensor(-1.5, dtype=torch.float64)
        options = {}
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def loss(*values: Tensor) -> Tensor:
        return call(
            name, dict(zip(tensors, values, strict=True)), options | {"reduction": reduction}
        )

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)
