"""A step that is issued once and repeated by the device, where launches would bound it.

The first call runs the step as it is: real work, and what libraries need before a capture (handles,
kernels, held workspace). The second captures it, which executes nothing, and replays; all others
replay. So a captured step must be the same work on the same memory each time: whatever differs from
call to call is read from the device, and nothing is read back by the host or sent by it.

`cuda_graph` captures on CUDA. Another `capture` may stand in for it, as the tests' does on a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Step = Callable[[], None]
Capture = Callable[[Step], Step]

_capturing = threading.Lock()  # torch takes one capture at a time in a process


def cuda_graph(step: Step) -> Step:
    """Capture a step on the current device; what is returned replays it there."""
    graph = torch.cuda.CUDAGraph()
    # thread_local: what another thread asks of CUDA meanwhile is neither captured nor an error.
    with _capturing, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class Replay:
    """Calls of one step; see the module's documentation.

    The step is given with each call and not kept: an engine that holds its replay would else hold
    itself, and its memory on the device until Python looks for cycles.

    Args:
        capture: Makes a replay of a step without executing it.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture = capture
        self._warm = False
        self._again: Step | None = None

    def __call__(self, step: Step) -> None:
        """Do the step, which is the same in every call."""
        if not self._warm:
            step()
            self._warm = True
            return
        if self._again is None:
            self._again = self._capture(step)
        self._again()


__all__ = ["Capture", "Replay", "Step", "cuda_graph"]
