"""Synthetic signal-noise data from one counter-based stream. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast.data.stream import normal as normal
    from mmcl_fast.data.synthetic import SignalNoiseData as SignalNoiseData
    from mmcl_fast.data.synthetic import sample as sample

_HOME = {"normal": "stream", "SignalNoiseData": "synthetic", "sample": "synthetic"}


def __getattr__(name: str) -> Any:
    # The config needs `data.tags` only; torch must not be imported for that.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"mmcl_fast.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


__all__ = ["SignalNoiseData", "normal", "sample"]
