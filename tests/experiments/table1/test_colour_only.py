"""Accounting without a network: against hand counts, every rule there is, and drawn images."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast.data.mnist.colored_mnist import draw
from mmcl_fast.data.mnist.colour_rule import ColourRule
from mmcl_fast.data.mnist.files import load_digits
from mmcl_fast.errors import DataError
from mmcl_fast.experiments.table1.colour_only import (
    colour_only,
    colour_only_accuracy,
    joint_counts,
    joint_law,
)
from mmcl_fast.experiments.table1.protocol import Table1Config
from mmcl_fast.experiments.table1.sets import digit_shares, make_sets
from tests.support.digits import write_digits

EQUAL = np.full(10, 0.1)
RULES = {
    "default": ColourRule(),
    "literal": ColourRule(tied="first_two", noise_to="any"),
    "own_colour_allowed": ColourRule(tied="first_two", noise_to="any", colour_to="any"),
    "from_digit": ColourRule(colour_from="digit", reversal="mirror"),
    "from_digit_tied": ColourRule(colour_from="digit", tied="first_two"),
}
SMALL = Table1Config(images=300, batch=50, few_labels=60)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["train", "rand", "rev"])
def test_the_law_is_that_of_the_draws(name: str, kind: str) -> None:
    """Largest of 100 z-scores below 5: 6e-5 of false alarms a case, fixed seed."""
    count = 200_000
    digits = np.arange(count) % 10
    index = np.arange(count)
    labels, colours = draw(digits, kind, rule=RULES[name], seed=3, part="train", index=index)
    seen = np.bincount(labels * 10 + colours, minlength=100).reshape(10, 10)
    law = joint_law(RULES[name], kind, EQUAL)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    deviation = np.sqrt(count * law * (1 - law))
    assert (seen[deviation == 0] == count * law[deviation == 0]).all()
    assert np.abs((seen - count * law) / np.where(deviation > 0, deviation, 1)).max() < 5


def test_the_law_knows_how_frequent_a_digit_is() -> None:
    shares = np.arange(10) / 45
    law = joint_law(ColourRule(label_noise=0.0), "train", shares)
    np.testing.assert_allclose(law.sum(1), shares, atol=1e-15)


# Own colour 77.5 %, eight others at chance; 79.75 and 18 where the own one may be drawn again.
BY_HAND = {
    "default": (77.5, 2.5, 87.5, 12.5),
    "own_colour_allowed": (None, None, 79.75 + 9, 2.25 + 9),
    # Red and green: 77.5 % of 0 or 1, 2.5 % of the other; from each other class a tenth.
    "literal": ((77.5 + 77.5 + 8 * 10) / 10, (2.5 + 2.5 + 8 * 10) / 10, 87.5, 12.5),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_equally_frequent_digits_by_hand(name: str) -> None:
    laws = {kind: joint_law(RULES[name], kind, EQUAL) for kind in ("train", "rev")}
    found = colour_only_accuracy(laws)
    keys = ("train", "rev", "train_0_vs_1", "rev_0_vs_1")
    for key, wanted in zip(keys, BY_HAND[name], strict=True):
        if wanted is not None:
            assert found[key] == pytest.approx(wanted, abs=1e-10), key


def test_no_rule_from_colours_to_0_or_1_is_right_more_often() -> None:
    rng = np.random.default_rng(0)
    train, rev = rng.integers(0, 50, (2, 10, 10)).astype(float)
    found = colour_only_accuracy({"train": train, "rev": rev})
    best = max(
        itertools.product((0, 1), repeat=10),
        key=lambda rule: sum(train[y, c] for c, y in enumerate(rule)),
    )
    for kind, joint in (("train", train), ("rev", rev)):
        right = sum(joint[y, c] for c, y in enumerate(best))
        assert found[f"{kind}_0_vs_1"] == pytest.approx(100 * right / joint[:2].sum(), rel=1e-12)
    ten = [max(range(10), key=lambda y: train[y, c]) for c in range(10)]
    for kind, joint in (("train", train), ("rev", rev)):
        right = sum(joint[y, c] for c, y in enumerate(ten))
        tied = sum(joint[y, c] for c, y in enumerate(ten) if y < 2)
        assert found[kind] == pytest.approx(100 * right / joint.sum(), rel=1e-12)
        assert found[f"{kind}_tied"] == pytest.approx(100 * tied / joint[:2].sum(), rel=1e-12)


def test_it_counts_the_very_images_of_each_seed(tmp_path: Path) -> None:
    digits = load_digits(write_digits(tmp_path, 1500, 300), "none")
    cfg = SMALL.replace(tied="first_two", noise_to="any")
    found = colour_only(digits, cfg, [4, 2])
    assert list(found.by_seed) == [4, 2]
    sets = make_sets(digits, cfg, 2)
    counts = joint_counts(sets["rev"])
    labels, colours = sets["rev"].labels, sets["rev"].colours
    assert counts.sum() == 300
    assert counts[1, 0] == ((labels == 1) & (colours == 0)).sum()
    assert found.by_seed[2] == colour_only_accuracy({k: joint_counts(v) for k, v in sets.items()})
    train, test = digit_shares(digits, cfg)
    laws = {"train": joint_law(cfg.colours, "train", train)}
    laws |= {kind: joint_law(cfg.colours, kind, test) for kind in ("id", "rand", "rev")}
    assert found.law == colour_only_accuracy(laws)
    assert train[3] == (digits.train_labels == 3).mean()
    assert test[3] == (digits.test_labels == 3).mean()
    # A split counts the classes of its own images.
    _, last = digit_shares(digits, replace(cfg, test_from="split"))
    assert last[3] == (digits.train_labels[1250:] == 3).mean()


def test_sets_without_images_to_count_are_refused(tmp_path: Path) -> None:
    digits = load_digits(write_digits(tmp_path, 1500, 300), "none")
    few = Table1Config(images=2, batch=2, few_labels=2)
    with pytest.raises(DataError, match="images: expected some labelled 0 in every set, got none"):
        colour_only(digits, few, [0])
    tied = SMALL.replace(tied="first_two", few_labels=2)
    labels = {seed: make_sets(digits, SMALL, seed)["train"].labels for seed in range(6)}
    seed = next(seed for seed, found in labels.items() if not (found[:2] < 2).any())
    with pytest.raises(DataError, match=f"among the first 2, got none, seed {seed}"):
        make_sets(digits, tied, seed)
    first = int((labels[seed] < 2).nonzero()[0, 0])
    make_sets(digits, tied.replace(few_labels=first + 1), seed)
