"""Size limits of the kernels for whole runs, readable without Triton."""

from __future__ import annotations

# A run uses one multiprocessor. Beyond these sizes few runs fit into the L2 cache together, and
# products that fill the GPU are faster, one run after the other. Not yet measured.
MAX_SAMPLES, MAX_NEURONS = 256, 128

__all__ = ["MAX_NEURONS", "MAX_SAMPLES"]
