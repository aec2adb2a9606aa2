"""Philox4x32-10 against answers that other implementations gave."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import _native
from mmcl_fast.data.stream import stream_numpy

# The first three: Random123's kat_vectors. The others: Triton's randint4x (offset, seed).
ANSWERS = [
    ("00000000 00000000 00000000 00000000", 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
    ("00000001 00000000 00000000 00000000", 42, "fcdb2127 53ba6cfd 838f5a6e 744e06fb"),
    (
        "00000005 00000000 00000000 00000000",
        0x0123456789ABCDEF,
        "5765db8a d104608f c658b7d8 e9aa137f",
    ),
    ("00000007 00000003 00000000 00000000", 42, "e2d4f87a 62f504d8 73be0d3e d974fbc8"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_words_of_one_block(target: str, counter: str, key: int, answer: str) -> None:
    block, sample, run, tag_epoch = (int(word, 16) for word in counter.split())
    tile, lane = divmod(block, 64)
    out = np.zeros((1, 1, 256), dtype=np.uint32)
    _native.fill_words(
        out,
        start=(run, sample, 256 * tile),
        seed=key,
        tag=tag_epoch >> 24,
        epoch=tag_epoch & 0xFFFFFF,
        threads=1,
        target=target,
    )
    got = " ".join(f"{out[0, 0, lane + 64 * word]:08x}" for word in range(4))
    assert got == answer


def test_radius_is_as_exact_as_the_page_says() -> None:
    """A sample of the words, with both ends and the place where the formula changes."""
    page = (Path(__file__).parents[3] / "docs/stream.md").read_text()
    claim = re.search(r"below (\S+) everywhere.*?largest is\s+(\S+) and .*? (\S+)\.\n", page, re.S)
    assert claim
    bound, largest, smallest = map(float, claim.groups())
    ends = (0, 2**31 - 2**16, stream_numpy.LOG_SPLIT - 2**15)
    parts = [np.arange(end, end + 2**16) for end in ends]
    v = np.concatenate([*parts, np.arange(0, 2**31, 2039)])
    exact = np.sqrt(-2 * np.log1p(-(2**31 - v - 0.5) / 2**31))
    found = stream_numpy.radius((v << 1).astype(np.uint32))
    assert np.abs(found / exact - 1).max() < bound
    assert found.max() == pytest.approx(largest, abs=0.005)
    assert found.min() == pytest.approx(smallest, rel=0.003)
