"""Training in weight space as others would write it: eager PyTorch, and JAX jit + lax.scan.

`textbook_losses` puts the paper's equations into PyTorch as they stand, signal patches as n rows.
The other two are written to be hard to beat without leaving weight space: the signal is one vector,
its scores are added per row because they depend on labels only, the augmented view is computed
outside the gradient, masks are prepared once and updates are in place.

    loss_i = log(1 + exp(logsumexp_{j in N(i)} s_ij - s_ii))        (6), (9)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import SignalNoiseData

EagerLoss = Callable[[list[Tensor]], Tensor]


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
    scale = 1.0 / (cfg.m * cfg.tau_value)
    side = (data.labels < 0).long()
    bias = torch.where(data.labels[:, None] != data.labels, 0.0, -torch.inf)
    pairs = ((data.noise, data.mu), (data.noise_b, data.mu_b))
    # The signal as one more row: its part of the gradient comes out of the same product.
    rows = [torch.cat([x, u[None]]) for x, u in pairs if x is not None and u is not None]

    def encode(w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x @ w.T
        return torch.relu(z[:-1]), torch.relu(torch.stack([z[-1], -z[-1]]))

    def direction(
        query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor], positive: tuple[Tensor, Tensor]
    ) -> Tensor:
        h, s = query
        keys, (match, sign) = key[0].detach(), (p.detach() for p in positive)
        pool = torch.addmm(bias, h, keys.T, alpha=scale).logsumexp(1)
        # What the signal adds to s_ij - s_ii; the negatives all have the other label.
        by_label = (s * (key[1].detach().flip(0) - sign)).sum(1)
        gap = by_label[side] - (h * match).sum(1)
        return F.softplus(torch.add(pool, gap, alpha=scale)).mean()

    def loss_of(weights: list[Tensor]) -> Tensor:
        a = encode(weights[0], rows[0])
        if cfg.is_multi:
            b = encode(weights[1], rows[1])
            return direction(a, b, b) + direction(b, a, a)
        assert data.augmented is not None
        with torch.no_grad():
            view = torch.relu(data.augmented @ weights[0].T)
        return direction(a, a, (view, a[1]))

    return loss_of


def jax_losses(cfg: TrainConfig, data: SignalNoiseData) -> Callable[[], Tensor]:
    """The same by JAX: moves the data there; returns a call that trains and waits."""
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    fields = {k: jnp.asarray(v.numpy()) for k, v in vars(data).items() if v is not None}
    start = [fields[k] for k in ("weights", "weights_b") if k in fields]
    run = jax_scan(cfg)

    def losses() -> Tensor:
        values = jax.block_until_ready(run(start, fields))[1]
        return torch.tensor(values.__array__())

    return losses


@cache
def jax_scan(cfg: TrainConfig) -> Callable[..., Any]:
    """The compiled loop of all epochs; weights and data give the weights and losses at its end."""
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

    return jax.jit(run)  # type: ignore[no-any-return]


__all__ = ["EagerLoss", "eager_loss", "eager_losses", "jax_losses", "jax_scan", "textbook_losses"]
