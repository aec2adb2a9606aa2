"""Free memory where Linux's files are missing, and what is said where nothing tells it."""

import sys
from pathlib import Path

import pytest

from mmcl_fast.data.stream import memory as guard
from mmcl_fast.operating_system import memory


@pytest.fixture(autouse=True)
def _without_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMINFO", "CGROUP", "OWN_GROUPS", "PEAK_RESET"):
        monkeypatch.setattr(memory, name, tmp_path / "absent" / name)


def test_psutil_tells_it_elsewhere() -> None:
    psutil = pytest.importorskip("psutil")
    now = psutil.virtual_memory()
    assert now.available / 4 < memory.free_bytes() < now.total


def test_nothing_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    guard._warn_unchecked.cache_clear()
    with pytest.warns(RuntimeWarning, match="does not tell how much is free; sizes are not"):
        assert guard.available_bytes() is None
    guard.require_memory(1 << 60, "said once in a process, and not refused")


def test_the_peak_starts_again_on_linux_alone() -> None:
    assert not memory.forget_peak()
    resident = memory.resident_bytes()[0]
    assert resident / 2 < memory.peak_resident_bytes() < 1 << 40
