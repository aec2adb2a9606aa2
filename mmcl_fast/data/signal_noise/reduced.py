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

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import EXPLICIT_COORDINATES, TrainConfig
from mmcl_fast.data.stream.generate import NormalRuns, thread_count
from mmcl_fast.stream_tags import STREAM_TAGS

Floats = npt.NDArray[np.float64]


def reduced_rows(
    configs: Sequence[TrainConfig], modality: str, normals: NormalRuns
) -> tuple[Tensor, Tensor]:
    """Unscaled noise rows [R, n, columns] and weight rows [R, m, columns] of a modality, float64.

    Args:
        configs: Sizes, equal but for d, which may be up to 2^53, and keys.
        modality: "a" or "b".
        normals: Draws normals, on the device of the rows.
    """
    cfg, is_a = configs[0], modality == "a"
    suffix, columns = ("", cfg.columns) if is_a else ("_b", cfg.columns_b)
    freedom = np.array([c.d if is_a else c.d_b_value for c in configs]) - EXPLICIT_COORDINATES
    factors = []
    for stream, first, count, keys in (
        ("noise", 0, cfg.n, [c.data_key for c in configs]),
        ("init", cfg.n, cfg.m, [c.init_key for c in configs]),
    ):
        rows = _factor_rows(keys, f"{stream}{suffix}", (first, count), columns, normals)
        place = np.arange(max(0, min(count, columns - EXPLICIT_COORDINATES - first)))
        degrees = (freedom[:, None] - first - place).astype(float)
        diagonal = torch.from_numpy(chi(degrees, first, keys, f"chi{suffix}"))
        at = torch.from_numpy(place)
        rows[:, at, EXPLICIT_COORDINATES + first + at] = diagonal.to(rows.device)
        factors.append(rows)
    noise, weights = factors
    return noise, weights


def _factor_rows(
    keys: Sequence[int], stream: str, place: tuple[int, int], columns: int, normals: NormalRuns
) -> Tensor:
    """Rows `first .. first + count` of the factor without its diagonal, [R, count, columns]."""
    first, count = place
    width = min(columns, EXPLICIT_COORDINATES + first + count)
    z = normals(stream, keys, (count, width), [1.0] * len(keys), torch.float64)
    ends = torch.arange(first, first + count, device=z.device)[:, None]
    right = torch.arange(width, device=z.device) - EXPLICIT_COORDINATES >= ends
    z.masked_fill_(right, 0.0)
    return z if width == columns else torch.nn.functional.pad(z, (0, columns - width))


def chi(degrees: Floats, first_row: int, keys: Sequence[int], stream: str) -> Floats:
    """Chi variates by Marsaglia and Tsang's method, each from its own substream, [R, k].

    Args:
        degrees: Degrees of freedom, >= 1, [R, k].
        first_row: The sample coordinate of the first draw's substream; the others follow.
        keys: Seed of the stream of each run.
        stream: "chi" or "chi_b".

    See: mmcl_fast.data.stream.chi_numpy.chi (meaning).
    """
    out = np.empty(degrees.shape)
    tag, threads = STREAM_TAGS[stream], thread_count()
    _native.fill_chi(out, degrees, first_row=first_row, seeds=keys, tag=tag, threads=threads)
    return out


__all__ = ["chi", "reduced_rows"]
