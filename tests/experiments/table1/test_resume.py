"""The file of finished jobs: refused when it is another table's or broken, never half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.experiments.table1.protocol import Table1Config
from mmcl_fast.experiments.table1.resume import JobResult, PartialResults

TINY = Table1Config(images=300, epochs=2, batch=50, few_labels=60)
ONE = JobResult({"probe": {"train": 50.0}}, [[1]])


def test_a_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "partial.json"
    PartialResults(path, TINY.to_dict()).add(("multi", 0), ONE)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="expected epochs = 3, got an unfinished run with 2"):
        PartialResults(path, TINY.replace(epochs=3).to_dict())
    with pytest.raises(ConfigError, match=r"expected md5 = {'a': 'b'}, got .* with None"):
        PartialResults(path, TINY.to_dict() | {"md5": {"a": "b"}})
    assert path.read_bytes() == before
    assert PartialResults(path, TINY.to_dict()).jobs == {("multi", 0): ONE}


BROKEN = {
    "empty": "",
    "half": '{"format": "mmcl-table1-2", "settings": {',
    "other_format": '{"format": "mmcl-table1-0", "settings": {}, "jobs": []}',
    "without_0_against_1": '{"format": "mmcl-table1-1", "settings": {}, "jobs": []}',
    "list": "[]",
    "no_jobs": '{"format": "mmcl-table1-2", "settings": {}}',
    "bad_job": '{"format": "mmcl-table1-2", "settings": {}, "jobs": [1]}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_partial_file_is_refused_and_kept(name: str, tmp_path: Path) -> None:
    path = tmp_path / "partial.json"
    path.write_text(BROKEN[name])
    with pytest.raises(OutputError, match=r"partial\.json: expected .* remove it"):
        PartialResults(path, {})
    assert path.read_text() == BROKEN[name]


def test_a_failed_write_leaves_the_file_before(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "partial.json"
    partial = PartialResults(path, {})
    partial.add(("multi", 0), ONE)
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OutputError, match="full"):
        partial.add(("multi", 1), ONE)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["partial.json"]
    assert list(PartialResults(path, {}).jobs) == [("multi", 0)]
