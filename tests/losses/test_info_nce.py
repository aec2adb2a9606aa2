from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.losses import info_nce
from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.evaluation import Task, evaluated
from mmcl_fast.losses.torch_backend import score_blocks
from mmcl_fast.reference.contrastive import info_nce as reference
from tests.losses.info_nce_cases import (
    CASES,
    DTYPES,
    SHARED,
    Case,
    make,
    of_one_tensor,
    temperature_terms,
    three_ways,
    upstream_of,
)
from tests.support.budget import assert_within_budget, value_and_grads

pytestmark = pytest.mark.usefixtures("_either_way")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradients(case: Case, dtype: torch.dtype) -> None:
    tensors, options = make(case, dtype)
    ours, plain, exact = three_ways(tensors, options, upstream_of(case))
    assert ours["value"].dtype == torch.float32
    assert ours["query"].dtype == dtype
    terms = {"temperature": temperature_terms(case, upstream_of(case))}
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_float64_is_computed_in_float64(case: Case) -> None:
    tensors, options = make(case, torch.float64)
    tensors["temperature"] = tensors["temperature"].double()
    ours, _, exact = three_ways(tensors, options, upstream_of(case))
    for name, value in ours.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, exact[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.n * c.m < 4000 and c.n > 1], ids=lambda c: c.id
)
@pytest.mark.parametrize("rows", [1, 7])
def test_chunk_size_changes_rounding_only(
    case: Case, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_blocks, "chunk_rows", lambda n, m: rows)
    test_float64_is_computed_in_float64(case)


def test_chunks_depend_on_sizes_only_and_stay_small() -> None:
    assert score_blocks.chunk_rows(10, 10) == 10
    assert score_blocks.chunk_rows(4096, 4096) * 4096 <= 2**20
    assert score_blocks.chunk_rows(10**6, 10**6) == 128
    assert score_blocks.chunk_rows(0, 0) == 1


# --- wanted gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("stop", [None, "key"])
@pytest.mark.parametrize("shape", ["one_way", "positive_key", "symmetric"])
def test_every_subset_of_wanted_gradients(shape: str, stop: str | None, reduction: str) -> None:
    case = Case("", 9, 9, 5, "", positive_key=shape == "positive_key")
    tensors, _ = make(case, torch.float64)
    options = {"symmetric": shape == "symmetric", "stop_gradient": stop, "reduction": reduction}
    upstream = upstream_of(Case("", 9, 9, 5, "", {"reduction": reduction}))
    full = value_and_grads(partial(reference, **options), tensors, upstream)
    for size in range(1, len(tensors) + 1):
        for wanted in itertools.combinations(tensors, size):
            rest = {k: v for k, v in tensors.items() if k not in wanted}
            some = (
                value_and_grads(
                    partial(info_nce, **options, **rest), {k: tensors[k] for k in wanted}, upstream
                )
                if _reaches(wanted, shape, stop)
                else {}
            )
            for name, value in some.items():
                torch.testing.assert_close(value, full[name].to(value.dtype), rtol=1e-6, atol=1e-12)


def _reaches(wanted: tuple[str, ...], shape: str, stop: str | None) -> bool:
    # Autograd refuses to differentiate a result in which nothing takes part.
    stopped = {"key", "positive_key"} if stop and shape != "symmetric" else set()
    return bool(set(wanted) - stopped)


def test_a_stopped_key_makes_no_graph() -> None:
    key = torch.randn(4, 3, requires_grad=True)
    loss = info_nce(torch.randn(4, 3), key, stop_gradient="key")
    assert not loss.requires_grad


