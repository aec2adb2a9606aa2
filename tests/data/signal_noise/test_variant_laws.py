"""Other coordinates, same law: reduced against explicit data, orthogonal against d = 10^7.

Short runs; loss, signal, noise and accuracy at their end are compared by
two-sample Kolmogorov-Smirnov tests at p < 1e-4 with fixed seeds. There are about 100 of them, so
honest data would fail one for one choice of seeds in 100.
"""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from mmcl_fast import TrainConfig, train_many

P_VALUE = 1e-4
DIM = 10**7
BASE = TrainConfig(
    n=12, m=4, d=60, n_test=30, epochs=15, eta=0.03, mu_norm=3.0, nu_norm=1.0, sigma_eps=0.5,
    sigma_0=0.02, evaluate_every=15, device="cpu", engine="gram",
)  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "classes": {"classes": 3, "prior_exponent": 0.5},
    "spurious": {"spurious_norm": 4.0, "spurious_correlation": 0.6},
    "pairs": {"pair_noise": 0.4, "negatives": "all"},
    "keys": {"stop_gradient": "none"},
    "cosine": {"similarity": "cosine", "eta_tau": 0.5, "eta": 0.02},
    "logistic": {"objective": "logistic", "label_noise": 0.2, "label_noise_draw": "per_epoch"},
    "scaled_views": {"view_scale": 0.4, "augment": "per_epoch"},
    "minibatches": {"optimizer": "sgd", "batch_size": 5},
    "multi": {"modality": "multi", "d_b": 50, "spurious_b_norm": 3.0, "mu_b_norm": 5.0},
    "third": {
        "modality": "multi", "d_c": 40, "sigma_xi_c": 0.8, "mu_c_norm": 4.0, "spurious_c_norm": 2.0,
        "pair_noise": 0.3,
    },
    "all": {
        "classes": 3, "spurious_norm": 3.0, "pair_noise": 0.3, "stop_gradient": "none",
        "view_scale": 0.7,
    },
}  # fmt: skip


def limit(cfg: TrainConfig) -> TrainConfig:
    """The config at d = 10^7 with the same sigma sqrt(d)."""
    scale, scale_b, scale_c = ((d / DIM) ** 0.5 for d in (cfg.d, cfg.d_b_value, cfg.d_c_value))
    third: dict[str, Any] = {}
    if "c" in cfg.modalities:
        third = {"d_c": DIM, "sigma_xi_c": cfg.sigma_xi_c_value * scale_c}
    return cfg.replace(
        d=DIM,
        d_b=DIM if cfg.is_multi else None,
        sigma_xi=cfg.sigma_xi * scale,
        sigma_xi_b=cfg.sigma_xi_b_value * scale_b,
        sigma_eps=cfg.sigma_eps * scale,
        **third,
    )


def assert_equal_laws(ours: TrainConfig, other: TrainConfig, runs: int) -> None:
    names = ["loss", "signal", "noise", "ood_accuracy"]
    if ours.classes is not None:
        names.pop()  # of the head; the rest says what the data are
    changes = {"evaluate_every": 15 if "ood_accuracy" in names else 0}
    # Other seeds for the other kind of data: the two samples must be independent.
    found = [
        train_many([cfg.replace(seed=first + s, **changes) for s in range(runs)])
        for cfg, first in ((ours, 10_000), (other, 20_000))
    ]
    for name in names:
        a, b = ([getattr(run, name)[-1].item() for run in kind] for kind in found)
        assert len(set(a)) > 2, name
        assert stats.ks_2samp(a, b).pvalue > P_VALUE, name


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_reduced_data_have_the_explicit_law(option: str) -> None:
    cfg = BASE.replace(**OPTIONS[option])
    assert_equal_laws(cfg.replace(data="reduced"), cfg, 800)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["paper", *OPTIONS])
def test_orthogonal_data_have_the_law_of_large_d(option: str) -> None:
    cfg = limit(BASE.replace(**OPTIONS.get(option, {})))
    assert_equal_laws(cfg.replace(data="orthogonal"), cfg.replace(data="reduced"), 800)


def test_laws_of_few_runs() -> None:
    # Views that are much noise, so that eps in other coordinates than its own would show.
    cfg = BASE.replace(
        stop_gradient="none", pair_noise=0.3, d=300, sigma_eps=1.5, nu_norm=2.0, epochs=6
    )
    assert_equal_laws(cfg.replace(data="reduced"), cfg, 120)
    far = limit(cfg)
    assert_equal_laws(far.replace(data="orthogonal"), far.replace(data="reduced"), 120)
