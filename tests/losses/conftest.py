from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mmcl_fast.losses.torch_backend import dense


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Problems here are small: on a shared machine a second thread made the suite five times slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["stored scores", "blocks"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems by stored scores, and as if they were large."""
    if request.param == "blocks":
        monkeypatch.setattr(dense, "LIMIT", 0)
