"""Data drawn on a GPU, bit-identical to those drawn on the CPU, without copies from the host.

Draws and squared norms of many runs, and the noise patches of one run in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mmcl_fast.data.signal_noise.rows import GPU_PIECE_ELEMENTS, StreamedRows
from mmcl_fast.kernels.normal import normal_fill, normal_fill_runs
from mmcl_fast.kernels.row_passes import row_dots_fwd
from mmcl_fast.stream_tags import STREAM_TAGS


class DeviceNormals:
    """`generate.normal_runs` on a device, bit-identical, without copies from the host.

    Args:
        device: A CUDA device (the CPU in Triton's interpreter).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(
        self,
        stream: str,
        keys: Sequence[int],
        shape: tuple[int, int],
        scales: Sequence[float],
        dtype: torch.dtype,
    ) -> Tensor:
        """See `generate.normal_runs`."""
        out = torch.empty(len(keys), *shape, dtype=dtype, device=self._device)
        normal_fill_runs(out, seeds=keys, scales=scales, tag=STREAM_TAGS[stream])
        return out


class DeviceRows(StreamedRows):
    """`StreamedRows` drawn on a GPU, in larger pieces."""

    piece_elements = GPU_PIECE_ELEMENTS

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


def square_norms(blocks: Iterable[Tensor], device: torch.device) -> Tensor:
    """|x|^2 of the rows [..., d] of each run, on the device, [R, ...]; no run depends on others.

    Args:
        blocks: Rows of consecutive runs, [R_k, ..., d]; d may differ between blocks.
        device: Where the norms are computed and returned.
    """
    norms = []
    for block in blocks:
        x = block.to(device)
        flat = x.flatten(0, -2)
        norms.append(row_dots_fwd(flat, flat).view(x.shape[:-1]))
    return torch.cat(norms)


__all__ = ["DeviceNormals", "DeviceRows", "square_norms"]
