"""The limit d = infinity at fixed sigma^2 d: noise patches orthogonal to each other and to mu.

For d -> infinity at fixed s = sigma sqrt(d) the inner products of independent noise patches, and
those with signals, vanish beside their squared norms s^2, while those with w_r(0) keep their law
N(0, sigma_0^2 s^2). Inner products of the rows w_r(0) with each other enter no run. Data of this
law, in `axes + n + m` coordinates, and n more where the gradient flows through the view:

    signals    along the first axes
    xi_i       sigma_xi sqrt(d) e_i of the next n
    eps_i      sigma_eps sqrt(d) e_i of the next n where it enters the span of the weights
    w_r(0)     sigma_0 times standard normals in all of these, and sigma_0 sqrt(d) e_r of the last m
    others     (eps_i else, test data) sigma times standard normals in the last m
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.config import SUFFIXES, ModalityName, TrainConfig
from mmcl_fast.data.stream.generate import NormalRuns


def orthogonal_rows(
    configs: Sequence[TrainConfig], modality: ModalityName, normals: NormalRuns
) -> tuple[Tensor, Tensor]:
    """Unscaled noise rows [R, n, columns] and weight rows [R, m, columns] of a modality, float64.

    Args:
        configs: Sizes, equal but for d, and keys.
        modality: "a", "b" or "c".
        normals: Draws normals, on the device of the rows.
    """
    cfg, stream = configs[0], f"init{SUFFIXES[modality]}"
    before = cfg.widths[modality] - cfg.m
    keys, ones = [c.init_key for c in configs], [1.0] * len(configs)
    z = normals(stream, keys, (cfg.m, before), ones, torch.float64)
    weights = torch.nn.functional.pad(z, (0, cfg.m))
    roots = _roots(configs, modality).to(z.device)
    weights[:, :, before:].diagonal(dim1=1, dim2=2).copy_(roots.expand(-1, cfg.m))
    return _axes(configs, modality, cfg.axes).to(z.device), weights


def orthogonal_epsilon(configs: Sequence[TrainConfig]) -> Tensor:
    """Unscaled augmentation rows that enter the span of the weights, [R, n, columns], float64."""
    return _axes(configs, "a", configs[0].axes + configs[0].n)


def in_last_coordinates(cfg: TrainConfig, rows: Tensor) -> Tensor:
    """Rows [..., m] of modality A in the last m coordinates, [..., columns]."""
    return torch.nn.functional.pad(rows, (cfg.columns - cfg.m, 0))


def _axes(configs: Sequence[TrainConfig], modality: ModalityName, first: int) -> Tensor:
    """Rows sqrt(d) e_first, sqrt(d) e_(first + 1), ..., [R, n, columns]."""
    cfg = configs[0]
    columns = cfg.widths[modality]
    rows = torch.zeros(len(configs), cfg.n, columns, dtype=torch.float64)
    part = rows[:, :, first : first + cfg.n]
    part.diagonal(dim1=1, dim2=2).copy_(_roots(configs, modality).expand(-1, cfg.n))
    return rows


def _roots(configs: Sequence[TrainConfig], modality: ModalityName) -> Tensor:
    """sqrt(d) of each run, [R, 1]."""
    d = [c.dimensions[modality] for c in configs]
    return torch.tensor(d, dtype=torch.float64).sqrt()[:, None]


__all__ = ["in_last_coordinates", "orthogonal_epsilon", "orthogonal_rows"]
