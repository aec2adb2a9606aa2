"""Random streams and the data drawn from them; torch is imported with the first use, not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast.data.signal_noise.own_arrays import from_arrays as from_arrays
    from mmcl_fast.data.signal_noise.sampling import sample as sample
    from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData as SignalNoiseData
    from mmcl_fast.data.stream.generate import chunks as chunks
    from mmcl_fast.data.stream.generate import labels as labels
    from mmcl_fast.data.stream.generate import normal as normal
    from mmcl_fast.data.stream.generate import words as words
    from mmcl_fast.data.stream.gram import streaming_gram as streaming_gram

_HOME = {
    "SignalNoiseData": "signal_noise.synthetic",
    "chunks": "stream.generate",
    "from_arrays": "signal_noise.own_arrays",
    "labels": "stream.generate",
    "normal": "stream.generate",
    "sample": "signal_noise.sampling",
    "streaming_gram": "stream.gram",
    "words": "stream.generate",
}


if not TYPE_CHECKING:  # a type checker would take any misspelt name for one of `Any`

    def __getattr__(name: str) -> Any:
        # The command line needs `data.mnist.colour_rule` only; torch must not be imported for that.
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "SignalNoiseData",
    "chunks",
    "from_arrays",
    "labels",
    "normal",
    "sample",
    "streaming_gram",
    "words",
]
