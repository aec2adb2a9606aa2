"""Peer implementations of training in weight space: eager PyTorch, JAX jit + lax.scan.

`textbook_losses` puts the paper's equations into PyTorch as they stand, signal patches as n rows.
The other two are written to be hard to beat without leaving weight space: the signal is one vector,
its scores are added per row because they depend on labels only, the augmented view is computed
outside the gradient, masks are prepared once and updates are in place.

    loss_i = log(1 + exp(logsumexp_{j in N(i)} s_ij - s_ii))        (6), (9)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData


def textbook_losses(cfg: TrainConfig, data: SignalNoiseData) -> Tensor:
    """Losses before each of `cfg.epochs` updates by autograd of `mmcl_fast.reference`, [epochs]."""
    negatives = reference.other_label(data.labels)
    weights = [w.clone().requires_grad_() for w in (data.weights, data.weights_b) if w is not None]
    signal = [
        reference.signal_patches(data.labels, mu) for mu in (data.mu, data.mu_b) if mu is not None
    ]
    noise = [x for x in (data.noise, data.augmented, data.noise_b) if x is not None]
    loss_of = reference.multi_modal_loss if cfg.is_multi else reference.single_modal_loss
    losses = []
    for _ in range(cfg.epochs):
        h = reference.features(weights[0], signal[0], noise[0], cfg.q)
        g = reference.features(weights[-1], signal[-1], noise[1], cfg.q)
        loss = loss_of(h, g, negatives, cfg.tau_value)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, step in zip(weights, gradients, strict=True):
                w.sub_(step, alpha=cfg.eta)
        losses.append(loss.detach())
    return torch.stack(losses)


EagerLoss = Callable[[list[Tensor]], Tensor]
Fields = dict[str, Tensor]


def eager_losses(
    cfg: TrainConfig, data: SignalNoiseData, loss_of: EagerLoss | None = None
) -> Tensor:
    """The same for q = 1 without waste, still eager autograd, [epochs].

    `loss_of`: what `eager_loss` gave, or that compiled; default: made anew.
    """
    loss_of = loss_of or eager_loss(cfg, data)
    weights = [w.clone().requires_grad_() for w in (data.weights, data.weights_b) if w is not None]
    losses = []
    for _ in range(cfg.epochs):
        loss = loss_of(weights)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                w.sub_(g, alpha=cfg.eta)
        losses.append(loss.detach())
    return torch.stack(losses)


def eager_loss(cfg: TrainConfig, data: SignalNoiseData) -> EagerLoss:
    """The loss that `eager_losses` trains with, as a function of each modality's weights."""
    x = _tuned_fields(data)
    return lambda weights: _tuned_loss(cfg, weights, x)


