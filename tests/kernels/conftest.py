"""Fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.interpreter, id="interpreter"),
        pytest.param("cuda", marks=pytest.mark.gpu, id="gpu"),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where a kernel runs: a test that asks for it is one test in each of the two lanes.

    In the interpreter the arithmetic is made that of the hardware, so both demand the same bits.
    """
    if request.param == "cpu":
        # Not above: this file may be read before the lane is known, and Triton asks when imported.
        from .exact_interpreter import exact_interpreter

        with exact_interpreter():
            yield torch.device("cpu")
    else:
        yield torch.device("cuda")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Problems here are small: on a shared machine a second thread costs more than it gives.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
