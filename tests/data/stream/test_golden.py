"""Hashes written once by make_golden.py: the stream never changes, whatever is rewritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast.data import normal, words

GOLDEN = json.loads(Path(__file__).with_name("golden_stream.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: c["stream"])
@pytest.mark.parametrize("kind", ["words", "float32", "bfloat16", "float64"])
def test_golden(case: dict[str, Any], kind: str) -> None:
    where = [case[k] for k in ("seed", "stream", "shape", "start", "epoch")]
    if kind == "words":
        got = words(*where).tobytes()
    else:
        x = normal(*where, GOLDEN["scale"], kind)
        got = x.view(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(got).hexdigest() == case["sha256"][kind]
