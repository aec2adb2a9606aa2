"""SimCLR's views: exact where they must be, in range, and a function of seed, epoch and image."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.table1.protocol import FULL_VIEWS, Views
from mmcl_fast.experiments.table1.views import (
    ViewDraws,
    crop,
    draw_views,
    grey_of,
    jitter,
    make_views,
    turn_hue,
)

CPU = torch.device("cpu")
SIDE = 28


def images(count: int, side: int = SIDE, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.manual_seed(0), dtype=dtype)


def draws(rule: Views = FULL_VIEWS, count: int = 64, seed: int = 3, **where) -> ViewDraws:
    chosen = {"epoch": 0, "view": 0, "device": CPU} | where
    return draw_views(rule, count, SIDE, seed=seed, **chosen)


def test_the_whole_image_is_a_crop_bit_for_bit() -> None:
    for side in (28, 14, 5):
        shown = images(4, side)
        box = torch.tensor([[0.0, 0.0, side, side]]).repeat(4, 1)
        assert torch.equal(crop(shown, box), shown)


def test_half_an_image_enlarged_by_hand() -> None:
    shown = torch.arange(4.0).expand(1, 1, 4, 4)  # each row 0 1 2 3
    box = torch.tensor([[0.0, 2.0, 4.0, 2.0]])  # the right half: places 1.75, 2.25, 2.75, 3.25
    wanted = torch.tensor([1.75, 2.25, 2.75, 3.0]).expand(1, 1, 4, 4)
    assert torch.equal(crop(shown, box), wanted)
    assert torch.equal(crop(shown.mT, box[:, [1, 0, 3, 2]]), wanted.mT)


def test_crops_are_those_of_grid_sample() -> None:
    """An independent implementation, torch's own, in float64."""
    chosen = draws(Views(min_area=0.08), 32)
    boxes, shown = chosen.boxes.double(), images(32, dtype=torch.float64)
    top, left, height, width = boxes.unbind(1)
    zero = torch.zeros_like(top)
    across = torch.stack((width / SIDE, zero, (2 * left + width) / SIDE - 1), 1)
    down = torch.stack((zero, height / SIDE, (2 * top + height) / SIDE - 1), 1)
    grid = torch.nn.functional.affine_grid(
        torch.stack((across, down), 1), list(shown.shape), align_corners=False
    )
    wanted = torch.nn.functional.grid_sample(
        shown, grid, padding_mode="border", align_corners=False
    )
    assert (crop(shown, boxes) - wanted).abs().max() < 1e-12


def test_boxes_lie_in_the_image_with_the_stated_law() -> None:
    chosen = draws(Views(min_area=0.3), 100_000)
    top, left, height, width = chosen.boxes.double().numpy().T
    rounding = SIDE * 2.0**-23
    for start, length in ((top, height), (left, width)):
        assert (start >= 0).all()
        assert (start + length <= SIDE + rounding).all()
    whole = (height < SIDE) & (width < SIDE)  # boxes that were not cut to the image
    area, aspect = height * width / SIDE**2, width / height
    assert area.min() >= 0.3 * 0.75
    assert (area[whole] >= 0.3 - 1e-6).all()
    assert (np.abs(np.log(aspect)) <= math.log(4 / 3) + 1e-6).all()
    # Small crops are never cut, so there the area is uniform and log aspect is independent of it.
    small = area < 0.7
    assert kstest((area[small] - 0.3) / 0.4, "uniform").pvalue > 1e-6
    turned = (np.log(aspect[small]) / math.log(4 / 3) + 1) / 2
    assert kstest(turned, "uniform").pvalue > 1e-6
    assert kstest(top[small] / (SIDE - height[small]), "uniform").pvalue > 1e-6
    assert kstest(left[small] / (SIDE - width[small]), "uniform").pvalue > 1e-6


