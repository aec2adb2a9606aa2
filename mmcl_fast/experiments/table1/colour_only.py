"""Accuracy of a decision by colour alone: exact accounting of Table 1 without a network.

The rule gives each colour the likeliest label among the training images of that colour. No decision
that sees the colour and not the digit is right on more of the training images.

    train = sum_c max_y P(y, c),     set = sum_c Q(y*(c), c),     y*(c) = argmax_y P(y, c)

P and Q are joint shares of label y and colour c of the training images and of the set. "0 against
1" restricts y to 0 and 1, and the images to those labelled so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcl_fast.data.mnist.colored_mnist import CLASSES, ColouredDigits, Kind, partners
from mmcl_fast.data.mnist.colour_rule import ColourRule
from mmcl_fast.data.mnist.files import Digits
from mmcl_fast.experiments.table1.accounting import tied_name, zero_one_name
from mmcl_fast.experiments.table1.protocol import Table1Config
from mmcl_fast.experiments.table1.sets import digit_shares, make_sets

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColourOnly:
    """Accuracy of the best decision by colour alone, in percent; keys as in `colour_only_accuracy`.

    Attributes:
        by_seed: On the very images of each seed.
        law: In law: of the rule that is best for the distribution, over all its images.
    """

    by_seed: dict[int, dict[str, float]]
    law: dict[str, float]


def colour_only(digits: Digits, cfg: Table1Config, seeds: Sequence[int]) -> ColourOnly:
    """The accounting of Table 1's data, without a network.

    Args:
        digits: MNIST.
        cfg: Settings; those of encoders, views and probes do not matter.
        seeds: Seeds.

    Raises: DataError: as `make_sets`.
    """
    by_seed = {}
    for seed in seeds:
        sets = make_sets(digits, cfg, seed)
        by_seed[seed] = colour_only_accuracy({k: joint_counts(data) for k, data in sets.items()})
    training, test = digit_shares(digits, cfg)
    kinds: tuple[Kind, ...] = ("id", "rand", "rev")
    laws = {"train": joint_law(cfg.colours, "train", training)}
    laws |= {kind: joint_law(cfg.colours, kind, test) for kind in kinds}
    return ColourOnly(by_seed, colour_only_accuracy(laws))


def colour_only_accuracy(joints: Mapping[str, Floats]) -> dict[str, float]:
    """Percent right of the best rule from colours to labels, by set.

    Args:
        joints: Images, or their share, of each label (row) and colour (column), [10, 10], by set;
            "train" is one of them.

    Returns: Percent by set and accounting, keys as in `mmcl_fast.experiments.table1.accounting`.
    Numerics: Colours whose labels are equally likely take the least one.
    """
    first_two = np.arange(CLASSES)[:, None] < 2  # [labels, 1]
    ten = joints["train"].argmax(0)  # [colours]
    two = joints["train"][:2].argmax(0)
    percents = {}
    for name, joint in joints.items():
        percents[name] = _percent(ten, joint)
        percents[tied_name(name)] = _percent(ten, joint * first_two)
        percents[zero_one_name(name)] = _percent(two, joint * first_two)
    return percents


def _percent(rule: npt.NDArray[np.int64], joint: Floats) -> float:
    return 100.0 * float(joint[rule, np.arange(CLASSES)].sum() / joint.sum())


def joint_counts(data: ColouredDigits) -> Floats:
    """Images of each label (row) and colour (column), [10, 10]."""
    pairs = data.labels * CLASSES + data.colours
    counts = np.bincount(pairs.cpu().numpy(), minlength=CLASSES**2)
    return counts.reshape(CLASSES, CLASSES).astype(np.float64)


def joint_law(rule: ColourRule, kind: Kind, digit_shares: Sequence[float] | Floats) -> Floats:
    """Probability of each label (row) and colour (column), [10, 10].

    Args:
        rule: The distribution, as `mmcl_fast.data.mnist.colored_mnist.draw` draws from it.
        kind: "train" and "id": the rule; "rand": uniform colours; "rev": the reversed rule.
        digit_shares: Share of each true class among the images, [10], sum 1.
    """
    uniform = np.full((CLASSES, CLASSES), 1.0 / CLASSES)
    own = np.eye(CLASSES)
    labels = _replaced(own, rule.label_noise, rule.noise_to)  # [digit, label]
    if kind == "rand":
        colours = uniform
    else:
        shown = own[partners(np.arange(CLASSES), rule.reversal)] if kind == "rev" else own
        colours = _replaced(shown, rule.colour_noise, rule.colour_to)  # [class, colour]
        if rule.tied == "first_two":
            colours[2:] = uniform[2:]
    weighted: Floats = (
        np.asarray(digit_shares, dtype=np.float64)[:, None] * labels
    )  # [digit, label]
    by_label = np.diag(weighted.sum(0)) if rule.colour_from == "label" else weighted.T
    joint: Floats = by_label @ colours
    return joint


def _replaced(expected: Floats, probability: float, to: str) -> Floats:
    """Rows [10, 10]: each one-hot row of `expected`, replaced with a probability."""
    other = 1.0 - expected if to == "other" else np.ones_like(expected)
    drawn: Floats = other / other.sum(1, keepdims=True)
    return expected + probability * (drawn - expected)


__all__ = ["ColourOnly", "colour_only", "colour_only_accuracy", "joint_counts", "joint_law"]
