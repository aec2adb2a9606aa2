"""Metrics of a run at an epoch, for `metrics=` of `train`, `train_many` and sweeps.

    run = mmcl_fast.train(cfg, metrics={"margin": mmcl_fast.metrics.margin})
    run.metrics["margin"]                                       # a curve, [epochs + 1]

Each is a function from a `mmcl_fast.RunState` to a number; any function of your own is, too.
Features are those of the loss, `[act(<w_r, y mu>), act(<w_r, xi>)]` [n, 2 m], computed from weights
and data: n m d multiplications for each kind of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.errors import ConfigError
from mmcl_fast.losses import info_nce
from mmcl_fast.training import RunState
from mmcl_fast.training.linear_probe import ood_accuracy


def alignment(state: RunState) -> float:
    """Mean squared distance of the normalised features of a positive pair, in 0 .. 4.

    Of Wang and Isola (ICML 2020), alpha = 2. Pairs: a sample and its view; multi-modal, its two
    modalities. A feature that is 0 stays 0.
    """
    a, b = (normalize(x) for x in _pair(state))
    return (a - b).square().sum(1).mean().item()


def uniformity(state: RunState) -> float:
    """Logarithm of the mean Gaussian potential of the normalised features of modality A, <= 0.

    log mean_{i < j} exp(-2 |f_i - f_j|^2), of Wang and Isola (ICML 2020), t = 2. Stores n^2 / 2
    distances.
    """
    return torch.pdist(normalize(state.features("a"))).square().mul(-2).exp().mean().log().item()


def margin(state: RunState) -> float:
    """Least difference between a sample's similarity to its positive and to its nearest negative.

    min_i ( sim_i+ - max_j sim_ij ) over all j of the other label, with the paper's similarity
    <h, k> / m. Multi-modal: the less of both directions. Stores n^2 similarities.
    """
    query, positive = _pair(state)
    key = positive if state.config.is_multi else query
    labels = state.data.labels.to(query.device)
    same = labels[:, None] == labels
    similarity = (query @ key.T / state.config.m).masked_fill(same, -torch.inf)
    to_positive = (query * positive).sum(1) / state.config.m
    least = (to_positive - similarity.amax(1)).min()
    if state.config.is_multi:
        least = torch.minimum(least, (to_positive - similarity.amax(0)).min())
    return least.item()


def covariance_spectrum(state: RunState) -> Tensor:
    """Eigenvalues of the covariance of the training embeddings `hbar`, descending, float64, [m].

    A vector, for callbacks: `effective_rank` and `top_eigenvalue_share` are numbers of it. NaN
    where an embedding is not finite.
    """
    centred = state.embeddings()[0].double()
    if not centred.isfinite().all():  # for which LAPACK has no eigenvalues
        return centred.new_full((centred.shape[1],), torch.nan)
    centred = centred - centred.mean(0)
    spectrum: Tensor = torch.linalg.eigvalsh(centred.T @ centred / len(centred))
    return spectrum.flip(0).clamp_min(0.0)


def effective_rank(state: RunState) -> float:
    """Exponential of the entropy of the normalised covariance spectrum, 1 .. m.

    Of Roy and Vetterli (EUSIPCO 2007), with eigenvalues of the covariance for singular values. NaN
    where all embeddings are equal.
    """
    spectrum = covariance_spectrum(state)
    share = spectrum / spectrum.sum()
    return math.exp(torch.special.entr(share).sum().item())


def top_eigenvalue_share(state: RunState) -> float:
    """Share of the largest eigenvalue in the variance of the training embeddings, in 1 / m .. 1."""
    spectrum = covariance_spectrum(state)
    return (spectrum[0] / spectrum.sum()).item()


def dead_neuron_fraction(state: RunState) -> float:
    """Share of the neurons of modality A that no patch of any training sample activates."""
    signal, noise = state.features("a").chunk(2, dim=1)
    return (~((signal > 0) | (noise > 0)).any(0)).double().mean().item()


def sign_flips(state: RunState) -> float:
    """Share of the neurons of modality A whose <w_r, mu> has another sign than at the start."""
    mu, start = state.data.mu, state.data.weights
    return ((state.stored_weights("a") @ mu).sign() != (start @ mu).sign()).double().mean().item()


def train_accuracy(state: RunState) -> float:
    """Accuracy of a logistic head on the training embeddings that it is fitted to."""
    embedded = state.embeddings()[0][None].cpu()
    labels = state.data.labels[None]
    return ood_accuracy(embedded, labels, embedded, labels).item()


def gradient_norm(state: RunState) -> float:
    """Euclidean norm of the gradient of the full-batch loss (6) or (9) in all weights.

    Without the term of weight decay. Costs about an epoch of the engine primal.

    Raises: ConfigError: drawn negatives (`negatives_per_sample`).
    """
    loss, parameters = _loss("gradient_norm", state)
    gradients = torch.autograd.grad(loss, parameters)
    return math.sqrt(sum(g.square().sum().item() for g in gradients))


def hessian_eigenvalue(state: RunState) -> float:
    """Largest eigenvalue of the Hessian of the full-batch loss (6) or (9) in all weights.

    The keys are constants, as they are in the gradient: the Hessian is that of the loss in the
    queries' weights, for two modalities one block for each. By Lanczos' method with products of the
    Hessian, until the residual is 1e-5 of the eigenvalue or 60 products are made; the weights have
    their own dtype. Costs about two epochs of the engine primal a product.

    Raises: ConfigError: drawn negatives (`negatives_per_sample`).
    """
    loss, parameters = _loss("hessian_eigenvalue", state)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradients])

    def product(v: Tensor) -> Tensor:
        parts = torch.autograd.grad(
            flat, parameters, v, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(flat.numel(), generator=generator, dtype=flat.dtype).to(flat.device)
    return _largest_eigenvalue(product, start)


def _largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Of a symmetric matrix, by Lanczos' method with full orthogonalisation."""
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1])
        diagonal.append((w @ basis[-1]).item())
        for _ in range(2):  # once leaves what rounding has added
            for v in basis:
                w = w - (w @ v) * v
        beside.append(w.norm().item())
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        between = torch.diag(torch.tensor(beside[:-1], dtype=torch.float64), 1)
        values, vectors = torch.linalg.eigh(matrix + between + between.T)
        residual = abs(beside[-1] * vectors[-1, -1].item())
        if not residual > 1e-5 * abs(values[-1].item()) or len(diagonal) == min(60, len(start)):
            return float(values[-1])
        basis.append(w / beside[-1])


