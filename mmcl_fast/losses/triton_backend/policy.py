"""Which algorithms may run beside those that were measured; for `bench.gpu` and tests.

What was never timed on a GPU is no default: `bench.gpu` times it beside what is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mmcl_fast.kernels._launch import prepared_launches


@dataclass(frozen=True)
class Policy:
    """What may run; within it the sizes, the form and the dtype of a contrast decide.

    Attributes:
        small_batch: Losses and weights of a small batch in one launch (`small_batch.py`), scores of
            typical ones in memory whatever the features' length, arguments of launches prepared
            once for a shape.
        pipelined: Long features whose scores would not be kept: statistics and weights by products
            with an epilogue (`pipelined.py`).
    """

    small_batch: bool = False
    pipelined: bool = False


_policy = Policy()


def current() -> Policy:
    """The policy of this process: backward passes run in threads of their own."""
    return _policy


@contextmanager
def using(policy: Policy) -> Iterator[None]:
    """Within it, `policy` decides."""
    global _policy
    before, _policy = _policy, policy
    with ExitStack() as stack:
        stack.callback(_restore, before)
        if policy.small_batch:
            stack.enter_context(prepared_launches())
        yield


def _restore(policy: Policy) -> None:
    global _policy
    _policy = policy


__all__ = ["Policy", "current", "using"]
