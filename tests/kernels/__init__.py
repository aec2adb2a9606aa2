"""Tests of the Triton kernels, in three lanes: interpreter, ahead-of-time compilation, GPU."""
