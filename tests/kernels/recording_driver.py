"""A driver for Triton that compiles for a GPU that is not here and records launches.

What the host does for a launch is Triton's own work, up to the call of CUDA: kernels are compiled,
arguments bound and specialised, and what CUDA would get is kept. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple
from unittest import mock

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mmcl_fast.kernels import _launch

# Modules that ask on which architecture they run.
_ASKING = (
    *(f"mmcl_fast.kernels.{name}" for name in (
        "contrast_gradient", "contrast_one_pass", "contrast_score_statistics",
        "contrast_score_weights", "contrast_small_batch", "contrast_statistics", "row_passes",
    )),
    "mmcl_fast.losses.triton_backend.contrastive",
)  # fmt: skip


_DEVICES = count(1000)  # Triton keeps what it made by device: none is that of another driver


class Launch(NamedTuple):
    """One launch: kernel, grid and arguments."""

    name: str
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]


class RecordingDriver:
    """What Triton asks of a driver, for one GPU of an architecture."""

    def __init__(self, arch: str) -> None:
        self.launches: list[Launch] = []
        self.utils = self
        self._device = next(_DEVICES)
        self._target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, *_: Any) -> tuple[Any, ...]:
        return object(), name, 32, 0, 1024

    def unload_module(self, module: object) -> None:
        pass

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def run(x: int, y: int, z: int, stream: int, function: str, *rest: Any) -> None:
            self.launches.append(Launch(function, (x, y, z), rest[4:]))

        return run


@contextmanager
def recording(arch: str = "sm_90") -> Iterator[RecordingDriver]:
    """Within it, launches of the contrastive kernels on CPU tensors are those of a GPU."""
    made = RecordingDriver(arch)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(driver, "_active", made))
        stack.enter_context(mock.patch.object(_launch, "_prepared", {}))
        for name in _ASKING:
            stack.enter_context(mock.patch(f"{name}.arch_of", return_value=arch))
        yield made
