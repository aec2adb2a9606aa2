"""Memory of a call, in a fork that has the libraries loaded, and what autograd keeps.

A fork is a fair start as long as the process it is made from has neither computed nor started
threads: what an allocator has been given back, it may hand out again
unseen. So memory is measured before anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mmcl_fast.operating_system.processes import fork


def in_fork(measure: Callable[[], Sequence[float]]) -> list[float]:
    """What `measure` returns in a fork of this process.

    Where a system has no forks, in this process: the peak of a call (`added_mib`) is known on Linux
    alone, and what autograd keeps is the same in any process.

    Raises: RuntimeError: it failed; its traceback is on standard error.
    """
    here, there = os.pipe()
    child = fork()
    if child is None:
        os.close(here)
        os.close(there)
        return list(measure())
    if child == 0:
        _tell(measure, there)
    os.close(there)
    with os.fdopen(here, "rb") as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    if not output:
        raise RuntimeError("memory: expected numbers, got a process that failed")
    return [float(word) for word in output.split()]


def _tell(measure: Callable[[], Sequence[float]], pipe: int) -> None:
    """In the fork: write the numbers and exit at once, without this process's exit handlers."""
    try:
        os.write(pipe, " ".join(map(repr, measure())).encode())
    except Exception:  # noqa: BLE001 - the parent raises for it
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(0)


def saved_mib(loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> float:
    """What autograd keeps between forward and backward, inputs not counted."""
    known = {x.untyped_storage().data_ptr() for x in inputs}
    bytes_of: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            bytes_of[storage.data_ptr()] = storage.nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        value = loss(*inputs)
    saved_bytes = sum(bytes_of.values())
    value.backward()
    return saved_bytes / 2**20


__all__ = ["in_fork", "saved_mib"]