def test_one_tensor_in_both_places_gets_both_gradients() -> None:
    h = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for options in ({}, {"symmetric": True}, {"stop_gradient": "key"}):
        ours = value_and_grads(lambda h, o=options: info_nce(h, h, **o), {"h": h})
        exact = value_and_grads(lambda h, o=options: reference(h, h, **o), {"h": h})
        torch.testing.assert_close(ours["h"], exact["h"], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_temperature_gradient_has_the_temperatures_dtype(dtype: torch.dtype) -> None:
    tensors, _ = make(CASES[0], torch.float32)
    temperature = torch.tensor(0.25, dtype=dtype, requires_grad=True)
    info_nce(tensors["query"], tensors["key"], temperature=temperature).backward()
    exact = value_and_grads(
        reference,
        {k: v.double() for k, v in tensors.items()} | {"temperature": torch.tensor(0.25).double()},
    )["temperature"]
    assert temperature.grad is not None
    assert temperature.grad.dtype == dtype
    rtol = 2 * max(torch.finfo(dtype).eps, 1e-5)
    torch.testing.assert_close(temperature.grad.double(), exact, rtol=rtol, atol=0.0)


def test_backward_twice_with_a_retained_graph_gives_the_same_gradient() -> None:
    for options in ({}, {"reduction": "none", "symmetric": True}, {"stop_gradient": "key"}):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = info_nce(x, x, **options).sum()
        (first,) = torch.autograd.grad(3 * loss, x, retain_graph=True)
        (second,) = torch.autograd.grad(3 * loss, x)
        assert torch.equal(first, second)


# --- inputs that break naive code -----------------------------------------------------------------


def test_non_contiguous_inputs() -> None:
    g = torch.Generator().manual_seed(5)
    base = {
        "query": torch.randn(12, 40, generator=g)[:, ::2],
        "key": torch.randn(20, 30, generator=g).T[5:],
        "positive_key": torch.randn(1, 20, generator=g).expand(12, 20),
        "temperature": torch.tensor(2.0),
    }
    assert not any(base[k].is_contiguous() for k in ("query", "key", "positive_key"))
    packed = {k: v.clone(memory_format=torch.contiguous_format) for k, v in base.items()}
    ours, plain, exact = three_ways(base, {}, torch.tensor(1.0))
    assert_within_budget(ours, plain=plain, exact=exact)
    assert torch.equal(ours["value"], info_nce(**packed))


@pytest.mark.parametrize("options", [{}, {"symmetric": True}], ids=["one_way", "symmetric"])
@pytest.mark.parametrize("sign", [1, -1], ids=["positives_high", "positives_low"])
def test_logits_of_a_thousand(options: dict[str, Any], sign: int) -> None:
    n, g = 16, torch.Generator().manual_seed(2)
    tensors = {
        "query": torch.eye(n) * 1000.0,
        "key": sign * (2 * torch.eye(n) - 1.0) + torch.randn(n, n, generator=g) * 0.001,
        "temperature": torch.tensor(1.0),
    }
    ours, plain, exact = three_ways(tensors, options, torch.tensor(1.0))
    assert_within_budget(ours, plain=plain, exact=exact)
    if sign < 0:
        assert ours["value"] > 1990
    else:
        assert ours["value"] == 0.0


@pytest.mark.parametrize("symmetric", [False, True])
def test_low_temperature_with_every_similarity_at_minus_a_tenth(symmetric: bool) -> None:
    # A fixed maximum of 1 / temperature makes this loss -inf.
    n = 64
    query = torch.zeros(n, n + 1)
    query[:, 0] = 1.0
    key = torch.eye(n, n + 1).roll(1, dims=1) * math.sqrt(0.99)
    key[:, 0] = -0.1
    tensors = {"query": query, "key": key, "temperature": torch.tensor(0.01)}
    ours, plain, exact = three_ways(tensors, {"symmetric": symmetric}, torch.tensor(1.0))
    assert ours["value"].item() == pytest.approx(math.log(n), rel=1e-6)
    # The temperature's gradient is 0 here: a sum of terms of size |query| |key| / temperature^2.
    terms = {"temperature": 2 / 0.01**2}
    assert_within_budget(ours, plain=plain, exact=exact, terms=terms)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_rows(symmetric: bool, dtype: torch.dtype) -> None:
    row = normalize(torch.randn(1, 24, generator=torch.Generator().manual_seed(4))).to(dtype)
    x = row.repeat(50, 1)
    ours = value_and_grads(partial(info_nce, symmetric=symmetric), {"query": x, "key": x})
    assert ours["value"].item() == pytest.approx(
        math.log(50), rel=2 * torch.finfo(torch.float32).eps
    )
    for name in ("query", "key"):  # exactly 0; its terms are of size 1 / (N * temperature)
        assert ours[name].abs().max() <= 4 * torch.finfo(torch.float32).eps / (50 * 0.07)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_loss_near_zero_keeps_its_relative_accuracy(symmetric: bool) -> None:
    x = torch.eye(64)
    tensors = {"query": x, "key": x, "temperature": torch.tensor(0.05)}
    ours = value_and_grads(partial(info_nce, symmetric=symmetric), tensors)
    exact = math.log1p(63 * math.exp(-1 / float(tensors["temperature"])))
    assert ours["value"].item() == pytest.approx(exact, rel=2e-5)
    grads = value_and_grads(
        partial(reference, symmetric=symmetric), {k: v.double() for k, v in tensors.items()}
    )
    for name in ("query", "key", "temperature"):
        torch.testing.assert_close(
            ours[name].double(), grads[name], rtol=2e-5, atol=float(grads[name].abs().max()) * 2e-5
        )


def test_a_row_without_negatives_has_no_loss_and_no_gradient() -> None:
    labels, key_labels = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0])
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    key = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    losses = info_nce(
        x, key, labels=labels, key_labels=key_labels, negatives="other_label", reduction="none"
    )
    losses.sum().backward()
    assert x.grad is not None
    assert losses[0] == 0.0
    assert not x.grad[0].any()
    assert (losses[1:] > 0).all()
    assert x.grad[1:].any(dim=1).all()


def test_no_keys_at_all() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    loss = info_nce(x, torch.empty(0, 4), positive_key=torch.randn(3, 4))
    loss.backward()
    assert loss == 0.0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("symmetric", [False, True])
def test_no_rows(symmetric: bool) -> None:
    x = torch.empty(0, 4, requires_grad=True)
    loss = info_nce(x, x.detach(), symmetric=symmetric, reduction="sum")
    loss.backward()
    assert loss == 0.0
    assert x.grad is not None
    assert x.grad.shape == (0, 4)
    assert info_nce(x, x, symmetric=symmetric, reduction="none").shape == (0,)


