"""ColoredMNIST: probabilities by exact counts, and draws that depend on seed and image alone.

Each count is binomial with a known probability; a test fails where a tail of it is below 1e-6.
There are fewer than 100 counts, of two tails each: were the seeds drawn anew, a right generator
would fail in at most one of 5000 runs.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from mmcl_fast.data.mnist.colored_mnist import coloured_digits, draw, subset
from mmcl_fast.data.mnist.colour_rule import PALETTES, ColourRule
from mmcl_fast.errors import ConfigError

N = 200_000
TAIL = 1e-6
DIGITS = np.random.default_rng(0).integers(0, 10, N)
INDEX = np.arange(N)
RULE = ColourRule()
PARTNERS = {"pair": [1, 0, 3, 2, 5, 4, 7, 6, 9, 8], "mirror": [*range(9, -1, -1)]}
PARTNERS["next"] = [*range(1, 10), 0]


def drawn(kind: str, rule: ColourRule = RULE, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    return draw(DIGITS, kind, rule=rule, seed=seed, part="train", index=INDEX)


def check(hits: np.ndarray, probability: float) -> None:
    """The number of hits is a binomial draw, to the stated false-alarm rate."""
    count, n = int(hits.sum()), hits.size
    law = binom(n, probability)
    assert law.cdf(count) > TAIL, f"{count} of {n}: fewer than {probability:g} gives"
    assert law.sf(count - 1) > TAIL, f"{count} of {n}: more than {probability:g} gives"


@pytest.mark.parametrize("kind", ["train", "id", "rand", "rev"])
def test_labels(kind: str) -> None:
    labels, _ = drawn(kind)
    wrong = labels != DIGITS
    check(wrong, 0.1)
    steps = (labels[wrong] - DIGITS[wrong]) % 10
    assert set(steps) == set(range(1, 10))
    for step in range(1, 10):
        check(steps == step, 1 / 9)


@pytest.mark.parametrize("kind", ["train", "rev"])
def test_colours(kind: str) -> None:
    labels, colours = drawn(kind)
    own = np.array(PARTNERS["pair"])[labels] if kind == "rev" else labels
    check(colours == own, 0.775)
    others = (colours - own) % 10
    for step in range(1, 10):
        check(others == step, 0.025)


def test_uniform_colours() -> None:
    labels, colours = drawn("rand")
    for colour in range(10):
        check(colours == colour, 0.1)
    check(colours == labels, 0.1)


def test_a_reversed_colour_is_seldom_the_label_s_own() -> None:
    labels, colours = drawn("rev")
    check(colours == labels, 0.025)


@pytest.mark.parametrize("reversal", ["mirror", "next"])
def test_other_reversals(reversal: str) -> None:
    labels, colours = drawn("rev", replace(RULE, reversal=reversal))
    check(colours == np.array(PARTNERS[reversal])[labels], 0.775)


def test_label_and_colour_noise_are_independent() -> None:
    labels, colours = drawn("train")
    check((labels != DIGITS) & (colours != labels), 0.1 * 0.225)


def test_colour_from_the_digit() -> None:
    labels, colours = drawn("train", replace(RULE, colour_from="digit"))
    check(colours == DIGITS, 0.775)
    # The label is another digit in a tenth of the images; its colour is then one of nine.
    check(colours == labels, 0.9 * 0.775 + 0.1 * 0.225 / 9)


def test_replacements_by_any_class() -> None:
    rule = replace(RULE, noise_to="any", colour_to="any")
    labels, colours = drawn("train", rule)
    check(labels != DIGITS, 0.1 * 0.9)
    check(colours != labels, 0.225 * 0.9)


def test_only_the_first_two_classes_tied() -> None:
    rule = replace(RULE, tied="first_two")
    labels, colours = drawn("train", rule)
    tied = labels < 2
    check(colours[tied] == labels[tied], 0.775)
    check(colours[~tied] == labels[~tied], 0.1)
    labels, colours = drawn("rev", rule)
    assert np.array_equal(labels < 2, tied)
    check(colours[tied] == 1 - labels[tied], 0.775)
    check(colours[~tied] == labels[~tied] ^ 1, 0.1)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_and_impossible(probability: float) -> None:
    rule = replace(RULE, label_noise=probability, colour_noise=probability)
    labels, colours = drawn("train", rule)
    assert ((labels != DIGITS) == bool(probability)).all()
    assert ((colours != labels) == bool(probability)).all()


def test_a_draw_depends_on_seed_and_image_alone() -> None:
    whole = drawn("rev")
    again = drawn("rev")
    cuts = [0, 1, 255, 256, 1000, 70_001, N]
    parts = [
        draw(DIGITS[a:b], "rev", rule=RULE, seed=11, part="train", index=INDEX[a:b])
        for a, b in itertools.pairwise(cuts)
    ]
    order = np.random.default_rng(1).permutation(N)[:5000]
    some = draw(DIGITS[order], "rev", rule=RULE, seed=11, part="train", index=order)
    for k in (0, 1):
        np.testing.assert_array_equal(again[k], whole[k])
        np.testing.assert_array_equal(np.concatenate([p[k] for p in parts]), whole[k])
        np.testing.assert_array_equal(some[k], whole[k][order])


def test_nothing_is_drawn_for_no_images() -> None:
    none = np.empty(0, dtype=np.int64)
    labels, colours = draw(none, "train", rule=RULE, seed=0, part="test", index=none)
    assert labels.shape == colours.shape == (0,)


def test_seeds_and_files_differ_and_sets_share_labels() -> None:
    here = drawn("id")
    seed = drawn("id", seed=12)
    file = draw(DIGITS, "id", rule=RULE, seed=11, part="test", index=INDEX)
    for other in (seed, file):
        # Agreement of independent draws: both labels right, or both wrong and equal.
        check(here[0] == other[0], 0.9**2 + 0.1**2 / 9)
    sets = {kind: drawn(kind) for kind in ("id", "rand", "rev")}
    for kind in ("rand", "rev"):
        np.testing.assert_array_equal(sets[kind][0], here[0])
    hit = {kind: sets[kind][1] != np.array(PARTNERS["pair"])[here[0]] for kind in ("rand", "rev")}
    check(hit["rand"] & hit["rev"], 0.9 * 0.225)


def test_subsets_are_nested_uniform_and_in_order() -> None:
    small, large = subset(60_000, 6_000, seed=3), subset(60_000, 20_000, seed=3)
    assert len(small) == 6_000
    assert (np.diff(small) > 0).all()
    assert np.isin(small, large).all()
    assert np.array_equal(subset(60_000, 60_000, seed=3), np.arange(60_000))
    assert not np.array_equal(small, subset(60_000, 6_000, seed=4))
    # Hypergeometric, whose tails are lighter than the binomial's.
    for start in range(0, 60_000, 15_000):
        check((small >= start) & (small < start + 15_000), 0.25)


@pytest.mark.parametrize("palette", PALETTES)
def test_images_are_grey_values_times_the_colour(palette: str) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    digits, index = DIGITS[:50].astype(np.uint8), np.array([3, 40, 7])
    data = coloured_digits(
        grey,
        digits,
        "train",
        rule=replace(RULE, palette=palette),
        seed=5,
        part="train",
        index=index,
    )
    images = data.images()
    assert (images.shape, images.dtype) == ((3, 3, 28, 28), torch.float32)
    for k, image in enumerate(images.numpy()):
        colour = PALETTES[palette][int(data.colours[k])]
        wanted = grey[index[k]][None] / 255.0 * np.array(colour)[:, None, None]
        np.testing.assert_allclose(image, wanted, rtol=3e-7, atol=0)
    assert torch.equal(data.images(torch.tensor([2, 0])), images[[2, 0]])
    assert data.digits.tolist() == digits[index].tolist()


@pytest.mark.parametrize("palette", PALETTES)
def test_ten_colours_that_differ(palette: str) -> None:
    colours = np.array(PALETTES[palette])
    assert colours.shape == (10, 3)
    assert ((colours >= 0) & (colours <= 1)).all()
    distance = np.abs(colours[:, None] - colours[None]).max(2) + np.eye(10)
    assert distance.min() >= 0.4


MISTAKES = {
    "label_noise": (-0.1, r"label_noise: expected a number in \[0, 1\], got -0.1"),
    "colour_noise": (float("nan"), r"colour_noise: expected a number in \[0, 1\], got nan"),
    "tied": ("none", "tied: expected one of all, first_two, got 'none'"),
    "colour_from": ("image", "colour_from: expected one of label, digit, got 'image'"),
    "reversal": ("swap", "reversal: expected one of pair, mirror, next, got 'swap'"),
    "palette": ("cmyk", "palette: expected one of named, hues, got 'cmyk'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_impossible_rules_are_refused(name: str) -> None:
    value, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        replace(RULE, **{name: value})


def test_two_colours_can_only_be_exchanged() -> None:
    with pytest.raises(ConfigError, match="reversal: expected pair with tied first_two"):
        ColourRule(tied="first_two", reversal="next")
