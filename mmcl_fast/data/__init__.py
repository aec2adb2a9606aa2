"""Random streams and the data drawn from them; torch is imported with the first use, not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcl_fast.data.generate import chunks, normal, words
    from mmcl_fast.data.gram import streaming_gram

_HOME = {
    "chunks": "mmcl_fast.data.generate",
    "normal": "mmcl_fast.data.generate",
    "streaming_gram": "mmcl_fast.data.gram",
    "words": "mmcl_fast.data.generate",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


__all__ = ["chunks", "normal", "streaming_gram", "words"]
