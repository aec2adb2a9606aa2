"""Noise patches of augmented views: view_scale xi + eps with coordinates set to 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.discrete import positives, threshold
from mmcl_fast.data.signal_noise.orthogonal import in_last_coordinates, orthogonal_epsilon
from mmcl_fast.data.signal_noise.reduced import reduced_epsilon
from mmcl_fast.data.signal_noise.scaled_rows import scaled
from mmcl_fast.data.stream.generate import NormalRuns, words

MASK_ELEMENTS = 1 << 22  # words drawn at once, 16 MiB


def drawn_views(configs: Sequence[TrainConfig], noise: Tensor, normals: NormalRuns) -> Tensor:
    """Noise patches of the views of epoch 0 of runs of equal sizes, [R, n, columns].

    Args:
        configs: Settings of the runs.
        noise: Noise patches xi of modality A, [R, n, columns].
        normals: Draws normals, on the device of the noise patches.
    """
    epsilon = drawn_epsilon(configs, normals)
    if all(c.view_scale == 1 and not c.view_mask and not c.pair_noise for c in configs):
        return epsilon.add_(noise)
    each = zip(configs, noise, epsilon, strict=True)
    return torch.stack([view_of(c, xi, eps, 0) for c, xi, eps in each])


def drawn_epsilon(configs: Sequence[TrainConfig], normals: NormalRuns) -> Tensor:
    """Augmentation noise eps of runs of equal sizes, [R, n, columns]."""
    cfg, scales = configs[0], [c.sigma_eps for c in configs]
    dtype: torch.dtype = getattr(torch, cfg.dtype)
    if cfg.trains_keys and cfg.data == "reduced":
        return scaled(reduced_epsilon(configs, normals), scales, dtype)
    dims = cfg.m if cfg.data == "orthogonal" else cfg.columns
    if cfg.trains_keys and cfg.data == "orthogonal":
        return scaled(orthogonal_epsilon(configs), scales, dtype)
    rows = normals("augment", [c.data_key for c in configs], (cfg.n, dims), scales, dtype)
    return in_last_coordinates(cfg, rows) if cfg.data == "orthogonal" else rows


def view_of(cfg: TrainConfig, noise: Tensor, epsilon: Tensor, epoch: int) -> Tensor:
    """Noise patches of the views of a run, [n, columns]; `epsilon` may be overwritten.

    Args:
        cfg: Settings.
        noise: xi, [n, columns], in the order of the samples.
        epsilon: eps likewise, on the same device.
        epoch: That of the stream in which the masked coordinates are drawn.
    """
    view = epsilon.add_(noise if cfg.view_scale == 1 else noise * cfg.view_scale)
    if cfg.view_mask:
        _mask(cfg, view, epoch)
    order = positives(cfg)
    return view if order is None else view[order.to(view.device)]


def _mask(cfg: TrainConfig, view: Tensor, epoch: int) -> None:
    """Set coordinates to 0 whose word is below the threshold of `view_mask`."""
    rows = max(1, MASK_ELEMENTS // view.shape[1])
    for first in range(0, len(view), rows):
        part = view[first : first + rows]
        word = words(cfg.data_key, "view_mask", (1, *part.shape), (0, first, 0), epoch)[0]
        part.masked_fill_(torch.from_numpy(word < threshold(cfg.view_mask)).to(view.device), 0.0)


__all__ = ["drawn_epsilon", "drawn_views", "view_of"]
