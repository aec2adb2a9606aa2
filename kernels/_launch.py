"""Launches of kernels whose arguments are prepared once for a shape.

Triton binds and specialises every argument of every launch anew, which takes the host longer than
a small batch takes a GPU. What a binary depends on is the numbers, the options, the types of the
tensors, whether their addresses are multiples of 16, and the device: for the same of these the
binary that Triton returned before is launched again, with its numbers, as Triton itself would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from triton.compiler import CompiledKernel

_MOST = 1024  # prepared launches; shapes of a training are few


class _Prepared(NamedTuple):
    """A binary on its grid, and from where each of its arguments comes."""

    run: Any  # takes the kernel's arguments in their order
    numbers: tuple[Any, ...]
    order: tuple[int, ...] | None  # into (*tensors, *numbers); None: as they are


_prepared: dict[Any, _Prepared] = {}
_enabled = False


@contextmanager
def prepared_launches() -> Iterator[None]:
    """Within it, launches of this module are prepared; of all threads, as autograd has its own."""
    global _enabled
    before, _enabled = _enabled, True
    try:
        yield
    finally:
        _enabled = before


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    tensors: Mapping[str, torch.Tensor | None],
    numbers: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Launch a kernel on the current device and stream; nothing waits for the device.

    Args:
        kernel: A function of `triton.jit`.
        grid: Programs along each axis.
        tensors: Its pointers, by parameter.
        numbers: Its other parameters, constants included.
        options: Of the compiler.
    """
    if not _enabled or not isinstance(kernel, triton.JITFunction):
        kernel[grid](**tensors, **numbers, **options)
        return
    kinds = [None if x is None else (x.dtype, x.data_ptr() % 16 == 0) for x in tensors.values()]
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    key = (kernel, device, grid, *kinds, *numbers.values(), *options.values())
    found = _prepared.get(key)
    if found is None:
        binary = kernel[grid](**tensors, **numbers, **options)
        if isinstance(binary, CompiledKernel):
            if len(_prepared) >= _MOST:
                _prepared.clear()
            _prepared[key] = _prepare(kernel, grid, binary, tensors, numbers)
        return
    given = (*tensors.values(), *found.numbers)
    found.run(*given) if found.order is None else found.run(*(given[k] for k in found.order))


def _prepare(
    kernel: Any,
    grid: tuple[int, ...],
    binary: CompiledKernel,
    tensors: Mapping[str, Any],
    numbers: Mapping[str, Any],
) -> _Prepared:
    names = (*tensors, *numbers)
    order = tuple(names.index(name) for name in kernel.arg_names)
    whole = (*grid, *(1,) * (3 - len(grid)))
    in_order = order == tuple(range(len(names)))
    return _Prepared(binary[whole], tuple(numbers.values()), None if in_order else order)


__all__ = ["launch", "prepared_launches"]
