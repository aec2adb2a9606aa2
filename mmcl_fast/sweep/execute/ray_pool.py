"""Shards as Ray tasks, on a cluster of this machine alone or on one given by its address.

Ray's retries are off: `worker_pool.drive` counts the deaths of workers and retries their shards.
Only (shard, counts) is sent back; rows go to the store.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from importlib.util import find_spec
from typing import Any

from mmcl_fast.errors import BackendUnavailableError, ConfigError
from mmcl_fast.sweep.execute.worker_pool import Broken, Died, Done, Job, Outcome, Pool, perform

BINDING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK = {
    # Read when ray is imported. A local cluster otherwise listens on every interface of the machine
    # (measured with ray 2.60 on Linux), where nothing but this process needs it.
    BINDING: "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
CONNECT_SECONDS = 10.0
MAX_ADDRESS = 60  # of a socket, which lies in Ray's folder, in characters
NO_RAY = "executor ray: expected the package ray (pip install 'mmcl-fast[ray]'), got none"


class RayPool(Pool):
    """See the module's documentation and `worker_pool.Pool`.

    Args:
        workers: Jobs at a time; None: one per CPU (or GPU) of the cluster.
        address: Of a running cluster, as `ray start` prints it; None: start one on this machine,
            on the loopback interface, and stop it at the end.
        gpus: Give each job a GPU.
    """

    def __init__(self, workers: int | None, address: str | None, *, gpus: bool) -> None:
        if address is None:
            _bind_to_loopback()
        require_ray()
        try:
            import ray
        except ImportError as error:  # it is there, and broken
            raise BackendUnavailableError(NO_RAY) from error
        self._ray: Any = ray
        self._running: dict[Any, Job] = {}
        if ray.is_initialized():
            raise ConfigError("executor ray: expected a process without ray.init, got one with it")
        self._start(workers, address)
        resource = "GPU" if gpus else "CPU"
        self._slots = workers or int(self._ray.cluster_resources().get(resource, 0))
        if not self._slots:
            self.close()
            raise ConfigError(f"executor ray: expected a cluster with a {resource}, got none")
        self._task = self._ray.remote(
            max_retries=0,
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )(_perform)

    def close(self) -> None:
        """See `Pool.close`."""
        self._ray.shutdown()
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    @property
    def slots(self) -> int:
        """See `Pool.slots`."""
        return self._slots

    def submit(self, job: Job) -> None:
        """See `Pool.submit`."""
        self._running[self._task.remote(job)] = job

    def wait(self) -> list[Outcome]:
        """See `Pool.wait`."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        job = self._running.pop(reference)
        try:
            result: Done | Broken = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise  # a bug: failed runs are rows, not exceptions
        except self._ray.exceptions.RayError as error:
            return Died(job.shard, type(error).__name__)
        return result

    def _start(self, workers: int | None, address: str | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is not None:
            _check_reachable(address)
            try:
                self._ray.init(address=address, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise BackendUnavailableError(
                    f"executor ray: expected a cluster at {address}, got {error}"
                ) from error
            return
        # Address local: on a shared node, Ray would otherwise join another user's cluster.
        self._folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self._ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            _temp_dir=self._folder.name if len(self._folder.name) < MAX_ADDRESS else None,
            **options,
        )


def require_ray() -> None:
    """Raise BackendUnavailableError where ray is not installed; loads nothing."""
    if find_spec("ray") is None:
        raise BackendUnavailableError(NO_RAY)


def _bind_to_loopback() -> None:
    """Set the variables that Ray reads on import; raise ConfigError if it is imported already."""
    unset = {name: value for name, value in LOOPBACK.items() if name not in os.environ}
    if BINDING in unset and "ray" in sys.modules:
        raise ConfigError(
            f"executor ray: expected {BINDING}=0 in the environment before ray is imported, so "
            "that its cluster listens on the loopback interface only; got an imported ray without"
        )
    os.environ.update(unset)


def _check_reachable(address: str) -> None:
    """Raise if nothing listens at an address; Ray itself would retry for minutes."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if not match:
        return  # such as "auto", which Ray resolves or refuses at once
    try:
        socket.create_connection((match[1], int(match[2])), CONNECT_SECONDS).close()
    except OSError as error:
        raise BackendUnavailableError(
            f"executor ray: expected a cluster at {address}, got {error.strerror or error}"
        ) from error


def _perform(job: Job) -> Done | Broken:
    import torch

    torch.set_num_threads(1)
    return perform(job)


__all__ = ["RayPool", "require_ray"]
