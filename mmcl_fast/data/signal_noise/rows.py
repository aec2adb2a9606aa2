"""Noise patches of n samples in pieces of rows: stored in memory, or drawn on request.

Pieces depend on the sizes alone, so results are bit-identical for stored and streamed rows. On a
GPU stored rows are one piece, and so are drawn rows up to `GPU_PIECE_ELEMENTS`; beyond, sums over
samples agree to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.stream.generate import normal
from mmcl_fast.data.stream.region import MAX_THREADS

PIECE_ELEMENTS = 1 << 22  # 16 MiB of float32
GPU_PIECE_ELEMENTS = 1 << 26  # 256 MiB of float32; products of smaller pieces do not fill a GPU
_PIECE_ROWS = 256  # fewer slow matrix products down; pieces of 256 rows start aligned


class SampleRows(Protocol):
    """Noise patches of n samples, [n, d]."""

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Rows [c, d] of given samples [k] or of all, each piece with its slice of them.

        The rows may be overwritten by the next step.
        """
        ...


class HeldRows:
    """Rows stored in memory.

    Args:
        rows: [n, d].
        elements: Approximate size of a piece; None: all rows are one piece, for products on a GPU.
    """

    def __init__(self, rows: Tensor, *, elements: int | None = PIECE_ELEMENTS) -> None:
        self._rows, self._elements = rows, elements

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """See `SampleRows.pieces`."""
        count = len(self._rows) if samples is None else len(samples)
        for part in pieces_of(count, self._rows.shape[1], self._elements):
            if samples is None:
                yield part, self._rows[part]
            else:
                yield part, self._rows.index_select(0, samples[part])


class StreamedRows:
    """Rows of a stream of `docs/stream.md`, drawn on every request.

    Args:
        cfg: A run's settings.
        kind: "a", "b": noise patches of a modality; "epsilon": augmentation noise.
        device: Device of the rows.
        epoch: Of the augmentation, where it is drawn anew each epoch.
        samples: Indices of the rows; default: all n.
    """

    piece_elements = PIECE_ELEMENTS

    def __init__(
        self,
        cfg: TrainConfig,
        kind: Literal["a", "b", "epsilon"],
        device: torch.device,
        *,
        epoch: int = 0,
        samples: range | None = None,
    ) -> None:
        self._cfg, self._device = cfg, device
        self._samples = range(cfg.n) if samples is None else samples
        self._stream, self._scale, self._d = {
            "a": ("noise", cfg.sigma_xi, cfg.columns),
            "b": ("noise_b", cfg.sigma_xi_b_value, cfg.columns_b),
            "epsilon": ("augment", cfg.sigma_eps, cfg.columns),
        }[kind]
        self._epoch = epoch if kind == "epsilon" and cfg.augment == "per_epoch" else 0

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """See `SampleRows.pieces`."""
        count = len(self._samples) if samples is None else len(samples)
        rows = piece_rows(count, self._d, self.piece_elements)
        buffer = self._buffer(rows)
        for part in pieces_of(count, self._d, self.piece_elements):
            x = buffer[: part.stop - part.start]
            if samples is None:
                self._fill(x, self._samples[part.start])
            else:
                for row, sample in enumerate(samples[part].tolist()):
                    self._fill(x[row : row + 1], self._samples[sample])
            yield part, x.to(self._device)

    def _buffer(self, rows: int) -> Tensor:
        return torch.empty(rows, self._d, dtype=getattr(torch, self._cfg.dtype))

    def _fill(self, rows: Tensor, first: int) -> None:
        """Rows of samples from `first` on."""
        normal(
            self._cfg.data_key,
            self._stream,
            start=(0, first, 0),
            epoch=self._epoch,
            scale=self._scale,
            dtype=self._cfg.dtype,
            out=rows.unsqueeze(0),
            threads=min(torch.get_num_threads(), MAX_THREADS),
        )


class AddedRows:
    """Sums of two sets of rows with equal pieces; the first may be overwritten."""

    def __init__(self, rows: SampleRows, others: SampleRows) -> None:
        self._rows, self._others = rows, others

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """See `SampleRows.pieces`."""
        both = zip(self._rows.pieces(samples), self._others.pieces(samples), strict=True)
        for (part, x), (other, y) in both:
            assert part == other
            yield part, x.add_(y)


def pieces_of(count: int, d: int, elements: int | None = PIECE_ELEMENTS) -> Iterator[slice]:
    """Slices of the pieces of `count` rows of d elements."""
    size = piece_rows(count, d, elements)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def piece_rows(count: int, d: int, elements: int | None = PIECE_ELEMENTS) -> int:
    """Rows of a piece of about `elements`, a multiple of 256, at least 1; None: all rows."""
    rows = max(count, 1)
    if elements is None:
        return rows
    return min(rows, max(_PIECE_ROWS, elements // d // _PIECE_ROWS * _PIECE_ROWS))


__all__ = [
    "GPU_PIECE_ELEMENTS",
    "PIECE_ELEMENTS",
    "AddedRows",
    "HeldRows",
    "SampleRows",
    "StreamedRows",
    "piece_rows",
    "pieces_of",
]
