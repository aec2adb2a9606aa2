"""Every readout of a trained arm: its scores on every set, and their accuracies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmcl_fast.data.mnist.colored_mnist import CLASSES, ColouredDigits
from mmcl_fast.experiments.table1.accounting import (
    percent_right,
    percent_right_0_vs_1,
    percent_right_on_tied,
)
from mmcl_fast.experiments.table1.arms import minibatches
from mmcl_fast.experiments.table1.protocol import Table1Config
from mmcl_fast.experiments.table1.readout import fit_probe
from mmcl_fast.experiments.table1.unit_readout import UnitReadout, fit_centroids, fit_short_probe

BySet = dict[str, Tensor]


@dataclass(frozen=True)
class Readout:
    """Scores of one readout.

    Attributes:
        ten: Scores [n, 10] of the classes, by set; "train" holds the images that it was fitted to.
        two: Scores [n, 2] or wider of the classes 0 and 1, by set; None: not scored 0 against 1.
    """

    ten: BySet
    two: BySet | None


def read_all(
    features: BySet, sets: dict[str, ColouredDigits], cfg: Table1Config, seed: int
) -> tuple[dict[str, Readout], BySet]:
    """Scores of all fitted readouts for the label, and of the probe for the true digit.

    Args:
        features: [n, p] by set.
        sets: The images.
        cfg: Settings.
        seed: Key of the short probe's minibatches.
    """
    labels, few = sets["train"].labels, cfg.few_labels

    def probe(targets: Tensor, l2: float, count: int | None = None) -> BySet:
        inputs = features["train"][:count]
        fitted = fit_probe(inputs, targets[:count], l2=l2, iterations=cfg.probe_iterations)
        return {kind: fitted.scores(f) for kind, f in (features | {"train": inputs}).items()}

    readouts = {}
    for name, l2 in (("probe", cfg.probe_l2), ("probe_no_l2", 0.0)):
        scores = probe(labels, l2)
        readouts[name] = Readout(scores, scores)
    readouts["probe_few_labels"] = Readout(probe(labels, cfg.few_l2, few), None)
    centroids = fit_centroids(features["train"], labels, CLASSES)
    scores = {kind: centroids.scores(f) for kind, f in features.items()}
    readouts["centroids"] = Readout(scores, scores)
    readouts["probe_few_epochs"] = _short_probe(features, labels, cfg, seed)
    return readouts, probe(sets["train"].digits, cfg.probe_l2)


def _short_probe(features: BySet, labels: Tensor, cfg: Table1Config, seed: int) -> Readout:
    """Fitted twice: to ten classes, and for 0 against 1 to the images labelled so alone."""

    def fit(inputs: Tensor, targets: Tensor, classes: int) -> UnitReadout:
        size = min(cfg.batch, len(targets))
        batches = (
            index
            for epoch in range(cfg.few_epochs)
            for index in minibatches(len(targets), size, seed=seed, epoch=epoch, run=1)
        )
        return fit_short_probe(inputs, targets, classes, rate=cfg.learning_rate, batches=batches)

    tied = labels < 2
    ten = fit(features["train"], labels, CLASSES)
    two = fit(features["train"][tied], labels[tied], 2)
    return Readout(
        {kind: ten.scores(f) for kind, f in features.items()},
        {kind: two.scores(f) for kind, f in features.items()},
    )


def accuracies(readout: Readout, labels: BySet, *, tied: bool) -> dict[str, float]:
    """Percent right under every accounting.

    Args:
        readout: Scores.
        labels: By set.
        tied: Whether to count the images labelled 0 or 1 alone in ten classes, too.
    """
    predicted = {kind: scores.argmax(1) for kind, scores in readout.ten.items()}
    percents = percent_right(predicted, labels)
    if tied:
        percents |= percent_right_on_tied(predicted, labels)
    if readout.two is not None:
        percents |= percent_right_0_vs_1(readout.two, labels)
    return percents


__all__ = ["BySet", "Readout", "accuracies", "read_all"]
