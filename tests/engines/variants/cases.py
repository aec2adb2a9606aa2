"""Settings drawn over all options of the models together, from a seed."""

from __future__ import annotations

import random
from typing import Any

from mmcl_fast import ConfigError, TrainConfig
from mmcl_fast.data.signal_noise.sampling import undrawable
from mmcl_fast.engines import ENGINES

# Small enough for autograd, odd and even sizes.
CHOICES: dict[str, tuple[Any, ...]] = {
    "objective": ("contrastive",) * 4 + ("logistic",),
    "n": (9, 12, 21),
    "m": (6, 7, 10),
    "d_b": (None, 33),
    "q": (1, 2, 3),
    "modality": ("single", "multi", {"modality": "multi", "mu_c_norm": 2.5}),
    "sigma_xi_b": (None, 0.5),
    "tau": (None, 0.3),
    "negatives": ("other_label", "all"),
    "negatives_per_sample": (None, 2),
    "negatives_draw": ("fixed", "per_epoch"),
    "pair_noise": (0.0, 0.3),
    "stop_gradient": ("key", "none"),
    "similarity": ("inner", "cosine"),
    "eta_tau": (None, 0.1),
    "classes": (None, 3, 4),
    "prior_exponent": (0.0, 1.0),
    "spurious_norm": (0.0, 1.5),
    "spurious_b_norm": (0.0, 2.0),
    "spurious_correlation": (0.8, 0.3),
    "d_c": (None, 35),
    "sigma_xi_c": (None, 0.7),
    "spurious_c_norm": (0.0, 1.0),
    "label_noise": (0.0, 0.2, {"label_noise": 0.2, "label_noise_draw": "per_epoch"}),
    "view_scale": (1.0, 0.5),
    "view_mask": (0.0, 0.3),
    "augment": ("fixed", "per_epoch"),
    "data": ("explicit", "reduced", "orthogonal"),
    "optimizer": (
        "gd",
        "momentum",
        {"optimizer": "sgd", "batch_size": 4},
        {"optimizer": "sgd", "batch_size": 5},
    ),
    "weight_decay": (0.0, 0.1),
    "probe_on": ("train", "ood"),
}
# At which no run diverges.
STRENGTHS: dict[str, Any] = {
    "d": 40, "mu_norm": 2.0, "mu_b_norm": 3.0, "sigma_0": 0.05, "eta": 0.005,
}  # fmt: skip
SHORT: dict[str, Any] = {"epochs": 8, "n_test": 7, "dtype": "float64"}


def drawn(count: int, seed: int, engine: str = "gram", **fixed: Any) -> list[TrainConfig]:
    """Settings that an engine trains, no two with equal seeds.

    Options are set one after the other in random order, the objective first, then the modality;
    what is refused with those before it keeps its default.

    Args:
        count: Their number.
        seed: Of the choice.
        engine: What refuses settings, as well as the config.
        fixed: Settings in place of drawn ones.
    """
    choose, found = random.Random(seed), []
    while len(found) < count:
        cfg = TrainConfig(**STRENGTHS | SHORT | fixed, seed=len(found))
        names = [name for name in CHOICES if name not in fixed]
        for name in sorted(choose.sample(names, len(names)), key=_rank):
            changes = choose.choice(CHOICES[name])
            try:
                changed = cfg.replace(**changes if isinstance(changes, dict) else {name: changes})
            except ConfigError:
                continue
            if ENGINES[engine].why_not(changed) is None:
                cfg = changed
        if not undrawable([cfg]):
            found.append(cfg)
    return found


def _rank(name: str) -> int:
    return {"objective": 0, "modality": 1}.get(name, 2)


__all__ = ["CHOICES", "SHORT", "drawn"]
