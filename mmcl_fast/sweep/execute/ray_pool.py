"""Shards as Ray tasks, on a cluster of this machine alone or on one given by its address.

Ray's retries are off: `drive.drive` counts the deaths of workers and retries their shards.
Only (shard, counts) is sent back; rows go to the store.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from typing import Any

from mmcl_fast.errors import BackendUnavailableError, ConfigError
from mmcl_fast.sweep.execute.ray_cluster import (
    LOOPBACK,
    check_answers,
    of_this_machine,
    own_token,
    require_loopback,
    token_of_account,
)
from mmcl_fast.sweep.execute.worker_pool import Broken, Died, Done, Job, Outcome, Pool, perform

MAX_ADDRESS = 60  # of a socket, which lies in Ray's folder, in characters
NO_RAY = "executor ray: expected the package ray (pip install 'mmcl-fast[ray]'), got none"


class RayPool(Pool):
    """See the module's documentation and `worker_pool.Pool`.

    Args:
        workers: Jobs at a time; None: one per CPU (or GPU) of the cluster.
        address: Of a running cluster, as `ray start` prints it; None: start one on this machine,
            on the loopback interface, and stop it at the end.
        gpus: Give each job a GPU.
        path: Where workers look for modules, after their own.
    """

    def __init__(
        self,
        workers: int | None,
        address: str | None,
        *,
        gpus: bool,
        path: Sequence[str] = (),
    ) -> None:
        require_ray()
        if address is None:
            require_loopback()
            os.environ.update(LOOPBACK)  # whatever was inherited
        else:
            check_answers(address)
        token = own_token() if address is None else token_of_account()
        # Ray reads them when it is imported, and sets the first one itself.
        self._before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", *token)}
        os.environ.update(token)
        try:
            self._connect(workers, address)
        except BaseException:
            self._restore_variables()
            raise
        resource = "GPU" if gpus else "CPU"
        self._slots = workers or int(self._ray.cluster_resources().get(resource, 0))
        if not self._slots:
            self.close()
            raise ConfigError(f"executor ray: expected a cluster with a {resource}, got none")
        self._path = [*filter(None, path)]
        self._task = self._ray.remote(
            max_retries=0,
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )(_perform)

    def _connect(self, workers: int | None, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:  # it is there, and broken
            raise BackendUnavailableError(NO_RAY) from error
        self._ray: Any = ray
        self._running: dict[Any, Job] = {}
        if ray.is_initialized():
            raise ConfigError("executor ray: expected a process without ray.init, got one with it")
        if address is not None and (outer := of_this_machine(address, ray.util)) != address:
            check_answers(outer)
        self._start(workers, address)

    def close(self) -> None:
        """See `Pool.close`."""
        self._ray.shutdown()
        self._folder.cleanup()
        self._restore_variables()

    def _restore_variables(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @property
    def slots(self) -> int:
        """See `Pool.slots`."""
        return self._slots

    def submit(self, job: Job) -> None:
        """See `Pool.submit`."""
        self._running[self._task.remote(job, self._path)] = job

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
        except (
            self._ray.exceptions.LocalRayletDiedError,
            self._ray.exceptions.RaySystemError,
        ) as error:
            return Broken(f"executor ray: expected a cluster that runs, got {_named(error)}")
        except self._ray.exceptions.RayError as error:
            return Died(job.shard, type(error).__name__)
        return result

    def _start(self, workers: int | None, address: str | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        # Ray makes workers search the folder that this process is in.
        self._folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        folder = self._folder.name
        with chdir(folder), _own_sigterm_handler():
            if address is not None:
                try:
                    self._ray.init(address=address, **options)
                except (ConnectionError, ValueError, RuntimeError) as error:
                    raise BackendUnavailableError(
                        f"executor ray: expected a cluster at {address}, got {error}"
                    ) from error
                return
            # Address local: on a shared node, Ray would otherwise join another user's cluster.
            self._ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                _temp_dir=folder if len(folder) < MAX_ADDRESS else None,
                **options,
            )


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def require_ray() -> None:
    """Raise BackendUnavailableError where ray is not installed; loads nothing."""
    if find_spec("ray") is None:
        raise BackendUnavailableError(NO_RAY)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def _perform(job: Job, path: Sequence[str]) -> Done | Broken:
    import torch

    torch.set_num_threads(1)
    sys.path += [folder for folder in path if folder not in sys.path]
    return perform(job)


__all__ = ["RayPool", "require_ray"]
