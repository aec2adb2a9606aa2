"""The optional step of `bench.gpu`: times of other tiles, to be entered by hand."""

from __future__ import annotations

from functools import partial
from itertools import product
from unittest import mock

import torch

from mmcl_fast.kernels import contrast_products, inner_products, trajectory
from mmcl_fast.kernels._tiles import Tile

from .long_features import PIPELINED, policy_of
from .loss import OURS, SYMMETRIC, VARIANTS, Case, gradients, inputs_of
from .timing import CUDA, DRY, Report, Row
from .trajectory import PAPER, launches, samples

TUNED_RUNS = 2 if DRY else 1056
TRAJECTORY = {
    "ieee": (
        (64, 8, 64, 1, 16), (64, 8, 64, 2, 16), (64, 8, 32, 1, 16), (64, 4, 64, 1, 16),
        (64, 4, 32, 1, 16), (32, 8, 64, 1, 16), (32, 4, 64, 1, 16), (16, 4, 64, 1, 16),
    ),
    "tf32": (
        (64, 8, 64, 1, 32), (64, 8, 64, 1, 16), (64, 8, 32, 1, 32), (64, 4, 64, 1, 32),
        (32, 4, 64, 1, 16), (16, 4, 64, 1, 16),
    ),
    "tf32x3": (
        (64, 8, 32, 1, 16), (64, 8, 32, 1, 32), (64, 8, 64, 1, 16), (32, 4, 64, 1, 16),
        (16, 4, 64, 1, 16),
    ),
}  # fmt: skip
"""Samples, warps, neurons, stages and what is summed at a time, by precision.

Blocks of 16 samples pad 50 + 50 samples to 116 slots on average over random labels, of 64 to 128.
"""
PRODUCTS = (
    (64, 4, 64, 3, 16), (64, 4, 64, 3, 32), (64, 4, 64, 2, 16), (64, 8, 64, 3, 32),
    (64, 8, 64, 2, 32), (128, 8, 64, 2, 16), (32, 4, 64, 3, 32), (32, 4, 32, 3, 32),
)  # fmt: skip
"""Rows, warps, rows of the other factor, stages and what is summed at a time."""
# Rows, rows of the other factor, terms.
PRODUCT_SIZES = ((5, 6, 20),) if DRY else ((100, 100, 2000), (50, 100, 151))
LONG = ((128, 8, 128, 4, 64), (128, 8, 128, 3, 64), (64, 4, 128, 4, 64), (128, 8, 64, 4, 64))
"""Queries, warps, keys, stages and features at a time of products with an epilogue."""
LONG_CASE = Case(SYMMETRIC, *((70, 80) if DRY else (32768, 768)))
if DRY:
    TRAJECTORY, PRODUCTS = {"ieee": TRAJECTORY["ieee"][:1]}, PRODUCTS[:1]
    LONG = ((32, 1, 32, 1, 32),)


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
    for parameters in report.assigned(LONG):
        tile = Tile(*parameters)
        report.attempt("tune", "contrast_product", {"tile": vars(tile), **LONG_CASE.settings},
                       lambda t=tile: _long(report, t))  # type: ignore[misc]  # fmt: skip


def _long(report: Report, tile: Tile) -> Row:
    """Forward and backward of long features by products with an epilogue."""
    call = partial(gradients, VARIANTS[SYMMETRIC][OURS], inputs_of(LONG_CASE))
    with policy_of(PIPELINED), mock.patch.object(contrast_products, "tile_for", return_value=tile):
        return report.timed(call, seconds=0.4)


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
