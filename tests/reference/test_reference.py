"""The measuring stick itself: stop-gradient, derivatives, the lemmas' recursions, the head."""

import pytest
import torch
from torch import Tensor

from mmcl_fast import TrainConfig, reference
from mmcl_fast.data import SignalNoiseData, sample
from mmcl_fast.training.linear_probe import ood_accuracy

SMALL = TrainConfig(n=12, d=40, m=5, n_test=30, dtype="float64", sigma_0=0.05, tau=0.4)


def loss_of(data: SignalNoiseData, cfg: TrainConfig):
    negatives = reference.other_label(data.labels)
    signal = reference.signal_patches(data.labels, data.mu)

    def single(w: Tensor) -> Tensor:
        h = reference.features(w, signal, data.noise, cfg.q)
        view = reference.features(w, signal, data.augmented, cfg.q)
        return reference.single_modal_loss(h, view, negatives, cfg.tau_value)

    def multi(w: Tensor, w_b: Tensor) -> Tensor:
        h = reference.features(w, signal, data.noise, cfg.q)
        signal_b = reference.signal_patches(data.labels, data.mu_b)
        g = reference.features(w_b, signal_b, data.noise_b, cfg.q)
        return reference.multi_modal_loss(h, g, negatives, cfg.tau_value)

    return multi if cfg.is_multi else single


def test_the_second_argument_of_the_similarity_gets_no_gradient() -> None:
    query, key = (torch.rand(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = reference.similarity(query, key).square().sum()
    loss = loss + reference.paired_similarity(query, key).sum()
    by_query, by_key = torch.autograd.grad(loss, (query, key), allow_unused=True)
    assert by_query.abs().min() > 0
    assert by_key is None


@pytest.mark.parametrize("q", [1, 2, 3])
def test_activation_and_its_derivative(q: int) -> None:
    z = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(reference.activation(z, q).sum(), z)
    assert slope.tolist() == [0.0, 0.0, q * 0.5 ** (q - 1), q * 3.0 ** (q - 1)]
    assert torch.equal(reference.derivative(z.detach(), q), slope)


@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_recursions_of_the_lemmas_give_the_descended_weights(modality: str, q: int) -> None:
    """gamma and rho by Lemmas 5.1 and 5.3 against w <- w - eta dL/dw by autograd, 30 steps."""
    cfg = SMALL.replace(modality=modality, q=q, sigma_0=0.05 if q == 1 else 0.2)
    data = sample(cfg)
    sides = [(data.weights, data.mu, data.noise)]
    if cfg.is_multi:
        sides.append((data.weights_b, data.mu_b, data.noise_b))
    weights, loss, losses = [w for w, _, _ in sides], loss_of(data, cfg), []
    gamma = [torch.zeros(cfg.m, dtype=torch.float64) for _ in sides]
    rho = [torch.zeros(cfg.m, cfg.n, dtype=torch.float64) for _ in sides]
    negatives, scale = reference.other_label(data.labels), cfg.eta / (cfg.n * cfg.m * cfg.tau_value)
    for _ in range(30):
        signal = [reference.signal_patches(data.labels, mu) for _, mu, _ in sides]
        h = [
            reference.features(w, s, x, q)
            for w, s, (_, _, x) in zip(weights, signal, sides, strict=True)
        ]
        other = (
            h[-1] if cfg.is_multi else reference.features(weights[0], signal[0], data.augmented, q)
        )
        roles = (
            [(h[0], other, other), (other, h[0], h[0])] if cfg.is_multi else [(h[0], h[0], other)]
        )
        for k, ((query, key, positive), (_, mu, noise)) in enumerate(
            zip(roles, sides, strict=True)
        ):
            p, p_negative = reference.softmax_weights(
                reference.paired_similarity(query, positive) / cfg.tau_value,
                reference.similarity(query, key) / cfg.tau_value,
                negatives,
            )
            m = cfg.m
            keys = reference.Keys(
                key[:, :m], key[:, m:], positive[:, :m], positive[:, m:], p, p_negative
            )
            z_signal, z_noise = signal[k] @ weights[k].T, noise @ weights[k].T
            step = reference.gamma_increment(z_signal, data.labels, keys, q=q, scale=scale)
            gamma[k] = gamma[k] + step * mu.square().sum()
            step = reference.rho_increment(z_noise, keys, q=q, scale=scale)
            rho[k] = rho[k] + step * noise.square().sum(dim=1)
        value, weights = reference.gradient_descent_step(loss, weights, cfg.eta)
        losses.append(value)
    assert losses[-1] < losses[0]
    for k, (initial, mu, noise) in enumerate(sides):
        rebuilt = reference.weights_from_coefficients(initial, gamma[k], rho[k], mu, noise)
        torch.testing.assert_close(rebuilt, weights[k], rtol=0, atol=1e-12)


def test_one_step_follows_central_differences_with_the_keys_held_fixed() -> None:
    """Stop-gradient by its meaning: only the first argument of the similarity moves."""
    cfg = SMALL.replace(n=6, d=7, m=2)
    data = sample(cfg)
    signal = reference.signal_patches(data.labels, data.mu)
    key = reference.features(data.weights, signal, data.noise)
    view = reference.features(data.weights, signal, data.augmented)
    negatives = reference.other_label(data.labels)

    def frozen(w: Tensor) -> Tensor:
        h = reference.features(w, signal, data.noise)
        return reference.losses.contrastive_terms(
            (h * view).sum(1) / (cfg.m * cfg.tau_value),
            h @ key.T / (cfg.m * cfg.tau_value),
            negatives,
        ).mean()

    value, (moved,) = reference.gradient_descent_step(loss_of(data, cfg), [data.weights], 0.1)
    assert value == pytest.approx(frozen(data.weights).item(), rel=1e-14)
    width = 1e-6
    for r in range(cfg.m):
        for c in range(cfg.d):
            bump = torch.zeros_like(data.weights)
            bump[r, c] = width
            slope = (frozen(data.weights + bump) - frozen(data.weights - bump)) / (2 * width)
            step = (moved - data.weights)[r, c]
            assert step == pytest.approx(-0.1 * slope.item(), rel=1e-6, abs=1e-10)


def test_the_head_agrees_with_the_batched_one() -> None:
    data = sample(SMALL)
    w = data.weights * 20
    seen = reference.embedding(w, reference.signal_patches(data.labels, data.mu), data.noise)
    test = reference.signal_patches(data.test_labels, data.nu)
    unseen = reference.embedding(w, test, data.test_noise)
    alone = reference.ood_accuracy(seen, data.labels, unseen, data.test_labels)
    batched = ood_accuracy(seen[None], data.labels[None], unseen[None], data.test_labels[None])
    assert alone == batched[0]
    assert 0.3 < alone < 1.0
