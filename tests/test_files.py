"""Files are written whole or not at all; a checkpoint is only read by what wrote it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmcl_fast import OutputError, TrainConfig, train
from mmcl_fast.files import open_regular, prepare_directory, write_atomically
from mmcl_fast.training import tensor_file

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=9, evaluate_every=4)


def test_a_file_appears_under_its_name_only_when_complete(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("before")

    def write(temporary: Path) -> None:
        assert temporary.parent == tmp_path, "a rename must not cross file systems"
        assert (temporary.name[0], temporary.suffix) == (".", ".tmp"), "no pattern for results"
        temporary.write_text("after")
        assert file.read_text() == "before"

    assert write_atomically(file, write) == file
    assert file.read_text() == "after"
    assert list(tmp_path.iterdir()) == [file]


FAILURES = [
    (OSError("no space left"), OutputError),
    (RuntimeError("a mistake of ours"), RuntimeError),
    (KeyboardInterrupt(), KeyboardInterrupt),
]


@pytest.mark.parametrize(("error", "seen"), FAILURES, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_write_changes_nothing(
    error: BaseException, seen: type[BaseException], existing: bool, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    if existing:
        file.write_text("before")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(seen) as caught:
        write_atomically(file, write)
    if seen is OutputError:
        assert str(caught.value).startswith(f"result.json: cannot be written to {tmp_path}")
        assert "no space left" in str(caught.value)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"] * existing


def test_a_name_that_is_taken_by_a_directory(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match=r"^result\.json: cannot be written"):
        write_atomically(tmp_path / "result.json", lambda path: path.write_text("x"))
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^result\.json: cannot be written"):
        write_atomically(tmp_path / "no" / "result.json", lambda path: path.write_text("x"))
    assert prepare_directory(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="out: expected a directory that can be written"):
        prepare_directory(tmp_path / "file")


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_files_get_the_mode_of_any_new_file(umask: int, tmp_path: Path) -> None:
    # mkstemp makes files that nobody else may read; results are for others too.
    file = write_atomically(tmp_path / "result.json", lambda path: path.write_text("x"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    train(TINY, checkpoint=tmp_path / "run.safetensors", checkpoint_every=5)
    mode = (tmp_path / "run.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) == 0o666 & ~umask
    assert os.umask(umask) == umask, "the process keeps its umask"


@pytest.mark.parametrize("metadata", ["other", "none"])
def test_a_checkpoint_of_another_format_is_refused(metadata: str, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    train(TINY, checkpoint=file, checkpoint_every=5)
    with safe_open(file, framework="pt") as stream:
        written = dict(stream.metadata())
    assert written["format"] == "mmcl-checkpoint-1"
    del written[tensor_file.DIGEST]
    written["format"] = "mmcl-checkpoint-2"
    save_file(load_file(file), file, written if metadata == "other" else None)
    found = "'mmcl-checkpoint-2'" if metadata == "other" else "None"
    before = file.read_bytes()
    with pytest.raises(OutputError, match=f"expected format mmcl-checkpoint-1, got {found}"):
        train(TINY, checkpoint=file)
    assert file.read_bytes() == before


def test_a_failing_checkpoint_leaves_the_one_before(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "run.safetensors"
    written: list[bytes] = []

    def save(tensors: dict, path: Path, metadata: dict) -> None:
        if written:
            path.write_bytes(b"half")
            raise OSError("no space left")
        save_file(tensors, path, metadata)
        written.append(metadata["epoch"])

    monkeypatch.setattr(tensor_file, "save_file", save)
    with pytest.raises(OutputError, match="no space left"):
        train(TINY, checkpoint=file, checkpoint_every=3)
    assert list(tmp_path.iterdir()) == [file]
    with safe_open(file, framework="pt") as stream:
        assert [stream.metadata()["epoch"]] == written
    monkeypatch.undo()
    assert torch.equal(train(TINY, checkpoint=file).loss, train(TINY).loss)


@pytest.mark.parametrize(("every", "last"), [(1, 9), (3, 9), (5, 5), (9, 9)])
def test_a_checkpoint_is_of_an_epoch_of_the_run(every: int, last: int, tmp_path: Path) -> None:
    # One written after the end would resume to nothing at all.
    file = tmp_path / "run.safetensors"
    run = train(TINY, checkpoint=file, checkpoint_every=every)
    with safe_open(file, framework="pt") as stream:
        assert int(stream.metadata()["epoch"]) == last
    resumed_at: list[int] = []
    again = train(TINY, on_epoch=lambda info: resumed_at.append(info.epoch), checkpoint=file)
    assert resumed_at == list(range(last, 10))
    assert torch.equal(again.loss, run.loss)
    assert torch.equal(again.weights(), run.weights())


def test_a_run_shorter_than_the_interval_leaves_no_checkpoint(tmp_path: Path) -> None:
    # 10 is one beyond the last epoch.
    train(TINY, checkpoint=tmp_path / "run.safetensors", checkpoint_every=10)
    assert not list(tmp_path.iterdir())


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, kind in (("fifo", "a FIFO"), ("folder", "a directory")):
        with (
            pytest.raises(OSError, match=f"{kind}, and no regular file"),
            open_regular(tmp_path / name),
        ):
            pass
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as stream:
        assert stream.read() == b"x"