def _loss(name: str, state: RunState) -> tuple[Tensor, list[Tensor]]:
    """The full-batch loss (6) or (9), and the weights that it is a function of."""
    cfg = state.config
    if cfg.negatives_per_sample is not None:
        raise ConfigError(
            f"{name}: expected all negatives, got negatives_per_sample = {cfg.negatives_per_sample}"
        )
    w = state.stored_weights("a").detach().clone().requires_grad_()
    parameters, labels = [w], state.data.labels.to(w.device)
    h, temperature = state.features_of(w, "a"), cfg.m * cfg.tau_value
    if cfg.is_multi:
        parameters.append(state.stored_weights("b").detach().clone().requires_grad_())
        loss = 2 * info_nce(
            h,
            state.features_of(parameters[1], "b"),
            symmetric=True,
            labels=labels,
            negatives="other_label",
            stop_gradient="key",
            temperature=temperature,
        )
    else:
        loss = info_nce(
            h,
            h,
            positive_key=state.features_of(w, "view"),
            labels=labels,
            negatives="other_label",
            stop_gradient="key",
            temperature=temperature,
        )
    return loss, parameters


def _pair(state: RunState) -> tuple[Tensor, Tensor]:
    """Features of the samples and of their positives, [n, 2 m] each."""
    return state.features("a"), state.features("b" if state.config.is_multi else "view")


__all__ = [
    "alignment",
    "covariance_spectrum",
    "dead_neuron_fraction",
    "effective_rank",
    "gradient_norm",
    "hessian_eigenvalue",
    "margin",
    "sign_flips",
    "top_eigenvalue_share",
    "train_accuracy",
    "uniformity",
]
