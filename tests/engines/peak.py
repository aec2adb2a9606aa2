"""The most memory that operations hold at once besides what was there before."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts memory that operations allocate, until no tensor that they returned is on it.

    Attributes:
        bytes: At the most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self._now = 0
        self._tensors: dict[int, int] = {}  # by where their memory begins

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {_begin(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out: Any = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if not isinstance(x, Tensor) or (_begin(x) in given and _begin(x) not in self._tensors):
                continue
            begin, size = _begin(x), x.untyped_storage().nbytes()
            if begin not in self._tensors:
                self._now += size
                self.bytes = max(self.bytes, self._now)
            self._tensors[begin] = self._tensors.get(begin, 0) + 1
            weakref.finalize(x, self._drop, begin, size)
        return out

    def _drop(self, begin: int, size: int) -> None:
        self._tensors[begin] -= 1
        if not self._tensors[begin]:
            del self._tensors[begin]
            self._now -= size


def _begin(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


__all__ = ["Peak"]
