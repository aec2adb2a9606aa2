"""How a sweep is executed; loads no torch, so a wrong command line is refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mmcl_fast.errors import ConfigError

LEAST_TIMEOUT_SECONDS = 5.0  # a few signs of life, which come each second
ExecutorName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a sweep is executed; the plan determines what it computes.

    Raises: ConfigError: a value out of its range, or an address without executor ray.

    Attributes:
        executor: Processes of this machine, or Ray.
        address: Ray cluster to join; default: a new one on this machine.
        workers: Concurrent jobs; default: one per core, or per GPU.
        part: (i, N): compute only the i-th of N parts of equal work, 1 <= i <= N; for job arrays.
        extend: Accept a plan that adds runs to the stored one.
        any_engine: Resume where the plan's engine or processor is unavailable; rows are marked.
        retry_failed: Recompute shards that have failed rows.
        max_deaths: Worker deaths after which a shard is quarantined, >= 1.
        worker_timeout: Seconds in which a worker uses no CPU time after which it is killed, and its
            shard given to another, >= 5; default: 300. Executor local only: Ray watches its own.
    """

    executor: ExecutorName = "local"
    address: str | None = None
    workers: int | None = None
    part: tuple[int, int] | None = None
    extend: bool = False
    any_engine: bool = False
    retry_failed: bool = False
    max_deaths: int = 5
    worker_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.executor not in get_args(ExecutorName):
            known = ", ".join(get_args(ExecutorName))
            raise ConfigError(f"executor: expected one of {known}, got {self.executor!r}")
        for name in ("workers", "max_deaths"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ConfigError(f"{name}: expected an integer >= 1, got {value!r}")
        if self.address is not None and self.executor != "ray":
            raise ConfigError(f"address: expected executor ray, got {self.executor}")
        self._check_timeout()
        index, count = self.part or (1, 1)
        if not 1 <= index <= count:
            raise ConfigError(f"shard: expected i/N with 1 <= i <= N, got {index}/{count}")

    def _check_timeout(self) -> None:
        seconds = self.worker_timeout
        if seconds is None:
            return
        if self.executor != "local":
            raise ConfigError(f"worker_timeout: expected executor local, got {self.executor}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ConfigError(f"worker_timeout: expected a number of seconds, got {seconds!r}")
        if not LEAST_TIMEOUT_SECONDS <= seconds < math.inf:
            raise ConfigError(
                f"worker_timeout: expected seconds >= {LEAST_TIMEOUT_SECONDS:g}, got {seconds!r}"
            )


__all__ = ["ExecutorName", "Policy"]
