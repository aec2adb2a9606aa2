"""Noise patches drawn where they are used, on a GPU: the stream's bits, no copies from the host."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.data.rows import GPU_PIECE_NUMBERS, StreamedRows
from mmcl_fast.kernels.normal import normal_fill
from mmcl_fast.stream_tags import STREAM_TAGS


class DeviceRows(StreamedRows):
    """See `StreamedRows`; the same rows, in larger pieces."""

    piece_numbers = GPU_PIECE_NUMBERS

    def _buffer(self, rows: int) -> Tensor:
        return torch.empty(rows, self._d, dtype=torch.float32, device=self._device)

    def _fill(self, rows: Tensor, first: int) -> None:
        normal_fill(
            rows.unsqueeze(0),
            seed=self._cfg.data_key,
            tag=STREAM_TAGS[self._stream],
            epoch=self._epoch,
            start=(0, first, 0),
            scale=self._scale,
        )


__all__ = ["DeviceRows"]
