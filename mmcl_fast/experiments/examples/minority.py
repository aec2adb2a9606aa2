"""Signals of frequent and of rare classes, over time and over how unequal the classes are.

The question is that of Liao et al. (ICLR 2026, arXiv 2602.10357) on majority and minority
features; `docs/examples/minority.md` compares.
"""

from __future__ import annotations

import numpy as np

from mmcl_fast import metrics
from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.examples.observe import Told, diverged, trained
from mmcl_fast.experiments.examples.result import ExampleResult, LinePanel, line

CONFIG = TrainConfig(
    negatives="all",
    classes=5,
    n=200,
    d=2500,
    m=80,
    mu_norm=11.0,
    mu_b_norm=22.0,
    nu_norm=11.0,
    data="reduced",
    epochs=200,
    evaluate_every=200,
    n_test=500,
)
MODALITIES = {"single": "single-modal", "multi": "multi-modal"}
CLASSES = {"most frequent class": "majority", "rarest class": "minority"}
EXPONENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
FULL_EXPONENTS = tuple(np.linspace(0, 3, 13).tolist())
SEEDS, FULL_SEEDS = 3, 10
CURVES_AT = 1.0  # exponent of the curves over time


def run_epochs(*, full: bool) -> int:
    """Run-epochs of the example, for a display of progress."""
    exponents, seeds = (FULL_EXPONENTS, FULL_SEEDS) if full else (EXPONENTS, SEEDS)
    return len(MODALITIES) * len(exponents) * seeds * (CONFIG.epochs + 1)


def run(*, full: bool, told: Told) -> ExampleResult:
    """Train both modalities over the prior's exponent; see `docs/examples/minority.md`."""
    exponents, count = (FULL_EXPONENTS, FULL_SEEDS) if full else (EXPONENTS, SEEDS)
    configs = [
        CONFIG.replace(modality=modality, prior_exponent=x, seed=s)
        for modality in MODALITIES
        for s in range(count)
        for x in exponents
    ]
    curves = {"majority": metrics.majority_learning, "minority": metrics.minority_learning}
    at_end = {"worst": metrics.worst_class_accuracy}
    runs, values = trained(configs, told, metrics=curves, at_end=at_end)
    shape = (len(MODALITIES), count, len(exponents))
    over_time = {
        label: np.array([one.metrics[name].numpy() for one in runs]).reshape(*shape, -1)
        for label, name in CLASSES.items()
    }
    worst = np.array(values["worst"]).reshape(shape)
    mean = np.array([one.ood_accuracy[-1].item() for one in runs]).reshape(shape)
    at = exponents.index(CURVES_AT)
    epochs = list(range(CONFIG.epochs + 1))
    axis, named = "exponent of the prior", list(enumerate(MODALITIES.values()))
    panels = (
        LinePanel(
            f"signal learned, exponent {CURVES_AT:g}",
            "epoch",
            [float(epoch) for epoch in epochs],
            tuple(
                line(f"{name}, {label}", x[k, :, at])
                for name, x in over_time.items()
                for k, label in named
            ),
            scales=("linear", "log"),
        ),
        LinePanel(
            "signal learned, last epoch",
            axis,
            list(exponents),
            tuple(
                line(f"{name}, {label}", x[k, :, :, -1])
                for name, x in over_time.items()
                for k, label in named
            ),
        ),
        LinePanel(
            "test accuracy",
            axis,
            list(exponents),
            (
                *(line(f"all classes, {label}", mean[k]) for k, label in named),
                *(line(f"worst class, {label}", worst[k]) for k, label in named),
            ),
            chance=1 / (CONFIG.classes or 2),
        ),
    )
    varied = ("prior_exponent", "modality")
    return ExampleResult("minority", CONFIG, varied, range(count), panels, diverged(runs))


__all__ = ["CONFIG", "run", "run_epochs"]
