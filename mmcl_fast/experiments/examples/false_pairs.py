"""Mismatched pairs of multi-modal training: accuracy and purity over their share.

The question is that of Sun et al. (NeurIPS 2025), whose Figure 1 has feature purity and zero-shot
accuracy over the rate of misaligned pairs; `docs/examples/false-pairs.md` compares.
"""

from __future__ import annotations

import numpy as np

from mmcl_fast import metrics
from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.examples.observe import Told, diverged, trained
from mmcl_fast.experiments.examples.result import ExampleResult, LinePanel, line

# d, m and unlabelled negatives as they state them; all else is inferred.
CONFIG = TrainConfig(
    modality="multi",
    negatives="all",
    classes=10,
    n=200,
    d=2500,
    m=80,
    mu_norm=20.0,
    mu_b_norm=20.0,
    nu_norm=20.0,
    data="reduced",
    epochs=300,
    evaluate_every=300,
    n_test=500,
)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
FULL_SHARES = tuple(np.linspace(0, 1, 21).tolist())
SEEDS, FULL_SEEDS = 3, 10


def run_epochs(*, full: bool) -> int:
    """Run-epochs of the example, for a display of progress."""
    shares, seeds = (FULL_SHARES, FULL_SEEDS) if full else (SHARES, SEEDS)
    return len(shares) * seeds * (CONFIG.epochs + 1)


def run(*, full: bool, told: Told) -> ExampleResult:
    """Train over the share of mismatched pairs; see `docs/examples/false-pairs.md`."""
    shares, count = (FULL_SHARES, FULL_SEEDS) if full else (SHARES, SEEDS)
    configs = [CONFIG.replace(pair_noise=x, seed=s) for s in range(count) for x in shares]
    at_end = {
        "zero-shot": metrics.zero_shot_accuracy,
        "purity": metrics.purity,
        "signal": lambda state: state.signal,
        "noise": lambda state: state.noise,
    }
    runs, values = trained(configs, told, at_end=at_end)
    found = {name: np.array(x).reshape(count, -1) for name, x in values.items()}
    probe = np.array([run.ood_accuracy[-1].item() for run in runs]).reshape(count, -1)
    axis = "share of mismatched pairs"
    panels = (
        LinePanel(
            "test accuracy",
            axis,
            list(shares),
            (line("zero-shot", found["zero-shot"]), line("linear probe", probe)),
            chance=1 / (CONFIG.classes or 2),
        ),
        LinePanel("purity of the neurons", axis, list(shares), (line("purity", found["purity"]),)),
        LinePanel(
            "what is learned",
            axis,
            list(shares),
            (line("signal", found["signal"]), line("noise", found["noise"])),
        ),
    )
    varied = ("pair_noise",)
    return ExampleResult("false-pairs", CONFIG, varied, range(count), panels, diverged(runs))


__all__ = ["CONFIG", "run", "run_epochs"]
