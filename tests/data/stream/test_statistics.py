"""Moments, tails and correlations as z-scores, with fixed seeds.

Each of the 51 z-scores may reach 4.5, which a right generator exceeds with probability 6.8e-6:
were the seeds drawn anew, one run in 2900 would fail by chance.
"""

from __future__ import annotations

import math

import pytest
import torch

from mmcl_fast.data import normal

N = 2**24
LIMIT = 4.5
DOUBLE_FACTORIAL = {2: 1, 4: 3, 6: 15, 8: 105, 10: 945, 12: 10395}


@pytest.fixture(scope="module")
def z() -> torch.Tensor:
    return normal(2024, shape=(1, 1, N), dtype="float64").view(-1)


def expected_power(k: int) -> int:
    return DOUBLE_FACTORIAL.get(k, 1 if k == 0 else 0)


@pytest.mark.parametrize("k", range(1, 7))
def test_moment(k: int, z: torch.Tensor) -> None:
    mean = expected_power(k)
    deviation = math.sqrt((expected_power(2 * k) - mean**2) / N)
    assert abs(z.pow(k).mean().item() - mean) / deviation < LIMIT


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("sigma", [0.5, 1, 2, 3, 4, 4.5])
def test_tail(sigma: float, side: int, z: torch.Tensor) -> None:
    p = math.erfc(sigma / math.sqrt(2)) / 2
    count = (side * z > sigma).sum().item()
    assert abs(count - N * p) / math.sqrt(N * p * (1 - p)) < LIMIT


@pytest.mark.parametrize("lag", [1, 2, 16, 63, 64, 65, 128, 192, 256, 257, 4096])
def test_neighbours_along_dims(lag: int, z: torch.Tensor) -> None:
    assert abs((z[lag:] * z[:-lag]).sum().item()) / math.sqrt(N - lag) < LIMIT
    squares = z * z - 1
    assert abs((squares[lag:] * squares[:-lag]).sum().item()) / (2 * math.sqrt(N - lag)) < LIMIT


OTHERS = {
    "seed": {"seed": 2025},
    "seed_high_half": {"seed": 2024 + 2**32},
    "stream": {"stream": "noise_b"},
    "epoch": {"epoch": 1},
    "run": {"start": (1, 0, 0)},
    "sample": {"start": (0, 1, 0)},
    "far_dims": {"start": (0, 0, 2**33)},
    "next_seed_next_run": {"seed": 2023, "start": (1, 0, 0)},
    "minibatch": {"stream": "minibatch", "epoch": 1},
    "augment": {"stream": "augment"},
    "largest_epoch": {"epoch": 2**24 - 1},
}


@pytest.mark.parametrize("name", OTHERS)
def test_neighbouring_streams(name: str, z: torch.Tensor) -> None:
    other = {"seed": 2024, "shape": (1, 1, N), "dtype": "float64", **OTHERS[name]}
    assert abs((z * normal(**other).view(-1)).sum().item()) / math.sqrt(N) < LIMIT
