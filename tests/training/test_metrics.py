"""The metrics that come with the package, each against its formula in plain float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmcl_fast import ConfigError, RunState, TrainConfig, metrics, reference, train
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.synthetic import draw_augmented

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=5, q=2, sigma_0=0.05, device="cpu")
OF_EVERY_RUN = sorted(
    set(metrics.__all__)
    - {"majority_learning", "minority_learning", "modality_gap", "purity"}
    - {"spurious_learning", "supervised_accuracy", "worst_class_accuracy", "zero_shot_accuracy"}
    - {"temperature"}
)
CONFIGS = [
    TINY.replace(dtype="float64"),
    TINY.replace(dtype="float64", modality="multi", d_b=31),
    TINY.replace(dtype="float64", augment="per_epoch", engine="primal"),
    TINY.replace(dtype="float64", modality="multi", data="reduced", d=400),
    TINY,
]


def weights(cfg: TrainConfig, epoch: int) -> list[Tensor]:
    """Weights of the run at an epoch in the coordinates of the data, float64."""
    found: list[Tensor] = []

    def keep(state: RunState) -> float:
        if state.epoch == epoch:
            found.extend(state.stored_weights(x).double() for x in "ab"[: 1 + cfg.is_multi])
        return 0.0

    train(cfg, metrics={"keep": keep})
    return found


def pair(cfg: TrainConfig, w: list[Tensor], epoch: int) -> tuple[Tensor, Tensor]:
    """Features of the samples and of their positives, by the reference."""
    data = sample(cfg)
    labels = data.labels.double()
    noise = data.noise.double()
    mu = reference.signal_patches(labels, data.mu.double())
    h = reference.features(w[0], mu, noise, cfg.q)
    if cfg.is_multi:
        mu_b = reference.signal_patches(labels, data.mu_b.double())
        return h, reference.features(w[1], mu_b, data.noise_b.double(), cfg.q)
    view = data.augmented
    if cfg.augment == "per_epoch" and epoch:
        view = draw_augmented(cfg, data.noise, epoch)
    return h, reference.features(w[0], mu, view.double(), cfg.q)


def hessian_of(loss: Callable[[list[Tensor]], Tensor], w: list[Tensor]) -> Tensor:
    """The Hessian in all weights as one matrix."""

    def of_flat(flat: Tensor) -> Tensor:
        parts = flat.split([x.numel() for x in w])
        return loss([part.view_as(x) for part, x in zip(parts, w, strict=True)])

    found: Tensor = torch.autograd.functional.hessian(
        of_flat, torch.cat([x.detach().flatten() for x in w])
    )
    return found


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda c: f"{c.modality}-{c.data}-{c.augment}")
def test_values(cfg: TrainConfig) -> None:
    epoch, n, m = 3, cfg.n, cfg.m
    names = [name for name in OF_EVERY_RUN if name != "covariance_spectrum"]
    run = train(cfg, metrics={name: getattr(metrics, name) for name in names})
    ours = {name: curve[epoch].item() for name, curve in run.metrics.items()}
    w = [x.requires_grad_() for x in weights(cfg, epoch)]
    h, positive = pair(cfg, w, epoch)
    negatives = reference.other_label(sample(cfg).labels)
    loss = reference.multi_modal_loss if cfg.is_multi else reference.single_modal_loss
    gradient = torch.autograd.grad(loss(h, positive, negatives, cfg.tau_value), w)
    hessian = hessian_of(lambda w: loss(*pair(cfg, w, epoch), negatives, cfg.tau_value), w)
    h, positive = h.detach(), positive.detach()
    unit, other = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) for x in (h, positive))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    potential = [math.exp(-2 * (unit[i] - unit[j]).square().sum().item()) for i, j in pairs]
    key = positive if cfg.is_multi else h
    gaps = [
        (h[i] @ positive[i] - max(left[i] @ right[j] for j in range(n) if negatives[i, j])) / m
        for left, right in ((h, key), *([(positive, h)] if cfg.is_multi else []))
        for i in range(n)
    ]
    embedded = (h[:, :m] + h[:, m:]).numpy()
    spectrum = torch.from_numpy(embedded).T.cov(correction=0).double()
    eigenvalues = torch.linalg.eigvalsh(spectrum)
    share = [x for x in (eigenvalues / eigenvalues.sum()).tolist() if x > 0]
    labels = sample(cfg).labels.numpy()
    head = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(embedded, labels)
    start, mu = sample(cfg).weights.double(), sample(cfg).mu.double()
    expected = {
        "alignment": (unit - other).square().sum(1).mean().item(),
        "uniformity": math.log(sum(potential) / len(potential)),
        "margin": min(gaps).item(),
        "effective_rank": math.exp(-sum(x * math.log(x) for x in share)),
        "top_eigenvalue_share": max(share),
        "dead_neuron_fraction": ((h[:, :m] == 0) & (h[:, m:] == 0)).all(0).double().mean().item(),
        "sign_flips": ((w[0] @ mu) * (start @ mu) < 0).double().mean().item(),
        "train_accuracy": head.score(embedded, labels),
        "gradient_norm": torch.cat([g.flatten() for g in gradient]).norm().item(),
        "hessian_eigenvalue": torch.linalg.eigvalsh(hessian)[-1].item(),
    }
    assert ours.keys() == expected.keys()
    tolerance = 1e-9 if cfg.dtype == "float64" else 1e-4
    assert ours == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_extremes() -> None:
    """What the paper's settings rarely reach: dead neurons and a sign that flips."""

    class State:
        config = TINY.replace(n=2)
        data = sample(TINY.replace(n=2, m=3, seed=3))

        def features(self, samples: str) -> Tensor:
            return torch.tensor([[0.0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 2, 0]])

        def stored_weights(self, modality: str) -> Tensor:
            return self.data.weights * torch.tensor([1.0, -1, -2])[:, None]

        def embeddings(self) -> tuple[Tensor, Tensor]:
            return torch.tensor([[1.0, 0, 0], [3, 0, 0]]), torch.zeros(1, 3)

    state = State()
    assert metrics.dead_neuron_fraction(state) == pytest.approx(2 / 3)
    assert metrics.sign_flips(state) == pytest.approx(2 / 3)
    assert metrics.covariance_spectrum(state).tolist() == [1.0, 0.0, 0.0]
    assert metrics.effective_rank(state) == pytest.approx(1.0)
    assert metrics.top_eigenvalue_share(state) == 1.0


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_a_diverging_run_has_metrics_up_to_there(modality: str) -> None:
    # Second derivatives in float32 overflow one epoch before the loss does.
    left_out = {"covariance_spectrum", "hessian_eigenvalue"}
    names = [name for name in OF_EVERY_RUN if name not in left_out]
    cfg = TINY.replace(q=3, eta=30.0, sigma_0=0.3, epochs=40, modality=modality)
    run = train(cfg, metrics={name: getattr(metrics, name) for name in names})
    assert run.status == "diverged"
    for name, curve in run.metrics.items():
        assert not curve[: run.diverged_at].isnan().any(), name
        assert curve[run.diverged_at :].isnan().all(), name


@pytest.mark.parametrize("name", ["gradient_norm", "hessian_eigenvalue"])
def test_drawn_negatives_have_no_derivatives(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected all negatives, got negatives"):
        train(TINY.replace(negatives_per_sample=3), metrics={"g": getattr(metrics, name)})
