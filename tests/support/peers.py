"""Other libraries' losses, loaded without what their packages import beside them."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

import pytest

from mmcl_fast.bench.peers.registry import import_bare

# Those that ask for torchvision, which has no build for a torch without CUDA, are installed alone.
INSTALL = {
    "gradcache": 'pip install -e ".[test]"',
    "info_nce": 'pip install -e ".[test]"',
    "lightly": "pip install --no-deps lightly==1.6.0",
    "open_clip": "pip install --no-deps open_clip_torch==3.3.0",
    "pytorch_metric_learning": 'pip install -e ".[test]"',
    "sentence_transformers": 'pip install -e ".[peers]"',
    "transformers": 'pip install -e ".[peers]"',
}


def require(package: str) -> None:
    """Skips the test, and says how to install what it needs, without this package."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {INSTALL[package]}")


def peer(module: str, *, folder: str | None = None, without: str | None = None) -> ModuleType:
    """A module of an installed package of which no `__init__` runs; skips the test without it.

    Args:
        module: Dotted, as the package itself imports it.
        folder: Name of the installed top-level folder, where that is another.
        without: A module it imports and does not use here; an empty one takes its place.
    """
    require(folder or module.split(".")[0])
    return import_bare(module, folder=folder, without=without)
