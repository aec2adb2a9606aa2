"""Figure 1 of the paper: single- against multi-modal learning on synthetic data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_presets import INFERRED, PRESETS
from mmcl_fast.environment import environment
from mmcl_fast.experiments.probe import head_text
from mmcl_fast.theory import t1_multi, t1_single
from mmcl_fast.training import EpochInfo, train_many
from mmcl_fast.training.recorder import CURVES
from mmcl_fast.training.run import Run

MODALITIES = ("single", "multi")
# What the paper prints in its Figure 1 and the text beside it (section 5.3 and 6).
PAPER_CLAIMS = {
    "loss": "both converge rapidly",
    "ood_accuracy": "multi nearly 1.0, single around 0.5",
    "signal": "multi much higher",
    "noise": "single higher",
}


@dataclass(frozen=True)
class Figure1:
    """Curves of both modalities over seeds.

    Attributes:
        config: Settings shared by both; its modality and seed are those of no run in particular.
        seeds: Seeds of the runs.
        runs: Runs by modality, one per seed.
        t1: End of the first stage by Lemmas 5.2 and 5.4, in epochs; None where not stated (q > 1, a
            model variant).
    """

    config: TrainConfig
    seeds: tuple[int, ...]
    runs: dict[str, list[Run]]
    t1: dict[str, float | None]

    def curve(self, modality: str, name: str) -> Tensor:
        """One curve of every seed, [seeds, epochs + 1]."""
        return torch.stack([getattr(run, name) for run in self.runs[modality]])

    def to_json(self) -> dict[str, Any]:
        """The contract of `figure1.json`."""
        used = self.runs["single"][0].config
        engines = sorted({run.config.engine for runs in self.runs.values() for run in runs})
        return {
            "config": self.config.to_dict()
            | {
                "modality": "both",
                "engine": ", ".join(engines),
                "device": used.device,
                "tau": used.tau_value,
                "seeds": list(self.seeds),
                "inferred": dict(INFERRED) | _stated(self.config),
                "t1": self.t1,
            },
            "epochs": list(range(self.config.epochs + 1)),
            **{m: {c: _summary(self.curve(m, c)) for c in CURVES} for m in MODALITIES},
            "environment": environment(used.device),
        }


def run_figure1(
    base: TrainConfig = PRESETS["figure1"],
    seeds: Sequence[int] = tuple(range(10)),
    on_progress: Callable[[str, int], None] | None = None,
) -> Figure1:
    """Train both modalities for every seed.

    Args:
        base: Settings; `modality` and `seed` are overridden.
        seeds: Seeds of data and weights.
        on_progress: Told the modality and the run-epochs done.

    Returns: All runs.
    """
    runs: dict[str, list[Run]] = {}
    done = 0

    def report(info: EpochInfo) -> None:
        nonlocal done
        done += len(info.configs)
        if on_progress:
            on_progress(modality, done)

    for modality in MODALITIES:
        cfg = base.replace(modality=modality)
        runs[modality] = train_many([cfg.replace(seed=s) for s in seeds], on_epoch=report)
    return Figure1(base, tuple(seeds), runs, {m: _t1(base, m) for m in MODALITIES})


def _stated(cfg: TrainConfig) -> dict[str, str]:
    """What is less inferred than by default."""
    if cfg.probe_on == "train":
        return {}
    fitted = f"{head_text(cfg)}, as section 3.3 says"
    return {"head": f"{fitted}; not stated: their number, penalty and intercept"}


def _t1(cfg: TrainConfig, modality: str) -> float | None:
    if cfg.q != 1 or not (cfg.mu_norm and cfg.mu_b_norm) or cfg.is_variant:
        return None
    shared = {"sigma_0": cfg.sigma_0, "eta": cfg.eta, "m": cfg.m, "tau": cfg.tau_value}
    if modality == "single":
        return t1_single(sigma_xi=cfg.sigma_xi, d=cfg.d, n=cfg.n, **shared)
    return t1_multi(mu_norm=cfg.mu_norm, c_mu=cfg.mu_b_norm / cfg.mu_norm, **shared)


def _summary(curves: Tensor) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds (0 for one seed), and every seed's curve.

    What is not finite (accuracy not evaluated, a diverged run) is None: JSON has no NaN.
    """
    wide = curves.double()
    sd = wide.std(0) if len(wide) > 1 else torch.zeros_like(wide[0])
    return {
        "mean": _numbers(wide.mean(0)),
        "sd": _numbers(sd),
        "per_seed": [_numbers(curve) for curve in wide],
    }


def _numbers(curve: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in curve.tolist()]


__all__ = ["MODALITIES", "PAPER_CLAIMS", "Figure1", "run_figure1"]
