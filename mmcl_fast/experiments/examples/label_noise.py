"""Label-noise gradient descent of the supervised network against plain gradient descent.

The question is that of Huang, Han et al. (NeurIPS 2025, arXiv 2510.17526), whose Figure 3 has test
accuracy over n and SNR; `docs/examples/label-noise.md` compares.
"""

from __future__ import annotations

import itertools

import numpy as np

from mmcl_fast import metrics
from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.examples.observe import Told, diverged, trained
from mmcl_fast.experiments.examples.result import ExampleResult, HeatPanel

# d, the squared ReLU and 20 neurons for each label as they state them; all else is inferred.
CONFIG = TrainConfig(
    objective="logistic",
    d=2000,
    m=40,
    q=2,
    sigma_0=0.01,
    eta=0.5,
    data="reduced",
    epochs=2000,
    evaluate_every=0,
    n_test=500,
)
FLIPPED = 0.1  # share of the labels that are told wrongly, anew in each epoch
KINDS = {
    "gradient descent": {},
    "label-noise gradient descent": {"label_noise": FLIPPED, "label_noise_draw": "per_epoch"},
}
SAMPLES = (25, 50, 100, 200)
SNRS = (0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.22)
FULL_SAMPLES = (25, 35, 50, 70, 100, 140, 200, 280, 400)
FULL_SNRS = tuple(np.geomspace(0.015, 0.3, 14).tolist())
SEEDS, FULL_SEEDS = 1, 5
FULL_EPOCHS = 4000


def run_epochs(*, full: bool) -> int:
    """Run-epochs of the example, for a display of progress."""
    samples, snrs, seeds, epochs = _size(full=full)
    return len(KINDS) * len(samples) * len(snrs) * seeds * (epochs + 1)


def run(*, full: bool, told: Told) -> ExampleResult:
    """Train over n and SNR by both; see `docs/examples/label-noise.md`."""
    samples, snrs, count, epochs = _size(full=full)
    grid = itertools.product(KINDS.values(), snrs, samples, range(count))
    configs = [_config(kind, snr, n, seed, epochs) for kind, snr, n, seed in grid]
    at_end = {"accuracy": metrics.supervised_accuracy}
    runs, values = trained(configs, told, at_end=at_end)
    accuracy = np.array(values["accuracy"]).reshape(len(KINDS), len(snrs), len(samples), count)
    panels = tuple(
        HeatPanel(kind, "n", "SNR", [float(n) for n in samples], list(snrs), maps.mean(2))
        for kind, maps in zip(KINDS, accuracy, strict=True)
    )
    varied = ("n", "snr", "label_noise", "label_noise_draw")
    base = CONFIG.replace(epochs=epochs)
    return ExampleResult("label-noise", base, varied, range(count), panels, diverged(runs))


def _config(kind: dict[str, object], snr: float, n: int, seed: int, epochs: int) -> TrainConfig:
    """A run whose test data have the training data's signal."""
    cfg = CONFIG.replace(**kind, n=n, seed=seed, epochs=epochs, snr=snr)
    return cfg.replace(nu_norm=cfg.mu_norm)


def _size(*, full: bool) -> tuple[tuple[int, ...], tuple[float, ...], int, int]:
    """Values of n and of the SNR, seeds, epochs."""
    if full:
        return FULL_SAMPLES, FULL_SNRS, FULL_SEEDS, FULL_EPOCHS
    return SAMPLES, SNRS, SEEDS, CONFIG.epochs


__all__ = ["CONFIG", "run", "run_epochs"]
