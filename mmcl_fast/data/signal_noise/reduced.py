"""Data of any dimension in few coordinates, exact in distribution.

Training that is equivariant under rotations sees its vectors only through inner products. Keep
the `axes` coordinates that the signals span; in the D = d - axes others replace the Gaussian rows
xi_1 .. xi_n, w_1 .. w_m by those of a Bartlett factor: lower triangular, chi with D, D - 1, ...
degrees of freedom on the diagonal, standard normals left of it (Bartlett 1933). Their inner
products then have exactly the law of those in R^d. Where the gradient flows through the view, its
eps_1 .. eps_n are n further rows. Vectors that never enter the weights' span (test data, and else
the augmentation) need independent normals in the same coordinates only. `docs/stream.md` says which
draw is where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import SUFFIXES, ModalityName, TrainConfig
from mmcl_fast.data.stream.generate import NormalRuns, thread_count
from mmcl_fast.stream_tags import STREAM_TAGS

Floats = npt.NDArray[np.float64]


class _Part(NamedTuple):
    """Consecutive rows of the factor that are drawn from one stream."""

    stream: str
    first: int
    size: int
    keys: Sequence[int]


def reduced_rows(
    configs: Sequence[TrainConfig], modality: ModalityName, normals: NormalRuns
) -> tuple[Tensor, Tensor]:
    """Unscaled noise rows [R, n, columns] and weight rows [R, m, columns] of a modality, float64.

    Args:
        configs: Sizes, equal but for d, which may be up to 2^53, and keys.
        modality: "a", "b" or "c".
        normals: Draws normals, on the device of the rows.
    """
    cfg, suffix = configs[0], SUFFIXES[modality]
    noise = _Part(f"noise{suffix}", 0, cfg.n, [c.data_key for c in configs])
    weights = _Part(f"init{suffix}", cfg.n, cfg.m, [c.init_key for c in configs])
    return _rows(configs, modality, noise, normals), _rows(configs, modality, weights, normals)


def reduced_epsilon(configs: Sequence[TrainConfig], normals: NormalRuns) -> Tensor:
    """Unscaled augmentation rows of modality A that are part of the factor, [R, n, columns]."""
    cfg = configs[0]
    part = _Part("augment", cfg.n + cfg.m, cfg.n, [c.data_key for c in configs])
    return _rows(configs, "a", part, normals)


def _rows(
    configs: Sequence[TrainConfig], modality: ModalityName, part: _Part, normals: NormalRuns
) -> Tensor:
    cfg, stream = configs[0], f"chi{SUFFIXES[modality]}"
    columns, first = cfg.widths[modality], part.first
    freedom = np.array([c.dimensions[modality] for c in configs]) - cfg.axes
    rows = _off_diagonal(part, cfg.axes, columns, normals)
    place = np.arange(max(0, min(part.size, columns - cfg.axes - first)))
    degrees = (freedom[:, None] - first - place).astype(float)
    diagonal = torch.from_numpy(chi(degrees, first, part.keys, stream))
    at = torch.from_numpy(place)
    rows[:, at, cfg.axes + first + at] = diagonal.to(rows.device)
    return rows


def _off_diagonal(part: _Part, axes: int, columns: int, normals: NormalRuns) -> Tensor:
    """Rows of the factor without its diagonal, [R, count, columns]."""
    first, count = part.first, part.size
    width = min(columns, axes + first + count)
    ones = [1.0] * len(part.keys)
    z = normals(part.stream, part.keys, (count, width), ones, torch.float64)
    ends = torch.arange(first, first + count, device=z.device)[:, None]
    right = torch.arange(width, device=z.device) - axes >= ends
    z.masked_fill_(right, 0.0)
    return z if width == columns else torch.nn.functional.pad(z, (0, columns - width))


def chi(degrees: Floats, first_row: int, keys: Sequence[int], stream: str) -> Floats:
    """Chi variates by Marsaglia and Tsang's method, each from its own substream, [R, k].

    Args:
        degrees: Degrees of freedom, >= 1, [R, k].
        first_row: The sample coordinate of the first draw's substream; the others follow.
        keys: Seed of the stream of each run.
        stream: "chi", "chi_b" or "chi_c".

    See: mmcl_fast.data.stream.chi_numpy.chi (meaning).
    """
    out = np.empty(degrees.shape)
    tag, threads = STREAM_TAGS[stream], thread_count()
    _native.fill_chi(out, degrees, first_row=first_row, seeds=keys, tag=tag, threads=threads)
    return out


__all__ = ["chi", "reduced_epsilon", "reduced_rows"]
