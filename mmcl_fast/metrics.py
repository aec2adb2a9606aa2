"""Metrics of a run at an epoch, for `metrics=` of `train`, `train_many` and sweeps.

    run = mmcl_fast.train(cfg, metrics={"margin": mmcl_fast.metrics.margin})
    run.metrics["margin"]                                       # a curve, [epochs + 1]

Each is a function from a `mmcl_fast.RunState` to a number; any function of your own is, too.
Features are those of the loss, `[act(<w_r, y mu>), act(<w_r, xi>)]` [n, 2 m], with a spurious
attribute 3 m, computed from weights and data: n m d multiplications for each kind of samples.
Metrics of a model variant refuse runs of others with ConfigError, as do those of the paper's loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.config_variants import DEFAULTS
from mmcl_fast.errors import ConfigError
from mmcl_fast.losses import info_nce
from mmcl_fast.model import power_relu
from mmcl_fast.training import RunState
from mmcl_fast.training.class_probe import class_accuracy, predicted_classes
from mmcl_fast.training.linear_probe import ood_accuracy

OTHER_LOSS = (
    "objective", "negatives", "pair_noise", "stop_gradient", "similarity", "eta_tau", "mu_c_norm",
)  # fmt: skip
"""Settings that change the loss of a run."""


def alignment(state: RunState) -> float:
    """Mean squared distance of the normalised features of a positive pair, in 0 .. 4.

    Of Wang and Isola (ICML 2020), alpha = 2. Pairs: a sample and its view; multi-modal, its two
    modalities. A feature that is 0 stays 0.

    Raises: ConfigError: objective logistic, which has no pairs.
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

    min_i ( sim_i+ - max_j sim_ij ) over the negatives j of i, with the similarity of the run:
    <h, k> / m, or their cosine. Multi-modal: the less of both directions. Stores n^2 similarities.

    Raises: ConfigError: objective logistic, which has no pairs.
    """
    query, positive = _pair(state)
    cfg, data = state.config, state.data
    cosine = cfg.similarity == "cosine"
    if cosine:
        query, positive = normalize(query), normalize(positive)
    key = positive if cfg.is_multi else query
    labels = data.labels.to(query.device)
    of_keys = labels
    if cfg.is_multi and data.positive_labels is not None:
        of_keys = data.positive_labels.to(query.device)
    # A sample's positive is no negative of it, whatever the label of a mismatched one.
    none = torch.eye(cfg.n, dtype=torch.bool, device=query.device)
    if cfg.negatives == "other_label":
        none |= labels[:, None] == of_keys
    scale = 1 if cosine else cfg.m
    similarity = (query @ key.T / scale).masked_fill(none, -torch.inf)
    to_positive = (query * positive).sum(1) / scale
    least = (to_positive - similarity.amax(1)).min()
    if cfg.is_multi:
        least = torch.minimum(least, (to_positive - similarity.amax(0)).min())
    return float(least)


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
    alive = (state.features("a") > 0).any(0).view(-1, state.config.m).any(0)
    return (~alive).double().mean().item()


def sign_flips(state: RunState) -> float:
    """Share of the neurons of modality A whose <w_r, mu> has another sign than at the start.

    Raises: ConfigError: classes, which have a signal each.
    """
    if state.config.classes:
        raise ConfigError(f"sign_flips: expected classes None, got {state.config.classes}")
    mu, start = state.data.mu, state.data.weights
    return ((state.stored_weights("a") @ mu).sign() != (start @ mu).sign()).double().mean().item()


def train_accuracy(state: RunState) -> float:
    """Accuracy of a logistic head on the training embeddings that it is fitted to."""
    embedded = state.embeddings()[0][None].cpu()
    labels = state.data.labels[None]
    given = (embedded, labels, embedded, labels)
    if classes := state.config.classes:
        return class_accuracy(*given, classes=classes).item()
    return ood_accuracy(*given).item()


def gradient_norm(state: RunState) -> float:
    """Euclidean norm of the gradient of the full-batch loss (6) or (9) in all weights.

    Without the term of weight decay. Costs about an epoch of the engine primal.

    Raises: ConfigError: drawn negatives (`negatives_per_sample`), or a variant with another loss.
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

    Raises: ConfigError: drawn negatives (`negatives_per_sample`), or a variant with another loss.
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
    for setting in OTHER_LOSS:
        if (value := getattr(cfg, setting)) != DEFAULTS[setting]:
            raise ConfigError(
                f"{name}: expected the paper's loss, {setting} = {DEFAULTS[setting]}, got {value}"
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


def spurious_learning(state: RunState) -> float:
    """`max_r |<w_r, s>|` of modality A, of the spurious signal s; as `signal` for mu.

    Raises: ConfigError: the run has no spurious signal in modality A.
    """
    if not state.config.spurious_norm or state.data.spurious is None:
        raise ConfigError("spurious_learning: expected spurious_norm > 0, got 0")
    return (state.stored_weights("a") @ state.data.spurious).abs().max().item()


def modality_gap(state: RunState) -> float:
    """Distance of the means of the normalised features of both modalities, in 0 .. 2.

    | mean_i f_i / |f_i| - mean_i g_i / |g_i| |, of Liang et al. (NeurIPS 2022). A feature that is
    0 stays 0.

    Raises: ConfigError: a single-modal run.
    """
    if not state.config.is_multi:
        raise ConfigError("modality_gap: expected modality multi, got single")
    of_a = normalize(state.features("a")).mean(0)
    return float((of_a - normalize(state.features("b")).mean(0)).norm())


def supervised_accuracy(state: RunState) -> float:
    """Share of the OOD samples whose label is the sign of the supervised network's output f.

    f = (2 / m) sum_r a_r hbar_r, a_r = +1 for the first half of the neurons, else -1. An output of
    exactly 0 means -1, as for the linear probe.

    Raises: ConfigError: objective contrastive, which trains no output.
    """
    cfg = state.config
    if cfg.objective != "logistic":
        raise ConfigError(f"supervised_accuracy: expected objective logistic, got {cfg.objective}")
    first, second = state.embeddings()[1].chunk(2, dim=1)
    sign = torch.where(first.sum(1) > second.sum(1), 1.0, -1.0)
    return (sign == state.data.test_labels.to(sign)).double().mean().item()


def zero_shot_accuracy(state: RunState) -> float:
    """Share of the OOD samples that modality B's signals classify rightly.

    As CLIP classifies: the class of the largest cosine of hbar (3) of the sample by encoder A with
    that of a class's signal alone by encoder B, act(<w~_r, mu~_k>); without classes the signals are
    +-mu~. Among equal cosines the class of the smallest index, or -1.

    Raises: ConfigError: a single-modal run, or modality B without a signal.
    """
    if not state.config.is_multi:
        raise ConfigError("zero_shot_accuracy: expected modality multi, got single")
    mu, labels = state.data.mu_b, state.data.test_labels
    assert mu is not None
    classes = mu if mu.ndim == 2 else torch.stack([-mu, mu])
    products = classes @ state.stored_weights("b").T
    prompts = normalize(power_relu(products, state.config.q))
    nearest = (normalize(state.embeddings()[1]) @ prompts.T).argmax(1)
    index = labels if mu.ndim == 2 else (labels > 0)
    return (nearest == index.to(nearest.device)).double().mean().item()


def majority_learning(state: RunState) -> float:
    """`max_r |<w_r, mu_1>|` of modality A: the signal of the class of largest probability.

    Raises: ConfigError: a run without classes.
    """
    return _class_learning("majority_learning", state)[0].item()


def minority_learning(state: RunState) -> float:
    """`max_r |<w_r, mu_K>|` of modality A: the signal of the class of least probability.

    Raises: ConfigError: a run without classes.
    """
    return _class_learning("minority_learning", state)[-1].item()


def purity(state: RunState) -> float:
    """How far each neuron of modality A knows one class alone: a mean over neurons, in 1 / K .. 1.

    mean_r max_k <w_r, mu_k>^2 / sum_k <w_r, mu_k>^2, NaN where a neuron knows none. The term is of
    Sun et al. (NeurIPS 2025); the formula is ours.

    Raises: ConfigError: a run without classes.
    """
    squares = _class_products("purity", state).double().square()
    return (squares.amax(1) / squares.sum(1)).mean().item()


def worst_class_accuracy(state: RunState) -> float:
    """OOD accuracy of the linear probe on the class of which it is least.

    NaN where features are not finite or a head did not converge.

    Raises: ConfigError: a run without classes.
    """
    cfg = state.config
    if cfg.classes is None:
        raise ConfigError("worst_class_accuracy: expected classes, got None")
    data = state.data
    fitted = data.labels if data.probe_labels is None else data.probe_labels
    predicted = predicted_classes(
        state.probe_embeddings()[None].cpu(),
        fitted[None],
        state.embeddings()[1][None].cpu(),
        classes=cfg.classes,
        l2=cfg.probe_penalty,
    )[0]
    if predicted.isnan().any():
        return math.nan
    right = (predicted == state.data.test_labels).double()
    return min(
        right[state.data.test_labels == k].mean().item() for k in state.data.test_labels.unique()
    )


def _class_learning(name: str, state: RunState) -> Tensor:
    """`max_r |<w_r, mu_k>|` of each class, [K]."""
    return _class_products(name, state).abs().amax(0)


def _class_products(name: str, state: RunState) -> Tensor:
    """`<w_r, mu_k>` of modality A, [m, K]."""
    if state.config.classes is None:
        raise ConfigError(f"{name}: expected classes, got None")
    return state.stored_weights("a") @ state.data.mu.T


def _pair(state: RunState) -> tuple[Tensor, Tensor]:
    """Features of the samples and of their positives, [n, 2 m] each."""
    if state.config.objective == "logistic":
        raise ConfigError("objective: expected contrastive for a metric of pairs, got logistic")
    return state.features("a"), state.features("b" if state.config.is_multi else "view")


__all__ = [
    "alignment",
    "covariance_spectrum",
    "dead_neuron_fraction",
    "effective_rank",
    "gradient_norm",
    "hessian_eigenvalue",
    "majority_learning",
    "margin",
    "minority_learning",
    "modality_gap",
    "purity",
    "sign_flips",
    "spurious_learning",
    "supervised_accuracy",
    "top_eigenvalue_share",
    "train_accuracy",
    "uniformity",
    "worst_class_accuracy",
    "zero_shot_accuracy",
]
