"""The optional step of `bench/gpu.py`: times of other tiles."""

from __future__ import annotations

from mmcl_fast.kernels import trajectory
from mmcl_fast.kernels._tiles import Tile

from .gpu_steps import Report
from .gpu_trajectory import PAPER, launches, samples

TUNED_RUNS = 1056
TILES = {
    "ieee": (
        (64, 8, 64, 16), (64, 4, 64, 16), (64, 4, 32, 16), (32, 4, 64, 16), (32, 2, 64, 16),
        (64, 2, 32, 16), (32, 2, 32, 16),
    ),
    "tf32": ((64, 8, 64, 32), (64, 4, 64, 32), (64, 4, 64, 64), (64, 8, 32, 32)),
    "tf32x3": ((64, 8, 32, 16), (64, 8, 64, 32), (64, 4, 64, 32), (64, 4, 32, 32)),
}  # fmt: skip
"""Samples, warps, neurons and what is summed at a time, by precision."""


def tune(report: Report) -> None:
    """Times of other tiles, to be entered into `kernels/_tiles.py` by hand."""
    data = samples(PAPER, TUNED_RUNS)
    for precision, tiles in TILES.items():
        for block_n, warps, block_m, block_k in tiles:
            tile = Tile(block_n, warps, block_m, 1, block_k)
            trajectory.tile_for = lambda *key, tile=tile: tile
            settings = {"tile": vars(tile), "precision": precision}
            report.attempt("tune", "trajectory", settings,
                           lambda p=precision: launches(report, PAPER, data, p))  # type: ignore[misc]  # fmt: skip


__all__ = ["tune"]
