"""Peer implementations of contrastive losses: dense autograd, chunked, other libraries.

Every function takes features whose similarity is divided by `T`, and returns a scalar that autograd
differentiates. `dense_clip` is the form of open_clip's `ClipLoss` on one device: both score
matrices, each from a separate product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import import_bare

T = 0.07
Loss = Callable[..., Tensor]


def targets(x: Tensor) -> Tensor:
    """Row i's class is i."""
    return torch.arange(len(x), device=x.device)


def dense_clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE."""
    rows = F.cross_entropy(scale * x @ y.T, targets(x))
    columns = F.cross_entropy(scale * y @ x.T, targets(x))
    return (rows + columns) / 2


def linear_clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """The same by torch's chunked `linear_cross_entropy`, once for each direction."""
    rows = F.linear_cross_entropy(scale * x, y, targets(x))
    columns = F.linear_cross_entropy(scale * y, x, targets(x))
    return (rows + columns) / 2


def dense_one_way(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of one direction."""
    return F.cross_entropy(scale * x @ y.T, targets(x))


def linear_one_way(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """The same by torch's chunked `linear_cross_entropy`."""
    return F.linear_cross_entropy(scale * x, y, targets(x))


def masked_direction(x: Tensor, y: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    """Paper, one direction: keys of the same label masked, gradient to the query alone."""
    pool = (x @ y.detach().T / T).masked_fill(same, -torch.inf)
    positive_score = (x * positive.detach()).sum(1) / T
    return (torch.logaddexp(pool.logsumexp(1), positive_score) - positive_score).mean()


def masked_single(x: Tensor, y: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    """Equation (6)."""
    return masked_direction(x, y, positive, same)


def masked_both(x: Tensor, y: Tensor, positive: Tensor, same: Tensor) -> Tensor:
    """Equation (9)."""
    return masked_direction(x, y, y, same) + masked_direction(y, x, x, same)


def dense_nt_xent(x: Tensor, y: Tensor) -> Tensor:
    """NT-Xent on the whole matrix of both views, normalised, itself masked."""
    z = F.normalize(torch.cat([x, y]), dim=1)
    scores = (z @ z.T / T).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, targets(z).roll(len(x)))


def dense_siglip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The form of open_clip's `SigLipLoss`."""
    signs = 2 * torch.eye(len(x)) - 1
    return -F.logsigmoid(signs * (scale * x @ y.T + bias)).sum() / len(x)


def open_clip_clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """open_clip's `ClipLoss`."""
    return _library("open_clip").ClipLoss()(x, y, scale)  # type: ignore[no-any-return]


def open_clip_siglip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """open_clip's `SigLipLoss`."""
    return _library("open_clip").SigLipLoss()(x, y, scale, bias)  # type: ignore[no-any-return]


def lightly_nt_xent(x: Tensor, y: Tensor) -> Tensor:
    """The `NTXentLoss` of lightly, which normalises."""
    return _library("lightly").NTXentLoss(temperature=T)(x, y)  # type: ignore[no-any-return]


def metric_learning_nt_xent(x: Tensor, y: Tensor) -> Tensor:
    """The same by pytorch-metric-learning, which normalises too."""
    module = _library("pytorch-metric-learning")
    return module.SelfSupervisedLoss(module.NTXentLoss(temperature=T))(x, y)  # type: ignore[no-any-return]


def cut_clip(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE by cut-cross-entropy, of which only this form runs on a CPU."""
    loss = _library("cut-cross-entropy").linear_cross_entropy
    rows = loss(scale * x, y, targets(x), impl="torch_compile")
    columns = loss(scale * y, x, targets(x), impl="torch_compile")
    return (rows + columns) / 2  # type: ignore[no-any-return]


@cache
def _library(name: str) -> Any:
    """The module of a library with its losses, loaded on first use."""
    if name == "open_clip":
        return import_bare("open_clip.loss")
    if name == "lightly":
        return import_bare("lightly.loss.ntx_ent_loss", without="lightly.models.utils")
    if name == "cut-cross-entropy":
        return import_module("cut_cross_entropy")
    return import_module("pytorch_metric_learning.losses")


@cache
def compiled(loss: Loss) -> Loss:
    """A peer through torch.compile with its default settings."""
    return torch.compile(loss, fullgraph=True)


__all__ = [
    "Loss",
    "T",
    "compiled",
    "cut_clip",
    "dense_clip",
    "dense_nt_xent",
    "dense_one_way",
    "dense_siglip",
    "lightly_nt_xent",
    "linear_clip",
    "linear_one_way",
    "masked_both",
    "masked_single",
    "metric_learning_nt_xent",
    "open_clip_clip",
    "open_clip_siglip",
]