def test_chances_by_exact_counts() -> None:
    """False alarms: each of the three counts has tails of 1e-6."""
    count = 50_000
    chosen = draws(Views(flip=0.5, jitter=1.0, grey=0.2), count)
    changed = (chosen.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1)
    for hits, chance in ((chosen.flips, 0.5), (chosen.greys, 0.2), (changed, 0.8)):
        law, seen = binom(count, chance), int(hits.sum())
        assert law.cdf(seen) > 1e-6
        assert law.sf(seen - 1) > 1e-6
    factors = chosen.factors[changed].double().numpy()
    for column, low, high in ((0, 0.2, 1.8), (1, 0.2, 1.8), (2, 0.2, 1.8), (3, -0.2, 0.2)):
        assert kstest((factors[:, column] - low) / (high - low), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("rule", [Views(), FULL_VIEWS, Views(jitter=1.25, grey=1.0)], ids=str)
def test_views_stay_in_range_and_are_deterministic(rule: Views) -> None:
    shown = images(64)
    seen = make_views(shown, draws(rule), rule)
    assert seen.shape == shown.shape
    assert seen.min() >= 0.0
    assert seen.max() <= 1.0 + 1e-6
    assert torch.equal(seen, make_views(shown, draws(rule), rule))
    assert not torch.equal(seen, shown)


def test_a_view_depends_on_seed_epoch_view_and_image_alone() -> None:
    here = draws(count=64)
    assert torch.equal(draws(count=10).boxes, here.boxes[:10])
    for other in (draws(seed=4), draws(epoch=1), draws(view=1)):
        for name in ("boxes", "factors"):
            assert not torch.equal(getattr(other, name), getattr(here, name))
    picked = here[torch.tensor([5, 2])]
    assert torch.equal(picked.factors, here.factors[[5, 2]])
    shown = images(64)
    alone = make_views(shown[7:8], here[torch.tensor([7])], FULL_VIEWS)
    assert (alone - make_views(shown, here, FULL_VIEWS)[7]).abs().max() < 1e-6


def test_views_that_are_off_change_nothing() -> None:
    off = Views(min_area=1.0)
    shown = images(8)
    assert make_views(shown, draws(off, 8), off) is shown
    chosen = draws(off, 8)
    assert torch.equal(chosen.boxes, torch.tensor([[0.0, 0.0, 28.0, 28.0]]).repeat(8, 1))
    assert torch.equal(chosen.factors, torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(8, 1))


def test_flips_and_grey_views() -> None:
    shown = images(8)
    rule = Views(min_area=1.0, flip=1.0)
    assert torch.equal(make_views(shown, draws(rule, 8), rule), shown.flip(3))
    rule = Views(min_area=1.0, grey=1.0)
    seen = make_views(shown, draws(rule, 8), rule)
    wanted = np.tensordot([0.299, 0.587, 0.114], shown.numpy(), axes=(0, 1))
    for channel in range(3):
        np.testing.assert_allclose(seen[:, channel].numpy(), wanted, rtol=1e-6)


def test_hue_is_that_of_the_standard_library() -> None:
    shown = images(3, 5, torch.float64)
    shown[0, :, 0, 0] = 0.4  # grey
    shown[0, :, 0, 1] = torch.tensor([0.7, 0.7, 0.1])  # two channels tie for the largest
    shown[0, :, 0, 2] = 0.0
    turns = torch.tensor([0.0, 0.37, -0.2], dtype=torch.float64)
    seen = turn_hue(shown, turns.view(3, 1, 1, 1))
    for b in range(3):
        for pixel, got in zip(
            shown[b].flatten(1).T.tolist(), seen[b].flatten(1).T.tolist(), strict=True
        ):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            wanted = colorsys.hsv_to_rgb((hue + turns[b].item()) % 1.0, saturation, value)
            assert got == pytest.approx(wanted, abs=1e-12)


def test_jitter_by_its_formulas() -> None:
    shown = images(4, 6, torch.float64)
    same = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64).repeat(4, 1)
    assert (jitter(shown, same) - shown).abs().max() < 1e-12

    def with_one(column: int, value: float) -> torch.Tensor:
        factors = same.clone()
        factors[:, column] = value
        return jitter(shown, factors)

    assert (with_one(0, 1.5) - (1.5 * shown).clamp(max=1)).abs().max() < 1e-12
    mean = grey_of(shown).mean((1, 2, 3), keepdim=True)
    assert (with_one(1, 0.0) - mean).abs().max() < 1e-12
    assert (with_one(1, 1.7) - (mean + 1.7 * (shown - mean)).clamp(0, 1)).abs().max() < 1e-12
    luma = grey_of(shown)
    assert (with_one(2, 0.0) - luma).abs().max() < 1e-12
    assert (with_one(2, 1.7) - (luma + 1.7 * (shown - luma)).clamp(0, 1)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "value"), [("min_area", 0.0), ("min_area", 1.1), ("flip", -0.1), ("jitter", 1.3)]
)
def test_impossible_views_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected a number in "):
        Views(**{name: value})
