"""The optional step of `bench.gpu`: times of other tiles, to be entered by hand."""

from __future__ import annotations

from itertools import product

import torch

from mmcl_fast.kernels import inner_products, trajectory
from mmcl_fast.kernels._tiles import Tile

from .timing import CUDA, Report, Row
from .trajectory import PAPER, launches, samples

TUNED_RUNS = 1056
TRAJECTORY = {
    "ieee": (
        (64, 8, 64, 1, 16), (64, 8, 64, 2, 16), (64, 8, 32, 1, 16), (64, 4, 64, 1, 16),
        (64, 4, 32, 1, 16),
    ),
    "tf32": ((64, 8, 64, 1, 32), (64, 8, 64, 1, 16), (64, 8, 32, 1, 32), (64, 4, 64, 1, 32)),
    "tf32x3": ((64, 8, 32, 1, 16), (64, 8, 32, 1, 32), (64, 8, 64, 1, 16)),
}  # fmt: skip
"""Samples, warps, neurons, stages and what is summed at a time, by precision."""
PRODUCTS = (
    (64, 4, 64, 3, 16), (64, 4, 64, 3, 32), (64, 4, 64, 2, 16), (64, 8, 64, 3, 32),
    (64, 8, 64, 2, 32), (128, 8, 64, 2, 16), (32, 4, 64, 3, 32), (32, 4, 32, 3, 32),
)  # fmt: skip
"""Rows, warps, rows of the other factor, stages and what is summed at a time."""
PRODUCT_SIZES = ((100, 100, 2000), (50, 100, 151))  # rows, rows of the other factor, terms


def tune(report: Report) -> None:
    """Times of other tiles, to be entered into `kernels/_tiles.py` by hand."""
    for sizes, parameters in report.assigned(list(product(PRODUCT_SIZES, PRODUCTS))):
        tile = Tile(*parameters)
        settings = {"tile": vars(tile), "sizes": sizes}
        report.attempt("tune", "row_products", settings,
                       lambda t=tile, s=sizes: _products(report, t, s))  # type: ignore[misc]  # fmt: skip
    data = samples(PAPER, TUNED_RUNS)
    for precision, parameters in report.assigned(
        [(p, x) for p in TRAJECTORY for x in TRAJECTORY[p]]
    ):
        tile = Tile(*parameters)
        trajectory.tile_for = lambda *key, tile=tile: tile
        settings = {"tile": vars(tile), "precision": precision}
        report.attempt("tune", "trajectory", settings,
                       lambda p=precision: launches(report, PAPER, data, p))  # type: ignore[misc]  # fmt: skip


def _products(report: Report, tile: Tile, sizes: tuple[int, int, int]) -> Row:
    """Inner products of many runs' rows, and how far they are from float64."""
    inner_products.tile_for = lambda *key: tile
    count_i, count_j, d = sizes
    a = torch.randn(TUNED_RUNS, count_i, d, device=CUDA)
    b = torch.randn(TUNED_RUNS, count_j, d, device=CUDA)
    out = a.new_empty(TUNED_RUNS, count_i, count_j)
    timed = report.timed(lambda: inner_products.row_products_fwd(a, b, out=out), seconds=0.3)
    exact = a[-1].double() @ b[-1].double().mT
    error = float((out[-1] - exact).abs().max() / d**0.5)
    return {**timed, "error": error, "tflops": 2e-9 * out.numel() * d / timed["ms"]["p50"]}


__all__ = ["tune"]
