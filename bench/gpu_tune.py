"""The optional step of `bench/gpu.py`: times of other tiles."""

from __future__ import annotations

import torch

from mmcl_fast.kernels import encoder, trajectory
from mmcl_fast.kernels._tiles import Tile

from .gpu_steps import Report, rows_like
from .gpu_trajectory import PAPER, launches, samples

TUNED_RUNS = 528


def tune(report: Report) -> None:
    """Times of other tiles, to be entered into `kernels/_tiles.py` by hand."""
    data = samples(PAPER, TUNED_RUNS)
    for block_n, warps, block_m, block_k in (
        (64, 8, 64, 16), (64, 8, 64, 8), (64, 4, 32, 16), (32, 4, 64, 16), (32, 4, 32, 16),
    ):  # fmt: skip
        tile = Tile(block_n, warps, block_m, 1, block_k)
        trajectory.tile_for = lambda *key, tile=tile: tile
        report.attempt("tune", "trajectory", {"tile": vars(tile)},
                       lambda: launches(report, PAPER, data, "ieee"))  # fmt: skip
    x, w = rows_like(32768, 4096, torch.bfloat16, 0), rows_like(2048, 4096, torch.bfloat16, 1)
    h = encoder.encoder_fwd(x, w, q=1)
    for block_n, block_m, block_k, stages in (
        (128, 256, 64, 3), (128, 256, 64, 4), (128, 128, 64, 4), (256, 128, 64, 3),
        (256, 128, 32, 3),
    ):  # fmt: skip
        tile = Tile(block_n, 8, block_m, stages, block_k)
        encoder.tile_for = lambda *key, tile=tile: tile
        for name, call in (
            ("encoder_fwd", lambda: encoder.encoder_fwd(x, w, q=1)),
            ("encoder_bwd", lambda: encoder.encoder_bwd(x, h, h, q=1)),
        ):
            report.attempt("tune", name, {"tile": vars(tile)},
                           lambda f=call: report.timed(f, seconds=0.5))  # type: ignore[misc]  # fmt: skip


__all__ = ["tune"]
