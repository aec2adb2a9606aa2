"""Random streams and the data drawn from them; torch is imported with the first use, not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast.data.generate import chunks as chunks
    from mmcl_fast.data.generate import labels as labels
    from mmcl_fast.data.generate import normal as normal
    from mmcl_fast.data.generate import words as words
    from mmcl_fast.data.gram import streaming_gram as streaming_gram
    from mmcl_fast.data.sampling import sample as sample
    from mmcl_fast.data.synthetic import SignalNoiseData as SignalNoiseData

_HOME = {
    "SignalNoiseData": "synthetic",
    "chunks": "generate",
    "labels": "generate",
    "normal": "generate",
    "sample": "sampling",
    "streaming_gram": "gram",
    "words": "generate",
}


def __getattr__(name: str) -> Any:
    # The command line needs `data.colour_rule` only; torch must not be imported for that.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


__all__ = ["SignalNoiseData", "chunks", "labels", "normal", "sample", "streaming_gram", "words"]
