"""The IDX reader: what it reads, and one clear error for everything else."""

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast.data.mnist.files import LARGEST
from mmcl_fast.data.mnist.idx import contents, read_idx
from mmcl_fast.errors import DataError
from tests.support.digits import idx_bytes

VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
WHOLE = idx_bytes(VALUES)
GZIPPED = gzip.compress(WHOLE)


@pytest.mark.parametrize("data", [WHOLE, GZIPPED], ids=["raw", "gzip"])
def test_reads_what_was_written(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "named-anything"
    path.write_bytes(data)
    found = read_idx(path, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, VALUES)


def test_an_empty_array_is_an_array(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    assert read_idx(path, 3).shape == (0, 28, 28)


HUGE = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
BAD = {
    "empty": (b"", "expected IDX magic 00000803, got none"),
    "short_magic": (WHOLE[:3], "expected IDX magic 00000803, got 000008"),
    "other_type": (b"\0\0\x0d\3" + WHOLE[4:], "expected IDX magic 00000803, got 00000d03"),
    "other_ndim": (b"\0\0\x08\1" + WHOLE[4:], "expected IDX magic 00000803, got 00000801"),
    "not_idx": (b"<html>404</html>", "expected IDX magic 00000803, got 3c68746d"),
    "short_header": (WHOLE[:9], "expected a header of 16 bytes, got a file of 9"),
    "header_alone": (WHOLE[:16], r"expected 24 values for \(2, 3, 4\), got 0"),
    "one_byte_less": (WHOLE[:-1], r"expected 24 values for \(2, 3, 4\), got 23"),
    "one_byte_more": (WHOLE + b"x", r"expected 24 values for \(2, 3, 4\), got 25"),
    "more_than_memory": (HUGE, "expected at most 2147483648 values"),
    "truncated_gzip": (GZIPPED[:-12], "expected a whole gzip archive"),
    "corrupt_gzip": (GZIPPED[:20] + b"\xff" * 8 + GZIPPED[28:], "expected a whole gzip archive"),
    "wrong_sum_in_gzip": (GZIPPED[:-8] + b"\0" * 8, "expected a whole gzip archive"),
    "gzip_header_alone": (GZIPPED[:2], "expected a whole gzip archive"),
    "gzip_of_a_truncated_file": (gzip.compress(WHOLE[:-5]), "expected 24 values"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    path = tmp_path / "file-idx"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(f"{path}: expected")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match="expected a readable file, got") as caught:
            read_idx(path, 1)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """100 MB of zeros in 100 kB: no IDX file, one that is longer than it says, one too large."""
    path = tmp_path / "bomb.gz"
    heads = {
        b"no IDX": 1 << 20,
        bytes((0, 0, 8, 1)) + struct.pack(">I", 7): (1 << 20) + 15,
        bytes((0, 0, 8, 1)) + struct.pack(">I", 10**8): 47_040_016,
    }
    for head, limit in heads.items():
        path.write_bytes(gzip.compress(head + bytes(10**8), 1))
        tracemalloc.start()
        with pytest.raises(DataError, match=f"IDX file of at most {limit} bytes, got more"):
            contents(path, LARGEST)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 3 * limit + (4 << 20) < 10**9 // 6


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(
        DataError, match="expected a readable file, got a FIFO, and no regular file"
    ):
        contents(tmp_path / "x")