def test_nan_is_not_hidden() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x[2, 1] = torch.nan
    losses = info_nce(x, torch.randn(6, 4), reduction="none")
    assert losses.isnan().tolist() == [False, False, True, False, False, False]
    assert info_nce(x, torch.randn(6, 4), symmetric=True, reduction="none").isnan().all()


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]),
        torch.tensor([True, False, True, False, True]),
        torch.tensor([2**62, -(2**62), 2**62, -(2**62), 2**62]),
        torch.tensor([2**24 + 1, 2**24, 2**24 + 1, 2**24, 2**24 + 1]),
    ],
    ids=["float", "bool", "huge", "beyond_float32"],
)
def test_any_kind_of_label(labels: Tensor) -> None:
    x, y = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    small = torch.tensor([0, 1, 0, 1, 0])
    options: dict[str, Any] = {"negatives": "other_label", "symmetric": True}
    assert torch.equal(
        info_nce(x, y, labels=labels, **options), info_nce(x, y, labels=small, **options)
    )


def test_autocast_does_not_lower_the_precision() -> None:
    tensors, options = make(CASES[8], torch.float32)
    outside = value_and_grads(partial(info_nce, **options, reduction="none"), tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_grads(partial(info_nce, **options, reduction="none"), tensors)
    assert all(torch.equal(inside[k], outside[k]) for k in outside)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_reruns_are_bit_equal(case: Case) -> None:
    tensors, options = make(case, torch.float32)
    first, second = (
        value_and_grads(of_one_tensor(partial(info_nce, **options)), tensors, upstream_of(case))
        for _ in range(2)
    )
    assert all(torch.equal(first[k], second[k]) for k in first)
    with torch.no_grad():
        evaluated = of_one_tensor(partial(info_nce, **options))(**tensors)
    assert torch.equal(evaluated, first["value"])


@pytest.mark.parametrize("name", ["symmetric_chunks", "shared_positive"])
def test_reruns_are_bit_equal_with_several_threads(name: str) -> None:
    torch.set_num_threads(4)  # the fixture restores it
    case = next(case for case in [*CASES, SHARED] if case.id == name)
    for _ in range(5):
        test_reruns_are_bit_equal(case)


def test_more_labels_than_float32_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.id == "other_label")
    expected = info_nce(**make(case, torch.float32)[0], **make(case, torch.float32)[1])
    monkeypatch.setattr(score_blocks, "_EXACT_CODES", 100)
    assert score_blocks.label_codes(torch.arange(60), torch.arange(60), torch.float32)[0].dtype == (
        torch.int64
    )
    tensors, options = make(case, torch.float32)
    assert torch.equal(info_nce(**tensors, **options), expected)


def test_hard_negatives_are_chunked_by_their_own_size() -> None:
    hard = torch.randn(2000, 64, 16)
    contrast = Contrast(
        hard[:, 0], hard[:5, 0], torch.tensor(1.0), positive_key=hard[:, 1], hard=hard
    )
    sizes = {
        block.stop - block.start for block in score_blocks.BlockedContrast.of(contrast).blocks()
    }
    assert max(sizes) * 64 * 16 <= 2**20


@pytest.mark.parametrize("content", [0.0, 1e30, torch.inf, torch.nan])
def test_content_of_padding_has_no_influence(content: float) -> None:
    case = next(case for case in CASES if case.id == "smoothing_hard_counts_all")
    tensors, options = make(case, torch.float32)
    padding = torch.arange(case.hard) >= options["hard_negative_counts"][:, None]
    expected = value_and_grads(partial(info_nce, **options), tensors, upstream_of(case))
    tensors["hard_negatives"] = tensors["hard_negatives"].masked_fill(padding[:, :, None], content)
    found = value_and_grads(partial(info_nce, **options), tensors, upstream_of(case))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not found["hard_negatives"][padding].any()
    assert found["hard_negatives"][~padding].any(dim=1).sum() > case.n / 2


def test_a_count_of_all_changes_nothing() -> None:
    tensors, options = make(next(case for case in CASES if case.id == "hard"), torch.float32)
    counts = torch.full((30,), 5)
    expected = value_and_grads(partial(info_nce, **options), tensors)
    found = value_and_grads(partial(info_nce, hard_negative_counts=counts, **options), tensors)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_padding_of_a_contrast_has_no_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    x, hard, counts = torch.randn(6, 4, generator=g), torch.randn(6, 3, 4, generator=g), [0, 1, 2]
    padding = torch.arange(3) >= torch.tensor(counts * 2)[:, None]
    contrast = Contrast(
        x, hard[:, 0], torch.tensor(0.5), hard=hard.masked_fill(padding[:, :, None], 0.0),
        hard_counts=torch.tensor(counts * 2), smoothing=0.3,
    )  # fmt: skip
    gradients = evaluated(Task(contrast, Requested(hard=True), "mean", "torch")).gradients
    assert gradients is not None
    assert gradients.hard is not None
    assert not gradients.hard[padding].any()
    assert gradients.hard[~padding].all()
