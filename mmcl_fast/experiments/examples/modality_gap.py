"""The modality gap and the temperature over time, where the temperature is learned and where not.

The question is that of Yaras et al. (CPAL 2025, arXiv 2412.07909), whose Figure 1 has both over
training; `docs/examples/modality-gap.md` compares.
"""

from __future__ import annotations

import numpy as np

from mmcl_fast import metrics
from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.examples.observe import Told, diverged, trained
from mmcl_fast.experiments.examples.result import ExampleResult, LinePanel, Scale, line

# CLIP's loss: cosines, gradients everywhere, unlabelled negatives. The rest is inferred.
CONFIG = TrainConfig(
    modality="multi",
    negatives="all",
    stop_gradient="none",
    similarity="cosine",
    classes=10,
    mu_norm=15.0,
    mu_b_norm=15.0,
    nu_norm=15.0,
    sigma_0=0.01,
    eta=0.02,
    data="reduced",
    epochs=1000,
    evaluate_every=1000,
)
LEARNED = {"eta_tau": 0.01}
KINDS = {
    "learned, from 0.1": LEARNED,
    "learned, 0.1 of the pairs mismatched": {"pair_noise": 0.1, **LEARNED},
    "fixed, 0.1": {},
    "fixed, 0.05": {"tau": 0.05},
}
FULL_KINDS = {**KINDS, "learned, from 0.2": {"tau": 0.2, **LEARNED}, "fixed, 0.2": {"tau": 0.2}}
SEEDS, FULL_SEEDS = 3, 10
FULL_EPOCHS = 10_000
SHOWN = 60  # epochs of a curve, geometric


def run_epochs(*, full: bool) -> int:
    """Run-epochs of the example, for a display of progress."""
    kinds, seeds, epochs = _size(full=full)
    return len(kinds) * seeds * (epochs + 1)


def run(*, full: bool, told: Told) -> ExampleResult:
    """Train with temperatures that are learned or fixed; see `docs/examples/modality-gap.md`."""
    kinds, count, epochs = _size(full=full)
    base = CONFIG.replace(epochs=epochs, evaluate_every=epochs)
    configs = [base.replace(**kind, seed=s) for kind in kinds.values() for s in range(count)]
    runs, _ = trained(configs, told, metrics={"gap": metrics.modality_gap})
    shown = np.unique(np.geomspace(1, epochs, SHOWN).round().astype(int))
    curves: dict[str, list[np.ndarray]] = {"gap": [], "tau": [], "loss": []}
    for one in runs:
        fixed = np.full(epochs + 1, one.config.tau_value)
        curves["gap"].append(one.metrics["gap"].numpy())
        curves["tau"].append(fixed if one.tau is None else one.tau.double().numpy())
        curves["loss"].append(one.loss.double().numpy())

    def panel(name: str, title: str, vertical: Scale = "log") -> LinePanel:
        values = np.array(curves[name])[:, shown].reshape(len(kinds), count, -1)
        lines = tuple(line(label, x) for label, x in zip(kinds, values, strict=True))
        return LinePanel(title, "epoch", shown.tolist(), lines, scales=("log", vertical))

    panels = (
        panel("gap", "modality gap"),
        panel("tau", "temperature", "linear"),
        panel("loss", "training loss"),
    )
    varied = ("tau", "eta_tau", "pair_noise")
    return ExampleResult("modality-gap", base, varied, range(count), panels, diverged(runs))


def _size(*, full: bool) -> tuple[dict[str, dict[str, float]], int, int]:
    """Temperatures, seeds, epochs."""
    if full:
        return FULL_KINDS, FULL_SEEDS, FULL_EPOCHS
    return KINDS, SEEDS, CONFIG.epochs


__all__ = ["CONFIG", "run", "run_epochs"]
