"""What a step asks of the host: launches of ours and operations of torch, each a few microseconds.

At sizes of a few thousand rows a GPU computes faster than a host that does its sums one operation
at a time can ask for it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.interpreter import GridExecutor

from mmcl_fast.losses.contrast import Requested
from mmcl_fast.losses.triton_backend import (
    chunked,
    contrast_backward,
    contrast_forward,
    small_batch,
)
from mmcl_fast.losses.triton_backend.policy import Policy, using

from .contrast_problems import CHUNKED, FUSED, problem, uniform

pytestmark = pytest.mark.interpreter
# They start nothing on a device.
FREE = {"new_empty", "empty", "empty_like", "slice", "select", "view", "unsqueeze", "unbind",
        "detach", "alias", "t", "permute", "numpy_T", "expand", "transpose"}  # fmt: skip


class Count(TorchDispatchMode):
    """Operations of torch that start something, and our launches as one each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        stock = GridExecutor.__call__

        def launch(executor: Any, *arguments: Any, **named: Any) -> Any:
            self.launches[executor.fn.__name__] += 1
            with _disable_current_modes():  # the interpreter's own operations are no cost of ours
                return stock(executor, *arguments, **named)

        monkeypatch.setattr(GridExecutor, "__call__", launch)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func._schema.name.removeprefix("aten::")
        if name not in FREE:
            self.operations[name] += 1
        return func(*args, **(kwargs or {}))


# name, features, launches, operations of torch (products among them)
COSTS = [
    ("symmetric", FUSED, 7, 0),
    ("symmetric", CHUNKED, 5, 5),
    ("stopped", FUSED, 3, 0),
    ("stopped", CHUNKED, 4, 3),
    ("own", FUSED, 5, 2),
]


@pytest.mark.parametrize(("name", "features", "launches", "operations"), COSTS)
def test_losses_and_gradients(
    name: str, features: int, launches: int, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contrast = problem(name, features, torch.float32, torch.device("cpu"))
    requested = Requested(query=True, key=name == "symmetric", temperature=True)
    with Count(monkeypatch) as count:
        contrast_forward(contrast, requested, 1.0)
    assert count.launches.total() <= launches, count.launches
    assert count.operations.total() <= operations, count.operations


# name, launches, operations of torch: products alone
SMALL_COSTS = [("symmetric", 2, 3), ("plain", 2, 3), ("stopped", 2, 2), ("own", 2, 2)]


@pytest.mark.parametrize(("name", "launches", "products"), SMALL_COSTS)
def test_small_batches(
    name: str, launches: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contrast = problem(name, CHUNKED, torch.float32, torch.device("cpu"))
    requested = Requested(query=True, key=name in ("symmetric", "plain"), temperature=True)
    with using(Policy(small_batch=True)), Count(monkeypatch) as count:
        contrast_forward(contrast, requested, 1.0)
    assert count.launches.total() == launches, count.launches
    assert count.operations == {"mm": products}, count.operations


@pytest.mark.parametrize(("name", "launches", "products"), [("symmetric", 4, 3), ("plain", 4, 3)])
def test_typical_batches(
    name: str, launches: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_batch, "MOST_SCORES", 0)
    monkeypatch.setattr(chunked, "_VECTOR", 2)  # keys need no padding
    contrast = problem(name, CHUNKED, torch.float32, torch.device("cpu"))
    requested = Requested(query=True, key=True, temperature=True)
    with using(Policy(small_batch=True)), Count(monkeypatch) as count:
        contrast_forward(contrast, requested, 1.0)
    assert count.launches.total() == launches, count.launches
    assert count.operations == {"mm": products}, count.operations


def test_rows_weighted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    contrast = problem("symmetric", FUSED, torch.float32, torch.device("cpu"))
    requested = Requested(query=True, key=True, temperature=True)
    upstream = uniform(contrast, 1.0)
    statistics = contrast_forward(contrast, requested, None).statistics
    with Count(monkeypatch) as count:
        contrast_backward(contrast, requested, statistics, upstream)
    assert count.launches.total() <= 6, count.launches
    assert count.operations.total() <= 6, count.operations
