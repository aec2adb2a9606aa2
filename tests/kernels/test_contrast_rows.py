"""What is done once a row, against float64: losses and weights, and finished gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import FLOOR
from mmcl_fast.kernels.contrast_input_gradients import PositiveTerms, contrast_input_gradients_bwd
from mmcl_fast.kernels.contrast_row_losses import (
    RowLosses,
    RowTerms,
    contrast_row_losses_fwd,
    restored,
)
from mmcl_fast.kernels.contrast_statistics import Partial

from .contrast_problems import Draw

LOG2 = math.log(2.0)
EPS = 2.0**-23
N = 70
FORMS = ("softmax", "decoupled", "sigmoid")


def partial(draw: Draw, parts: int, device: torch.device, form: str) -> Partial:
    """Tops from -40 to 40, totals as kernels leave them, and some parts that met nothing.

    The sigmoid form has no tops.
    """
    tops = 80 * torch.rand(parts, N, generator=draw.generator) - 40
    totals = 1 + 100 * torch.rand(parts, N, generator=draw.generator)
    nothing = torch.rand(parts, N, generator=draw.generator) < 0.2
    if form == "sigmoid":
        tops.fill_(FLOOR.value)
    tops, totals = tops.masked_fill(nothing, FLOOR.value), totals.masked_fill(nothing, 0.0)
    found = torch.zeros(parts, N)
    found[parts // 2] = 60 * torch.rand(N, generator=draw.generator) - 30
    return Partial(tops.to(device), totals.to(device), found.to(device))


def check(ours: RowTerms, form: str, parts: Partial, positive: Tensor, upstream: Tensor) -> Tensor:
    """Terms of one direction against float64; returns its exact losses."""
    x = positive.double() * LOG2
    logs = parts.max_score.double() * LOG2 + parts.exp_sum.double().log()
    negatives = torch.logsumexp(logs, dim=0)
    if form == "sigmoid":
        loss = parts.exp_sum.double().sum(dim=0) + torch.nn.functional.softplus(-x)
        scale, positive_weight = torch.ones_like(x), torch.sigmoid(-x)
    else:
        whole = torch.logaddexp(x, negatives) if form == "softmax" else negatives
        loss = torch.where(whole > -torch.inf, whole - x, 0.0)
        if form == "softmax":  # the same without cancellation
            loss = torch.where(negatives > x, negatives - x, 0.0) + torch.log1p(
                torch.exp(-(negatives - x).abs())
            )
        scale = torch.exp(ours.max_score.double() * LOG2 - whole)
        positive_weight = torch.exp(negatives - whole)
        some = negatives > -torch.inf
        scale, positive_weight = (
            torch.where(some | (form == "softmax"), y, 0.0) for y in (scale, positive_weight)
        )
        merged = ours.exp_sum.double() * torch.exp2(ours.max_score.double())
        close(merged, torch.exp(negatives))
    close(ours.positive_score, positive.double(), 2)
    close(ours.scale, scale * upstream.double())
    close(ours.positive_weight, positive_weight * upstream.double())
    return loss


def close(found: Tensor, exact: Tensor, units: float = 40) -> None:
    """Relative to each number: powers of two, of tops up to 80 apart, are off by 2^-22 each."""
    error = (found.double() - exact).abs()
    assert found.isfinite().all()
    assert (error <= units * EPS * exact.abs()).all(), (error / exact.abs()).max()


@pytest.mark.parametrize("parts", [1, 3, 40])
@pytest.mark.parametrize("form", FORMS)
def test_losses_and_weights(form: str, parts: int, device: torch.device) -> None:
    draw = Draw(21)
    rows, columns = partial(draw, parts, device, form), partial(draw, 5, device, form)
    positive = rows.positive_score.sum(dim=0)
    one = torch.ones(N, device=device)
    alone = contrast_row_losses_fwd(rows, None, form)
    assert alone.columns is None
    first = check(alone.rows, form, rows, positive, one)
    of_losses(alone, first, form)
    upstream = torch.randn(N, generator=draw.generator).to(device)
    both = contrast_row_losses_fwd(rows, columns, form, upstream=upstream)
    check(both.rows, form, rows, positive, upstream)
    second = check(both.columns, form, columns, positive, upstream)
    of_losses(both, (first + second) / 2, form)
    # What is saved for a later pass gives the same again, with other weights too.
    saved = (*both.rows.saved, *both.columns.saved)
    again = restored(saved, form, upstream)
    assert all(torch.equal(x, y) for x, y in zip(again.rows, both.rows, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(again.columns, both.columns, strict=True))


def of_losses(row_losses: RowLosses, exact: Tensor, form: str) -> None:
    if form == "decoupled":  # a difference: relative to its terms, scores up to 60 log 2
        assert (row_losses.losses.double() - exact).abs().max() <= 4 * EPS * 60
    else:
        close(row_losses.losses, exact)


@pytest.mark.parametrize("form", ["softmax", "decoupled"])
def test_halves_of_own_rows(form: str, device: torch.device) -> None:
    draw = Draw(22)
    above, beside = partial(draw, 2, device, form), partial(draw, 3, device, form)
    partner = torch.arange(N, device=device).roll(N // 2)
    ours = contrast_row_losses_fwd(above, beside, form, same_rows=True, index=partner, keys=N)
    assert ours.columns is None
    # A pair's score is noted where its row is the smaller one of the two.
    here = above.positive_score.sum(dim=0)
    positive = torch.where(partner > torch.arange(N, device=device), here, here[partner])
    every = Partial(*(torch.cat(x) for x in zip(above[:2], beside[:2], strict=True)))
    exact = check(ours.rows, form, every, positive, torch.ones(N, device=device))
    of_losses(ours, exact, form)


def test_loss_keeps_its_digits_near_0(device: torch.device) -> None:
    # A positive that leads by up to 2^100, and one just behind a negative of its own size.
    lead = torch.linspace(0.0, 100.0, N, device=device)[None]
    rows = Partial(-lead, torch.ones_like(lead), torch.zeros_like(lead))
    ours = contrast_row_losses_fwd(rows, None, "softmax")
    close(ours.losses, torch.log1p(torch.exp2(-lead[0].double())), 8)
    rows = Partial(1e-3 * lead, torch.ones_like(lead), torch.zeros_like(lead))
    ours = contrast_row_losses_fwd(rows, None, "softmax")
    close(ours.losses, torch.log1p(torch.exp2(1e-3 * lead[0].double())), 8)


@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinity_come_through(form: str, device: torch.device) -> None:
    nothing = torch.zeros(1, 3, device=device)
    total = torch.tensor([[torch.nan, torch.inf, 1.0]], device=device)
    losses = contrast_row_losses_fwd(Partial(nothing, total, nothing), None, form).losses
    assert losses[0].isnan()
    assert losses[1] == torch.inf
    assert losses[2].isfinite()


CASES = ["plain", "index", "mutual", "unscaled", "no positives"]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_finished_gradient(case: str, parts: int, device: torch.device) -> None:
    r, k, d = 37, 30, 150  # rows without positives; two blocks of features
    draw = Draw(23)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw.generator).to(device)

    sums, own, source = made(parts, r, d), made(r, d).half(), made(r, d + 2).half()[:, :d]
    pair, temperature, factor = (made(k), made(k)), torch.tensor(0.3), torch.tensor(7.0)
    temperature, factor, before = temperature.to(device), factor.to(device), made(r)
    index = torch.randperm(r, generator=draw.generator)[:k].to(device)
    unscaled = None
    whole = sums.double().sum(dim=0)
    positive_weights, at = pair[0].double() + pair[1].double(), torch.arange(k, device=device)
    if case == "unscaled":
        maxima, row_max, scale = made(parts, r), made(r) + 3, made(r).abs()
        unscaled = maxima, RowTerms(row_max, row_max, row_max, scale, row_max)
        weights = torch.exp2(maxima.double() - row_max.double()) * scale.double()
        whole = (sums.double() * weights[:, :, None]).sum(dim=0)
    if case == "index":
        at = index
    if case == "mutual":
        at = torch.arange(k, device=device).roll(k // 2)
        positive_weights = positive_weights + pair[0].double()[at]
    positives = PositiveTerms(source, pair, None if case in ("plain", "unscaled") else at,
                              mutual=case == "mutual", share=0.5)  # fmt: skip
    gone = torch.zeros_like(whole)
    if case == "no positives":
        positives = None
    else:
        gone[:k] = positive_weights[:, None] * source[at].double()
    rate = 0.25 * 7.0 / temperature.double()
    parts_of_dots = own.double() * (0.75 * whole - 0.5 * gone)
    out, dots = contrast_input_gradients_bwd(
        sums, own, positives, temperature, (0.25, factor), unscaled=unscaled, share=0.75, dots=True,
        initial_dots=before,
    )  # fmt: skip
    size = rate * (whole.abs() + gone.abs()).max()
    assert (out.double() - rate * (whole - gone)).abs().max() <= 8 * EPS * size
    exact = before.double() - parts_of_dots.sum(dim=1) * rate / temperature.double()
    size = (parts_of_dots.abs().sum(dim=1) * rate / temperature.double()).max()
    assert dots is not None
    assert (dots.double() - exact).abs().max() <= 8 * EPS * size


@pytest.mark.parametrize("mutual", [False, True])
def test_sources_that_are_not_there(mutual: bool, device: torch.device) -> None:
    r, d = 20, 8
    draw = Draw(24)

    def inside(*shape: int) -> Tensor:
        # What lies around it is somebody else's: finite, so that a look at it would not show.
        whole = torch.full((shape[0] + 4, *shape[1:]), 777.0, device=device)
        whole[2:-2] = torch.randn(*shape, generator=draw.generator).to(device)
        return whole[2:-2]

    sums, own, source, weight = inside(1, r, d), inside(r, d), inside(r, d), inside(r)
    right = torch.arange(r, device=device).roll(r // 2)
    wrong = right.clone()
    wrong[4], wrong[15] = -2, r + 1
    t = torch.tensor(0.5, device=device)
    (out, dots), (whole, all_dots) = (
        contrast_input_gradients_bwd(
            sums.clone(), own, PositiveTerms(source, (weight,), index, mutual=mutual), t,
            (1.0, None), dots=True,
        )
        for index in (wrong, right)
    )  # fmt: skip
    assert dots is not None
    assert all_dots is not None
    lost = wrong != right
    assert out[lost].isnan().all()
    assert dots[lost].isnan().all()
    assert torch.equal(out[~lost], whole[~lost])
    assert torch.equal(dots[~lost], all_dots[~lost])


def test_nothing_to_finish(device: torch.device) -> None:
    t = torch.tensor(1.0, device=device)
    none = torch.zeros(1, 0, 8, device=device)
    out, dots = contrast_input_gradients_bwd(none, none[0], None, t, (1.0, None), dots=True)
    assert out.shape == (0, 8)
    assert dots is not None
    assert dots.shape == (0,)
    some = torch.zeros(1, 3, 0, device=device)  # rows without features
    out, dots = contrast_input_gradients_bwd(some, some[0], None, t, (1.0, None), dots=True)
    assert out.shape == (3, 0)
    assert dots is not None
    assert (dots == 0).all()
