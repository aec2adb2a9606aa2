"""Data of any dimension in n + m + 1 coordinates, exact in distribution.

Training that is equivariant under rotations sees its vectors only through inner products. Keep
the coordinate along the signals; in the D = d - 1 others replace the Gaussian rows xi_1 .. xi_n,
w_1 .. w_m by those of a Bartlett factor: lower triangular, chi with D, D - 1, ... degrees of
freedom on the diagonal, standard normals left of it (Bartlett 1933). Their inner products then
have exactly the law of those in R^d. Vectors that never enter the weights' span (augmentation,
test) need independent normals in the same coordinates only. `docs/stream.md` says which draw is
where.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import EXPLICIT_COORDINATES, TrainConfig
from mmcl_fast.data.tags import STREAM_TAGS

Floats = npt.NDArray[np.float64]


def reduced_rows(cfg: TrainConfig, modality: str) -> tuple[Tensor, Tensor]:
    """Unscaled noise rows [n, columns] and weight rows [m, columns] of a modality, float64.

    Args:
        cfg: Sizes and keys; `cfg.d` may be up to 2^53.
        modality: "a" or "b".
    """
    suffix = "" if modality == "a" else "_b"
    d = cfg.d if modality == "a" else cfg.d_b_value
    columns = cfg.columns if modality == "a" else cfg.columns_b
    freedom = d - EXPLICIT_COORDINATES
    noise = _factor_rows(cfg.data_key, f"noise{suffix}", (0, cfg.n), columns)
    weights = _factor_rows(cfg.init_key, f"init{suffix}", (cfg.n, cfg.m), columns)
    for rows, first, key in ((noise, 0, cfg.data_key), (weights, cfg.n, cfg.init_key)):
        count = max(0, min(len(rows), columns - EXPLICIT_COORDINATES - first))
        place = np.arange(count)
        degrees = freedom - first - place
        rows[place, EXPLICIT_COORDINATES + first + place] = chi(
            degrees.astype(float), first, key, f"chi{suffix}"
        )
    return torch.from_numpy(noise), torch.from_numpy(weights)


def _factor_rows(key: int, stream: str, place: tuple[int, int], columns: int) -> Floats:
    """Rows `first .. first + count` of the factor without its diagonal, [count, columns]."""
    first, count = place
    width = min(columns, EXPLICIT_COORDINATES + first + count)
    z = np.empty((1, count, width))
    # The core itself: the checks of `normal` take as long as the numbers.
    _native.fill_normal(
        z, start=(0, 0, 0), seed=key, tag=STREAM_TAGS[stream], epoch=0, scale=1.0, threads=1
    )
    rows = np.zeros((count, columns))
    left = np.arange(width) - EXPLICIT_COORDINATES < (first + np.arange(count))[:, None]
    np.copyto(rows[:, :width], z[0], where=left)
    return rows


def chi(degrees: Floats, first_row: int, key: int, stream: str) -> Floats:
    """Chi variates by Marsaglia and Tsang's method, each from its own substream, [k].

    Args:
        degrees: Degrees of freedom, >= 1, [k].
        first_row: The sample coordinate of the first draw's substream; the others follow.
        key: Seed of the stream.
        stream: "chi" or "chi_b".

    See: mmcl_fast.data.chi_numpy.chi (meaning).
    """
    out = np.empty(len(degrees))
    tag = STREAM_TAGS[stream]
    _native.fill_chi(out, degrees, first_row=first_row, seed=key, tag=tag)
    return out


__all__ = ["chi", "reduced_rows"]
