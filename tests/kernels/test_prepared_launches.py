"""Prepared launches are Triton's own: the same binaries, grids and arguments."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
import triton

from mmcl_fast.kernels import _launch
from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.triton_backend import contrast_forward
from mmcl_fast.losses.triton_backend.policy import Policy, using

from .recording_driver import Launch, recording

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        not os.access(triton.knobs.nvidia.cuobjdump.path, os.X_OK),
        reason="this Triton compiles for no GPU",
    ),
]
REQUESTED = Requested(query=True, key=True, temperature=True)
SMALL = Policy(small_batch=True)


def contrast(n: int, d: int = 32) -> Contrast:
    generator = torch.Generator().manual_seed(n)
    rows = (torch.randn(n, d, generator=generator) for _ in range(2))
    return Contrast(*rows, torch.tensor(0.1), symmetric=True)


def described(launches: list[Launch]) -> list[tuple[object, ...]]:
    """Without addresses, which change from call to call."""
    return [
        (x.name, x.grid, [(a.shape, a.dtype) if isinstance(a, torch.Tensor) else a
                          for a in x.arguments])
        for x in launches
    ]  # fmt: skip


def step(problem: Contrast) -> Callable[[], object]:
    return lambda: contrast_forward(problem, REQUESTED, 1.0)


@pytest.mark.parametrize("n", [64, 576])
def test_prepared_launches_are_tritons_own(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = contrast(n)
    with recording() as driver, using(SMALL):
        call = step(problem)
        call()
        first = described(driver.launches)
        driver.launches.clear()
        ran: list[object] = []
        stock = triton.JITFunction.run
        monkeypatch.setattr(
            triton.JITFunction, "run", lambda *x, **y: ran.append(1) or stock(*x, **y)
        )
        call()
        assert described(driver.launches) == first
        assert not ran  # nothing was bound anew
    assert len(first) == (2 if n == 64 else 4)  # beside three products


def test_what_a_binary_depends_on_is_prepared_apart() -> None:
    given = contrast(64)
    with recording() as driver, using(SMALL):
        step(given)()
        aligned = len(_launch._prepared)
        memory = torch.zeros(2)
        odd = memory[1:].reshape(())  # not at a multiple of 16 bytes
        odd.fill_(0.1)
        shifted = Contrast(given.query, given.key, odd, symmetric=True)
        step(shifted)()
        assert len(_launch._prepared) == 2 * aligned
        before = [x.arguments for x in driver.launches]
        step(shifted)()
        assert len(_launch._prepared) == 2 * aligned
        temperatures = [
            x for arguments in driver.launches[len(before) :] for x in arguments.arguments
            if isinstance(x, torch.Tensor) and x.data_ptr() == odd.data_ptr()
        ]  # fmt: skip
        assert len(temperatures) == 2
