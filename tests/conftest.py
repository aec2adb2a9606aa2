"""Lanes of the test suite, and what every test starts from.

A lane is a marker: `pytest` runs the tests without one, `pytest -m aot` those of that lane.
"""

from __future__ import annotations

import os
import sys

import pytest

from mmcl_fast import _native

INTERPRETER = "interpreter"
SEED = 20_241_103


def pytest_configure(config: pytest.Config) -> None:
    # Triton reads the flag when it is imported, and processes of pytest-xdist inherit it.
    if config.getoption("markexpr") == INTERPRETER and os.environ.get("TRITON_INTERPRET") != "1":
        if "triton" in sys.modules:
            raise pytest.UsageError(
                "-m interpreter: expected TRITON_INTERPRET=1, as Triton was imported before the "
                "options were read, got none"
            )
        os.environ["TRITON_INTERPRET"] = "1"
    # pytest-randomly shuffles the tests; each draws the same numbers whatever the order's seed is.
    config.option.randomly_reset_seed = False


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.getoption("markexpr"):
        _skip(items, "slow", "slow: pytest -m slow")
    if os.environ.get("TRITON_INTERPRET") != "1":
        _skip(items, INTERPRETER, "Triton is not interpreted: pytest -m interpreter")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "no CUDA device")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _fixed_draws() -> None:
    """A test that draws without a generator of its own draws the same numbers in every run."""
    import random

    import numpy as np
    import torch

    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(params=["baseline", "avx2", "avx512", "neon"])
def target(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn, forced."""
    if request.param not in _native.targets():
        pytest.skip(f"this machine runs {', '.join(_native.targets())}")
    name: str = request.param
    return name
