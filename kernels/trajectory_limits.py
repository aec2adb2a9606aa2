"""Sizes that the kernels of whole runs take; free of Triton, for those who only ask."""

from __future__ import annotations

# A run has one multiprocessor. Beyond these sizes few runs fit side by side into the L2 cache, and
# products that fill the GPU by themselves are quicker one run after the other. Not yet measured.
MAX_SAMPLES, MAX_NEURONS = 256, 128

__all__ = ["MAX_NEURONS", "MAX_SAMPLES"]
