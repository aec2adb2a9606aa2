"""Which way of computing takes a contrast: by the length of its features."""

from __future__ import annotations

from mmcl_fast.kernels._tiles import arch_of, fused_features
from mmcl_fast.kernels.contrast_statistics import KERNEL
from mmcl_fast.triton_impl.chunked import Chunked
from mmcl_fast.triton_impl.empty import Empty
from mmcl_fast.triton_impl.fused import Fused
from mmcl_fast.triton_impl.work import Engine, Work


def engine_of(work: Work) -> Engine:
    """The engine of a contrast: a function of its sizes, dtype and device."""
    if not len(work.query) or not len(work.key):
        return Empty()
    arch = arch_of(KERNEL, work.query)
    if work.query.shape[1] <= fused_features(arch, work.query.element_size()):
        return Fused()
    return Chunked()


__all__ = ["engine_of"]
