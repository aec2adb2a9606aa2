"""Spares Triton's interpreter its repeated preparations: the same results in half the time.

On every call of a device function the stock interpreter patches the whole language again, of which
the launch has patched it already. Kernels of many small functions and loops spend most of their
time there.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpretedFunction

_stock_launch = GridExecutor.__call__
_patched: set[int] = set()  # modules of the language, of this launch


def _launch(self: Any, *arguments: Any, **named: Any) -> Any:
    _patched.clear()
    return _stock_launch(self, *arguments, **named)


def _call(self: Any, *arguments: Any, **named: Any) -> Any:
    languages = {id(x) for x in self.fn.__globals__.values() if inspect.ismodule(x)}
    if not languages <= _patched:
        interpreter._patch_lang(self.fn)
        _patched.update(languages)
    return self.rewrite()(*arguments, **named)


@contextmanager
def quick_interpreter() -> Iterator[None]:
    """Within it, device functions are not prepared again, and overflow is silent as on hardware."""
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
        mock.patch.object(GridExecutor, "__call__", _launch),
        mock.patch.object(InterpretedFunction, "__call__", _call),
    ):
        yield
