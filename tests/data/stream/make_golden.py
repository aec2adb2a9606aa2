"""Write golden_stream.json from the NumPy oracle alone: python tests/data/stream/make_golden.py.

Only a deliberate change of docs/stream.md, which would be a new stream, may change the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mmcl_fast.data.stream import stream_numpy

CASES: list[dict[str, Any]] = [
    {"seed": 0, "stream": "noise", "shape": [1, 100, 2000], "start": [0, 0, 0], "epoch": 0},
    {"seed": 1, "stream": "init", "shape": [1, 50, 2000], "start": [0, 0, 0], "epoch": 0},
    {"seed": 42, "stream": "augment", "shape": [3, 5, 777], "start": [7, 11, 100], "epoch": 200},
    {
        "seed": 2**64 - 1,
        "stream": "negatives",
        "shape": [2, 2, 513],
        "start": [2**32 - 2, 2**32 - 2, 2**34 - 513],
        "epoch": 2**24 - 1,
    },
]
SCALE = 0.1


def values(case: dict[str, Any]) -> dict[str, np.ndarray]:
    where = [case[k] for k in ("seed", "stream", "shape", "start", "epoch")]
    z = stream_numpy.standard_normal(*where)
    f32 = z * np.float32(SCALE)
    upper, lower = f32.view(np.uint32) >> 16, f32.view(np.uint32) & 0xFFFF
    up = (lower > 0x8000) | ((lower == 0x8000) & (upper & 1 == 1))
    return {
        "words": stream_numpy.words(*where),
        "float32": f32,
        "bfloat16": (upper + up).astype(np.uint16),
        "float64": z.astype(np.float64) * SCALE,
    }


def sha256(x: np.ndarray) -> str:
    return hashlib.sha256(x.astype(x.dtype.newbyteorder("<")).tobytes()).hexdigest()


if __name__ == "__main__":
    golden = [{**c, "sha256": {k: sha256(v) for k, v in values(c).items()}} for c in CASES]
    path = Path(__file__).with_name("golden_stream.json")
    path.write_text(json.dumps({"scale": SCALE, "cases": golden}, indent=1) + "\n")