def vmap_losses(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Tensor:
    """Runs side by side: `torch.func.vmap` of the gradient of the same loss, [R, epochs]."""
    each = [_tuned_fields(run) for run in data]
    x = {name: torch.stack([fields[name] for fields in each]) for name in each[0]}
    starts = [[w for w in (run.weights, run.weights_b) if w is not None] for run in data]
    weights = [torch.stack(ws) for ws in zip(*starts, strict=True)]

    def loss_of(ws: list[Tensor], fields: Fields) -> Tensor:
        return _tuned_loss(cfg, ws, fields)

    step = torch.func.vmap(torch.func.grad_and_value(loss_of))
    losses = []
    for _ in range(cfg.epochs):
        gradients, loss = step(weights, x)
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(g, alpha=cfg.eta)
        losses.append(loss)
    return torch.stack(losses, dim=1)


def _tuned_fields(data: SignalNoiseData) -> Fields:
    """Everything of a run that training does not change."""
    x = {
        "side": (data.labels < 0).long(),
        "bias": torch.where(data.labels[:, None] != data.labels, 0.0, -torch.inf),
    }
    pairs = {"rows": (data.noise, data.mu), "rows_b": (data.noise_b, data.mu_b)}
    for name, (noise, mu) in pairs.items():
        if noise is not None and mu is not None:
            # The signal as one more row: its part of the gradient comes out of the same product.
            x[name] = torch.cat([noise, mu[None]])
    if data.augmented is not None:
        x["augmented"] = data.augmented
    return x


def _tuned_loss(cfg: TrainConfig, weights: Sequence[Tensor], x: Fields) -> Tensor:
    scale = 1.0 / (cfg.m * cfg.tau_value)

    def encode(w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        z = rows @ w.T
        return torch.relu(z[:-1]), torch.relu(torch.stack([z[-1], -z[-1]]))

    def direction(
        query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor], positive: tuple[Tensor, Tensor]
    ) -> Tensor:
        h, s = query
        keys, (match, sign) = key[0].detach(), (p.detach() for p in positive)
        pool = torch.addmm(x["bias"], h, keys.T, alpha=scale).logsumexp(1)
        # What the signal adds to s_ij - s_ii; the negatives all have the other label.
        by_label = (s * (key[1].detach().flip(0) - sign)).sum(1)
        gap = by_label[x["side"]] - (h * match).sum(1)
        return F.softplus(torch.add(pool, gap, alpha=scale)).mean()

    a = encode(weights[0], x["rows"])
    if cfg.is_multi:
        b = encode(weights[1], x["rows_b"])
        return direction(a, b, b) + direction(b, a, a)
    with torch.no_grad():
        view = torch.relu(x["augmented"] @ weights[0].T)
    return direction(a, a, (view, a[1]))


def jax_losses(cfg: TrainConfig, data: SignalNoiseData) -> Callable[[], Tensor]:
    """The same by JAX: moves the data there; returns a call that trains and waits."""
    start, fields = _jax_fields(data)
    return _waiting(lambda: jax_scan(cfg)(start, fields)[1])


def jax_vmap_losses(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    """Runs side by side by `jax.vmap` of the same loop."""
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    start, fields = jax.tree.map(lambda *xs: jnp.stack(xs), *map(_jax_fields, data))
    return _waiting(lambda: jax_scan(cfg, runs=True)(start, fields)[1])


def _jax_fields(data: SignalNoiseData) -> tuple[list[Any], dict[str, Any]]:
    jnp = import_module("jax.numpy")
    fields = {k: jnp.asarray(v.numpy()) for k, v in vars(data).items() if v is not None}
    return [fields[k] for k in ("weights", "weights_b") if k in fields], fields


def _waiting(call: Callable[[], Any]) -> Callable[[], Tensor]:
    jax = import_module("jax")
    return lambda: torch.tensor(jax.block_until_ready(call()).__array__())


@cache
def jax_scan(cfg: TrainConfig, *, runs: bool = False) -> Callable[..., Any]:
    """The compiled loop of all epochs; weights and data give the weights and losses at its end.

    Args:
        cfg: Settings.
        runs: Whether all arguments have a leading axis of runs.
    """
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    scale = 1.0 / (cfg.m * cfg.tau_value)

    def encode(w: Any, noise: Any, mu: Any) -> Any:
        a = w @ mu
        return jax.nn.relu(noise @ w.T), jax.nn.relu(jnp.stack([a, -a]))

    def direction(query: Any, key: Any, positive: Any, x: Any) -> Any:
        h, s = query
        keys, match = jax.lax.stop_gradient(key), jax.lax.stop_gradient(positive)
        other = x["labels"][:, None] != x["labels"]
        scores = jnp.where(other, scale * (h @ keys[0].T), -jnp.inf)
        by_label = (s * (keys[1][::-1] - match[1])).sum(1)
        gap = jnp.where(x["labels"] > 0, by_label[0], by_label[1]) - (h * match[0]).sum(1)
        return jax.nn.softplus(jax.nn.logsumexp(scores, axis=1) + scale * gap).mean()

    def loss_of(weights: Any, x: Any) -> Any:
        a = encode(weights[0], x["noise"], x["mu"])
        if cfg.is_multi:
            b = encode(weights[1], x["noise_b"], x["mu_b"])
            return direction(a, b, b, x) + direction(b, a, a, x)
        fixed = jax.lax.stop_gradient(weights[0])
        return direction(a, a, (jax.nn.relu(x["augmented"] @ fixed.T), a[1]), x)

    def run(weights: Any, x: Any) -> Any:
        def step(w: Any, _: None) -> Any:
            loss, g = jax.value_and_grad(loss_of)(w, x)
            return [p - cfg.eta * q for p, q in zip(w, g, strict=True)], loss

        return jax.lax.scan(step, weights, None, length=cfg.epochs)

    return jax.jit(jax.vmap(run) if runs else run)  # type: ignore[no-any-return]


__all__ = [
    "EagerLoss",
    "eager_loss",
    "eager_losses",
    "jax_losses",
    "jax_scan",
    "jax_vmap_losses",
    "textbook_losses",
    "vmap_losses",
]
