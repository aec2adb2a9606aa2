"""Lanes of the test suite: which tests run in this process, and why the others do not."""

from __future__ import annotations

import os

import pytest

from mmcl_fast import _native

INTERPRETER = "interpreter"
LANE_TEST = "test_interpreter_lane"  # runs the tests marked interpreter in a process of their own


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("auto", INTERPRETER),
        default="auto",
        help="interpreter: run only the tests marked so, with TRITON_INTERPRET=1",
    )
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    # Triton reads the flag when a kernel file is imported, which is later than this.
    if config.getoption("--backend") == INTERPRETER:
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        _keep(config, items, interpreted=True)
    elif any(item.name == LANE_TEST for item in items):
        _keep(config, items, interpreted=False)
    else:
        _skip(items, INTERPRETER, f"own process: run {LANE_TEST}, or pytest --backend=interpreter")
    if not config.getoption("--slow"):
        _skip(items, "slow", "slow: run with --slow")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "no CUDA device")


def _keep(config: pytest.Config, items: list[pytest.Item], *, interpreted: bool) -> None:
    def unwanted(item: pytest.Item) -> bool:
        return (item.get_closest_marker(INTERPRETER) is not None) != interpreted

    config.hook.pytest_deselected(items=[item for item in items if unwanted(item)])
    items[:] = [item for item in items if not unwanted(item)]


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["baseline", "avx2", "avx512", "neon"])
def target(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn, forced."""
    if request.param not in _native.targets():
        pytest.skip(f"this machine runs {', '.join(_native.targets())}")
    name: str = request.param
    return name
