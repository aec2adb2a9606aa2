from __future__ import annotations

import pytest

from mmcl_fast import _native


@pytest.fixture(params=["baseline", "avx2", "avx512", "neon"])
def target(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn, forced."""
    if request.param not in _native.targets():
        pytest.skip(f"this machine runs {', '.join(_native.targets())}")
    name: str = request.param
    return name
