"""Signal patches of samples as codes, and the order of samples, for the native core.

The signal patches of a sample are one of few combinations: its code. `csrc/core/variant.h` computes
scores and gradients through them for pairs of codes. Samples are sorted by code, so that those of
equal labels lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codes:
    """Codes of R runs; runs have up to C of them.

    Attributes:
        order: Samples in the order of the core, [R, n].
        code: Codes of the samples of modality A, and of each kind of their positives (the views, or
            modality B and C), sorted, [R, kinds, n].
        counts: Codes of each run.
        axis: Signal of each patch of a code, [R, P, C].
        sign: Its sign, [R, P, C].
        labels: Labels likewise, [R, kinds, n].
    """

    order: Tensor
    code: Ints
    counts: list[int]
    axis: Ints
    sign: Floats
    labels: Floats

    @property
    def tables(self) -> tuple[Ints, Floats, Ints]:
        """What the core takes."""
        return self.axis, self.sign, self.code


def codes_of(cfg: TrainConfig, batch: SignalNoiseBatch) -> Codes:
    """The codes of the runs of a batch.

    Args:
        cfg: Settings that the runs share.
        batch: Their data.
    """
    labels = [_stacked(batch, "labels")]
    attributes = _stacked(batch, "attributes") if cfg.has_spurious else None
    combinations = [_combination(cfg, labels[0], attributes)]
    for suffix in cfg.positive_suffixes:
        labels.append(_stacked(batch, f"positive_labels{suffix}", labels[0]))
        partners = attributes
        if partners is not None:
            partners = _stacked(batch, f"positive_attributes{suffix}", partners)
        combinations.append(_combination(cfg, labels[-1], partners))
    order = torch.argsort(combinations[0], dim=1, stable=True)
    along = order.unsqueeze(1).expand(-1, len(labels), -1)
    of_kinds = torch.stack(combinations, 1).gather(2, along)
    present = [torch.unique(run) for run in of_kinds]
    most, patches = max(map(len, present)), 1 + cfg.has_spurious
    code = torch.empty(of_kinds.shape, dtype=torch.int32)
    axis = torch.zeros(len(order), patches, most, dtype=torch.int32)
    sign = torch.ones(len(order), patches, most)
    for r, found in enumerate(present):
        code[r] = torch.searchsorted(found, of_kinds[r])
        for p, (of_patch, signs) in enumerate(_signals(cfg, found)):
            axis[r, p, : len(found)] = of_patch
            sign[r, p, : len(found)] = signs
    sorted_labels = torch.stack(labels, 1).float().gather(2, along).contiguous()
    counts = [len(found) for found in present]
    return Codes(order, code.numpy(), counts, axis.numpy(), sign.numpy(), sorted_labels.numpy())


def patches_of(
    cfg: TrainConfig, batch: SignalNoiseBatch, samples: Literal["a", "test", "probe"]
) -> list[Tensor]:
    """Which signed signal each patch of k samples is: rows of `signal_features`, [R k] a patch.

    Args:
        cfg: Settings that the runs share.
        batch: Data of the runs.
        samples: Training data, or a kind of OOD data.
    """
    prefix = "" if samples == "a" else f"{samples}_"
    labels = _stacked(batch, f"{prefix}labels")
    codes = [(labels.long() if cfg.classes else (labels < 0).long(), cfg.classes or 2)]
    if cfg.has_spurious:
        codes.append(((_stacked(batch, f"{prefix}attributes") < 0).long(), 2))
    runs = torch.arange(len(labels)).unsqueeze(1)
    return [(code + count * runs).flatten() for code, count in codes]


def signal_features(cfg: TrainConfig, signals: Tensor, patches: Sequence[Tensor]) -> Tensor:
    """Sum of the activations of the signal patches, [R, k, m].

    Args:
        cfg: Settings that the runs share.
        signals: Inner products of the weights with the signals, [R, m, axes].
        patches: As `patches_of` says.
    """
    runs, m, _ = signals.shape
    own, spurious = signals.split([cfg.classes or 1, cfg.has_spurious], dim=2)
    signed = [own if cfg.classes else torch.cat([own, -own], 2)]
    if cfg.has_spurious:
        signed.append(torch.cat([spurious, -spurious], 2))
    # Activations of the few signals, then their rows: a sample's need no arithmetic of its own.
    tables = [positive_power(x, cfg.q).mT.flatten(0, 1) for x in signed]
    parts = [x.index_select(0, rows) for x, rows in zip(tables, patches, strict=True)]
    return sum(parts[1:], start=parts[0]).view(runs, -1, m)


def positive_power(z: Tensor, q: int) -> Tensor:
    """max(0, z)^q by q - 1 multiplications: every element is rounded alike."""
    base = z.clamp(min=0)
    power = base
    for _ in range(q - 1):
        power = power * base
    return power


def _stacked(batch: SignalNoiseBatch, name: str, absent: Tensor | None = None) -> Tensor:
    """A field of all runs; where no run has it, `absent`."""
    if all(getattr(block, name) is None for block in batch.blocks):
        assert absent is not None, name
        return absent
    return batch.stacked(name)


def _combination(cfg: TrainConfig, labels: Tensor, attributes: Tensor | None) -> Tensor:
    """One number for the signal patches of each sample, ascending with the class."""
    number = labels.long() if cfg.classes else (labels < 0).long()
    return number if attributes is None else 2 * number + (attributes < 0)


def _signals(cfg: TrainConfig, combination: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    """Axis and sign of each signal patch of combinations."""
    number = combination // 2 if cfg.has_spurious else combination
    one = torch.ones(number.shape)
    of_label = (number, one) if cfg.classes else (torch.zeros_like(number), 1 - 2 * number.float())
    if not cfg.has_spurious:
        return [of_label]
    spurious = torch.full_like(number, cfg.classes or 1)
    return [of_label, (spurious, 1 - 2 * (combination % 2).float())]


__all__ = ["Codes", "codes_of", "positive_power", "signal_features"]
