"""The signal-noise decomposition (11) of a run's weights, and its further terms of model variants.

    w_r(t) = a w_r(0) + sum_k gamma_{r,k} mu_k / |mu_k|^2 + sum_i rho_{r,i} xi_i / |xi_i|^2
             + gamma^s_r s / |s|^2 + sum_i rho^v_{r,i} x'_i / |x'_i|^2

with the spurious signal s, and the views' noise patches x'_i where keys carry gradients; a is 1
unless there is weight decay. `Run` has the coefficients, engines those of the vectors themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmcl_fast.config import SUFFIXES, ModalityName, TrainConfig
from mmcl_fast.data.signal_noise.rows import HeldRows, SampleRows, StreamedRows
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.engines import drawing_device
from mmcl_fast.engines.protocol import Coefficients

# The symbol of each term: the field of `Coefficients`, and the vectors in the data.
_TERMS = {
    "gamma": ("mu", "mu"),
    "rho": ("noise", "noise"),
    "gamma_spurious": ("spurious", "spurious"),
    "rho_views": ("views", "augmented"),
}
# Runs of several modalities have no views.
FIELDS = {
    f"{symbol}{suffix}": symbol
    for symbol in _TERMS
    for suffix in SUFFIXES.values()
    if not (symbol == "rho_views" and suffix)
}
"""Fields of `Run` with final coefficients, and the symbol of each; `_curve`: of stored epochs."""

Terms = dict[str, Tensor]
"""Coefficients of R runs by symbol: [R, m] (gamma of classes [R, m, K]) or [R, m, n]."""


def terms(c: Coefficients, squares: Mapping[str, Tensor]) -> Terms:
    """Coefficients of the decomposition, on the device of an engine's coefficients.

    Args:
        c: Coefficients of a modality.
        squares: Its squared norms (`square_norms`).
    """
    found = {}
    for symbol, (name, _) in _TERMS.items():
        if (value := getattr(c, name)) is not None:
            # In training these are on the engine's device, and data drawn on the CPU are not.
            found[symbol] = value * squares[symbol].to(value.device).unsqueeze(1)
    return found


def final_fields(by_modality: Sequence[Terms]) -> dict[str, Sequence[Tensor]]:
    """The terms of each modality and run, by the names of `Run`'s fields."""
    return {
        f"{symbol}{suffix}": value.unbind()
        for suffix, found in zip(SUFFIXES.values(), by_modality, strict=False)
        for symbol, value in found.items()
    }


def stored_curves(stored: Sequence[Sequence[Terms]]) -> dict[str, Sequence[Tensor]]:
    """The terms of each stored epoch and modality, by the names of `Run`'s fields."""
    fields: dict[str, Sequence[Tensor]] = {}
    for suffix, epochs in zip(SUFFIXES.values(), zip(*stored, strict=True), strict=False):
        for symbol in epochs[0]:
            curve = torch.stack([found[symbol] for found in epochs], dim=1)
            fields[f"{symbol}{suffix}_curve"] = curve.unbind()
    return fields


def square_norms(
    configs: Sequence[TrainConfig], batch: SignalNoiseBatch
) -> list[dict[str, Tensor]]:
    """Squared norms of the vectors of each term, by symbol, of each modality.

    [R] of mu (of each class [R, K]) and s, [R, n] of noise patches.
    """
    cfg, norms = configs[0], []
    for kind in cfg.modalities:
        suffix = SUFFIXES[kind]
        if device := drawing_device(cfg):
            from mmcl_fast.data.signal_noise import gpu

            fields = (
                [getattr(x, f"{name}{suffix}") for x in batch.blocks] for name in ("mu", "noise")
            )
            of_mu, of_noise = (gpu.square_norms(field, device) for field in fields)
        else:
            of_mu = _squares(batch, f"mu{suffix}")
            noise = [getattr(x, f"noise{suffix}") for x in batch]
            of_noise = torch.stack(
                [_of_rows(cfg, x, kind) for cfg, x in zip(configs, noise, strict=True)]
            )
        norms.append({"gamma": of_mu, "rho": of_noise})
        if cfg.has_spurious:
            norms[-1]["gamma_spurious"] = _squares(batch, f"spurious{suffix}")
        if cfg.trains_keys and not cfg.is_multi:
            norms[-1]["rho_views"] = _squares(batch, "augmented")
    return norms


def _squares(batch: SignalNoiseBatch, name: str) -> Tensor:
    """Squared norms of the vectors or rows of each run."""
    return torch.stack([getattr(x, name).square().sum(-1) for x in batch])


def _of_rows(cfg: TrainConfig, noise: Tensor | None, kind: ModalityName) -> Tensor:
    """|xi_i|^2 of the rows of a modality, [n]."""
    rows: SampleRows
    if noise is None:
        assert kind != "c"  # variants are not streamed
        rows = StreamedRows(cfg, kind, torch.device("cpu"))
    else:
        rows = HeldRows(noise)
    norms = [torch.linalg.vector_norm(x, dim=1) for _, x in rows.pieces(None)]
    return torch.cat(norms).square_()


__all__ = ["FIELDS", "Terms", "final_fields", "square_norms", "stored_curves", "terms"]
