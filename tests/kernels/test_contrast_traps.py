"""Where other implementations were found wrong, or where numbers leave the usual range."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Form

from .contrast_problems import Draw, assert_within_budget, at_once, in_two, problem, to, uniform

WAYS = [pytest.param(32, id="fused"), pytest.param(80, id="chunked")]


def check(contrast: Contrast, of_scores: float = 0.0) -> dict[str, Tensor]:
    upstream = uniform(contrast, 1.0)
    ours = at_once(contrast, 1.0)
    assert all(x.isfinite().all() for x in ours.values())
    assert_within_budget(ours, contrast, upstream, of_scores=of_scores)
    assert_within_budget(in_two(contrast, upstream), contrast, upstream, of_scores=of_scores)
    return ours


@pytest.mark.parametrize("features", WAYS)
def test_cold_and_all_similarities_negative(features: int, device: torch.device) -> None:
    # A fixed maximum of 1 / T gives a loss of -inf here.
    query = torch.zeros(70, features)
    query[:, 0] = 1.0
    contrast = Contrast(query, -0.1 * query, torch.tensor(0.01), symmetric=True)
    ours = check(to(contrast, device))
    assert torch.allclose(ours["losses"].cpu(), torch.full((70,), math.log(70)))


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("form", ["softmax", "decoupled", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_scores_of_a_thousand(
    form: Form, features: int, dtype: torch.dtype, device: torch.device
) -> None:
    draw = Draw(2)
    query, key = (math.sqrt(features) * draw.features(40, features) for _ in range(2))
    scale = 10.0 / (query @ key.T).abs().max().sqrt()
    query, key = (query * scale).to(dtype), (key * scale).to(dtype)
    bias = torch.tensor(-1.0) if form == "sigmoid" else None
    contrast = Contrast(query, key, torch.tensor(0.1), bias, form=form)
    assert (query.float() @ key.float().T / 0.1).abs().max() > 900
    # log2(e), its quotient by T, the product with a score: each rounded.
    check(to(contrast, device), of_scores=3 * 2.0**-24)


@pytest.mark.parametrize("features", WAYS)
def test_equal_rows(features: int, device: torch.device) -> None:
    row = 3 * Draw(3).features(1, features).expand(70, features)
    for symmetric in (False, True):
        contrast = Contrast(row, row.clone(), torch.tensor(0.05), symmetric=symmetric)
        ours = check(to(contrast, device))
        assert torch.allclose(ours["losses"].cpu(), torch.full((70,), math.log(70)))


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("form", ["softmax", "decoupled"])
def test_rows_without_negatives(form: Form, features: int, device: torch.device) -> None:
    draw = Draw(4)
    labels = torch.tensor([0] * 40 + [1] * 30), torch.tensor([0] * 70)
    contrast = Contrast(
        draw.features(70, features), draw.features(70, features), torch.tensor(0.1),
        labels=labels, form=form,
    )  # fmt: skip
    ours = check(to(contrast, device))
    assert (ours["losses"][:40] == 0).all()
    assert (ours["query"][:40] == 0).all()
    assert (ours["losses"][40:] != 0).all()


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("lead", [90.0, 300.0])
@pytest.mark.parametrize("case", ["symmetric", "sup_con"])
def test_a_large_score_of_rows_that_weigh_nothing(
    case: str, lead: float, dtype: torch.dtype, features: int, device: torch.device
) -> None:
    # e^score of rows 3 and 140 with each other is 2^lead, with others 1: the pair's two tops alone
    # say how large it is.
    draw = Draw(9)
    query, key = draw.features(150, features), draw.features(150, features)
    query[:, 0] = key[:, 0] = 0.0
    for x in (query, key):
        x[[3, 140]] = 0.0
        x[[3, 140], 0] = math.sqrt(0.2 * lead * math.log(2))
    query, key, temperature = query.to(dtype), key.to(dtype), torch.tensor(0.2)
    if case == "symmetric":
        contrast = Contrast(query, key, temperature, symmetric=True)
    else:  # whose rows without positives weigh nothing by default
        contrast = Contrast(query, None, temperature, positive_key=key, exclude_self=True,
                            form="decoupled")  # fmt: skip
    contrast = to(contrast, device)
    upstream = uniform(contrast, 1.0)
    upstream[[3, 140]] = 0.0
    ours = in_two(contrast, upstream)
    assert all(x.isfinite().all() for x in ours.values())
    assert_within_budget(ours, contrast, upstream, of_scores=3 * 2.0**-24)


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("form", ["softmax", "decoupled", "sigmoid"])
def test_no_hard_negatives(form: Form, features: int, device: torch.device) -> None:
    draw = Draw(10)
    bias = torch.tensor(-1.0) if form == "sigmoid" else None
    query, key = draw.features(70, features), draw.features(70, features)
    hard = draw.features(70, 0, features)
    contrast = to(Contrast(query, key, torch.tensor(0.2), bias, form=form, hard=hard), device)
    ours = check(contrast)
    assert ours["hard"].shape == (70, 0, features)
    without = at_once(replace(contrast, hard=None), 1.0)
    assert all(torch.equal(ours[name], x) for name, x in without.items())


@pytest.mark.parametrize("features", WAYS)
@pytest.mark.parametrize("form", ["softmax", "decoupled", "sigmoid"])
@pytest.mark.parametrize("case", ["index", "own"])
def test_positives_that_are_no_keys(
    case: str, form: Form, features: int, device: torch.device
) -> None:
    # As they come on CUDA, where nobody may wait for their values.
    right = replace(problem(case, features, torch.float32, device), form=form)
    wrong = replace(right, positive=right.positive.clone())
    m = len(right.query if right.key is None else right.key)
    rows, places = [3, 50, 69], [-1, m, 2**32 + 1]
    wrong.positive[rows] = torch.tensor(places, device=device)
    upstream = uniform(wrong, 1.0)
    others = [i for i in range(70) if i not in rows]
    for run in (partial(at_once, weight=1.0), partial(in_two, upstream=upstream)):
        ours, whole = run(wrong), run(right)
        assert ours["losses"][rows].isnan().all()
        assert ours["query"][rows].isnan().all()
        if case == "index":
            assert ours["key"].isnan().any()
            for name in ("losses", "query"):
                assert torch.equal(ours[name][others], whole[name][others])


@pytest.mark.parametrize("features", [pytest.param(1, id="one"), *WAYS])
@pytest.mark.parametrize("form", ["softmax", "decoupled", "sigmoid"])
def test_one_pair(form: Form, features: int, device: torch.device) -> None:
    draw = Draw(5)
    bias = torch.tensor(0.3) if form == "sigmoid" else None
    query, key = draw.features(1, features), draw.features(1, features)
    # The softmax forms have loss and gradient 0 here, whatever the score. The sigmoid form's
    # gradient is one number, 1 / (1 + e^s), off by at most |ds| of itself. Our score is
    # (log2(e) / T) <q, k> + bias log2(e): log2(e), the quotient, the product and the sum are each
    # rounded by up to 2^-24 of it, where plain float32 rounds twice, with an error of a single
    # number that may be 0 by luck. Half of the worst case is granted: |ds| = 2 * 2^-24 |s|.
    of_scores = 2.0**-24 if form == "sigmoid" else 0.0
    contrast = Contrast(query, key, torch.tensor(0.1), bias, form=form)
    check(to(contrast, device), of_scores=of_scores)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (0, 0), (3, 0)])
def test_empty(n: int, m: int, device: torch.device) -> None:
    draw = Draw(6)
    query, key = draw.features(n, 8), draw.features(m, 8)
    positive_key = draw.features(n, 8) if m < n else None
    contrast = Contrast(query, key, torch.tensor(0.1), positive_key=positive_key)
    ours = check(to(contrast, device))
    assert ours["key"].shape == (m, 8)
    if n == m == 0:
        check(to(Contrast(query, key, torch.tensor(0.1), symmetric=True), device))


@pytest.mark.parametrize("features", WAYS)
def test_small_losses_keep_their_digits(features: int, device: torch.device) -> None:
    # The positive leads by 20: a loss of 1e-7 that 1 - p would lose.
    query = torch.zeros(8, features)
    query[:, :8] = torch.eye(8)
    contrast = Contrast(query, query.clone(), torch.tensor(0.05))
    losses = at_once(to(contrast, device), 1.0)["losses"].cpu().double()
    want = torch.log1p(torch.tensor(7 * math.exp(-20.0), dtype=torch.float64))
    assert torch.allclose(losses, want.expand(8), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("features", WAYS)
def test_tiny_sigmoid_terms_keep_their_digits(features: int, device: torch.device) -> None:
    # log(1 + e^-20) is 0 in float32 arithmetic: each of the terms would be lost.
    query = torch.zeros(8, features)
    query[:, :8] = torch.eye(8)
    scale, bias = torch.tensor(1 / 40), torch.tensor(-20.0)
    contrast = Contrast(query, query.clone(), scale, bias, form="sigmoid")
    losses = at_once(to(contrast, device), 1.0)["losses"].cpu().double()
    assert torch.allclose(losses, torch.full_like(losses, 8 * math.exp(-20)), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("features", WAYS)
def test_float16_weights_far_below_the_largest(features: int, device: torch.device) -> None:
    # Query 0 has no negatives, but the largest weight: float16 would round the others to 2^-24.
    draw = Draw(8)
    labels = torch.tensor([0] + [1] * 69), torch.tensor([0] * 70)
    query, key = (draw.features(70, features).half() for _ in range(2))
    contrast = to(Contrast(query, key, torch.tensor(0.5), labels=labels), device)
    upstream = uniform(contrast, 1e-5)
    upstream[0] = 1.0
    assert_within_budget(in_two(contrast, upstream), contrast, upstream)


@pytest.mark.parametrize("features", WAYS)
def test_nan_reaches_loss_and_gradient(features: int, device: torch.device) -> None:
    draw = Draw(7)
    query, key = draw.features(70, features), draw.features(80, features)
    key[75, :] = torch.nan  # nobody's positive
    for form in ("softmax", "decoupled"):
        ours = at_once(to(Contrast(query, key, torch.tensor(0.1), form=form), device), 1.0)
        assert ours["losses"].isnan().all()
        assert ours["query"].isnan().all()
