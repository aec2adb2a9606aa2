"""Capture of a step as a CUDA graph, replayed to avoid the cost of its launches.

The first call executes the step, which also makes libraries allocate handles, kernels and workspace
before the capture. The second captures it without executing it, and replays; later calls replay.
A captured step must do the same work on the same memory each time: what changes between calls is
read from device memory, and there are no copies to or from the host.

`cuda_graph` captures on CUDA; tests on a CPU pass another `capture`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Step = Callable[[], None]
Capture = Callable[[Step], Step]

_capturing = threading.Lock()  # torch allows one capture at a time in a process


def cuda_graph(step: Step) -> Step:
    """Capture a step on the current device; returns its replay."""
    graph = torch.cuda.CUDAGraph()
    # thread_local: CUDA calls of other threads are neither captured nor an error.
    with _capturing, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class Replay:
    """Calls of one step; see the module's documentation.

    The step is an argument of each call and not stored: an engine that stores its replay would be
    in a reference cycle, and its device memory would be freed late.

    Args:
        capture: Makes a replay of a step without executing it.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture = capture
        self._warm = False
        self._again: Step | None = None

    def __call__(self, step: Step) -> None:
        """Execute the step, which must be the same in every call."""
        if not self._warm:
            step()
            self._warm = True
            return
        if self._again is None:
            self._again = self._capture(step)
        self._again()


__all__ = ["Capture", "Replay", "Step", "cuda_graph"]
