"""A pytest plugin: every n-th test, so that one file's tests share the cores of a machine."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --shard."""
    parser.addoption("--shard", default="1/1", metavar="K/N", help="every N-th test from the K-th")


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this part's tests."""
    part, parts = (int(x) for x in config.getoption("--shard").split("/"))
    selected = items[part - 1 :: parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected


__all__ = ["pytest_addoption", "pytest_collection_modifyitems"]
