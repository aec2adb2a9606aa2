"""What a CUDA graph is, on a CPU: operations with the very memory they had, executed again on it.

Stricter than the original. What a capture may not do is an error: to read a value, to send one, to
move a tensor, to ask for a size that depends on values. A capture changes nothing. Before each
replay, memory that the step allocates is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], None]
METHODS = ("item", "tolist", "numpy", "cpu", "cuda", "to", "__bool__", "__float__", "__int__")
FUNCTIONS = ("tensor", "as_tensor", "from_numpy")
OPERATIONS = {"_local_scalar_dense", "_to_copy", "equal", "is_nonzero", "lift_fresh",
              "masked_select", "nonzero", "_unique2"}  # fmt: skip
INDEXED = {"index", "index_put", "index_put_"}
EMPTY = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}


class Tape(TorchDispatchMode):
    """A captured step; see the module's documentation.

    Attributes:
        operations: Names of those that start something on a device, in order.
        outside: Where the memory begins that the step finds there.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.outside: set[int] = set()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._own: dict[int, Tensor] = {}  # memory that the step allocates
        self._found: list[tuple[Tensor, int]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        with pytest.MonkeyPatch.context() as patch:
            for name in METHODS:
                patch.setattr(Tensor, name, _refused(name))
            for name in FUNCTIONS:
                patch.setattr(torch, name, _refused(name))
            with self:
                step()
        for here, then in self._before.values():
            here.copy_(then)

    def replay(self) -> None:
        """Execute it."""
        assert all(tensor.data_ptr() == begin for tensor, begin in self._found)
        with torch.inference_mode():
            for memory in self._own.values():
                memory.fill_(torch.nan)
            for func, args, kwargs, out in self._calls:
                found = func(*args, **kwargs)
                if out is not None:
                    out.copy_(found)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        by_mask = name in INDEXED and any(x.dtype == torch.bool for x in given[1:])
        if name in OPERATIONS or by_mask:
            raise AssertionError(f"captured {name}")
        for x in given:
            self._find(x)
        if func._schema.is_mutable:
            self._keep(func, args, kwargs)
        out = func(*args, **kwargs)
        known = {_begin(x) for x in given}
        new = [x for x in tree_leaves(out) if isinstance(x, Tensor) and _begin(x) not in known]
        for x in new:
            self._own[_begin(x)] = x
        if name not in EMPTY and (new or func._schema.is_mutable):
            assert len(new) <= 1, name
            self._calls.append((func, args, kwargs, new[0] if new else None))
            self.operations.append(name)
        return out

    def _find(self, x: Tensor) -> None:
        if _begin(x) not in self._own and _begin(x) not in self.outside:
            self.outside.add(_begin(x))
            self._found.append((x, x.data_ptr()))

    def _keep(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember memory that an operation is about to change, unless the step allocated it."""
        for k, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            x = args[k] if k < len(args) else kwargs[argument.name]
            if _begin(x) not in self._own and _begin(x) not in self._before:
                whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
                self._before[_begin(x)] = whole, whole.clone()


def _begin(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _refused(name: str) -> Callable[..., NoReturn]:
    def call(*_: object, **__: object) -> NoReturn:
        raise AssertionError(f"captured {name}")

    return call


__all__ = ["Tape"]
