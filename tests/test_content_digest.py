"""A changed byte anywhere in a file is noticed, whichever part of it is read."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmcl_fast.content_digest import BLANK, MARK, check, fill, read_section, safetensors_header
from mmcl_fast.errors import DamagedFileError
from mmcl_fast.training.tensor_file import DIGEST, read_tensors, write_tensors

TENSORS = {"x": torch.arange(300.0), "y": torch.zeros(3, dtype=torch.int64)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tensors(TENSORS, tmp_path / "x.safetensors", {"told": "something"})


def flipped(whole: bytes, place: int, by: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ by]) + whole[place + 1 :]


def test_every_changed_byte_is_named(file: Path) -> None:
    whole = file.read_bytes()
    random = np.random.default_rng(3)
    for place in range(len(whole)):
        file.write_bytes(flipped(whole, place, int(random.integers(1, 256))))
        with pytest.raises(DamagedFileError, match=r"^x\.safetensors: expected an undamaged file"):
            read_tensors(file, "remove it")
    file.write_bytes(whole)
    metadata, tensors = read_tensors(file, "remove it")
    assert metadata["told"] == "something"
    assert torch.equal(tensors["x"], TENSORS["x"])


def test_lost_and_added_bytes_are_named(file: Path) -> None:
    whole = file.read_bytes()
    for content in (b"", whole[:4], whole[:-1], whole + b"x", whole[8:]):
        file.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"; remove it$"):
            read_tensors(file, "remove it")


def test_the_metadata_alone_can_be_checked(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, len(whole) - 9, 1))
    with file.open("rb") as stream:
        section = safetensors_header(stream)
        content = read_section(stream, section)
        assert check(stream, section, content, whole=False)
        with pytest.raises(ValueError, match="SHA-256 of its content"):
            check(stream, section, content, whole=True)


def test_a_file_of_another_program_with_our_metadata(file: Path) -> None:
    metadata, tensors = read_tensors(file, "")
    save_file(tensors | {"x": tensors["x"] + 1}, file, metadata)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        read_tensors(file, "")
    save_file(tensors, file, metadata | {DIGEST: "none"})
    with pytest.raises(DamagedFileError, match="its digest is gone"):
        read_tensors(file, "")
    save_file(tensors, file, metadata | {"told": BLANK})
    with pytest.raises(DamagedFileError, match="SHA-256 of its metadata"):
        read_tensors(file, "")


def test_a_file_without_a_digest_is_read_as_earlier_versions_wrote_it(file: Path) -> None:
    save_file(load_file(file), file, {"told": "something"})
    assert MARK not in file.read_bytes()
    metadata, tensors = read_tensors(file, "")
    assert metadata == {"told": "something"}
    assert torch.equal(tensors["x"], TENSORS["x"])


def test_the_digest_is_a_plain_sha256(file: Path) -> None:
    """As the module's docstring defines it, computed here without the module."""
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    first = whole.index(b"mmcl-sha256:") + len("mmcl-sha256:")
    own, rest = whole[first : first + 64], whole[first + 64 : first + 128]
    blanked = whole[:first] + 64 * b"0" + whole[first + 64 : header]
    assert own.decode() == hashlib.sha256(blanked).hexdigest()
    assert rest.decode() == hashlib.sha256(whole[header:]).hexdigest()


def test_a_digest_is_filled_where_there_is_a_blank(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x", {})
    with pytest.raises(ValueError, match="not found"):
        fill(tmp_path / "x", safetensors_header)
