"""Which implementation engine gram takes: that of the paper's model, or the one of its variants."""

from __future__ import annotations

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import data_bytes
from mmcl_fast.engines import gram
from mmcl_fast.engines.gram_cuda_graph import gram_engine
from mmcl_fast.engines.protocol import Engine, EngineSpec
from mmcl_fast.engines.variants.engine import VariantGramEngine
from mmcl_fast.engines.variants.sizes import cached_elements, is_variant_in_span


def span_engine(spec: EngineSpec) -> Engine:
    """The engine of a batch in coefficient space."""
    return VariantGramEngine(spec) if is_variant_in_span(spec.cfg) else gram_engine(spec)


def why_not(cfg: TrainConfig) -> str | None:
    """Why a config cannot be trained exactly in coefficient space, or None."""
    if cfg.optimizer == "adam":
        able = "reference" if cfg.is_variant else "primal"
        return f"optimizer adam rescales coordinates and leaves the span of the data; use {able}"
    if cfg.data == "streamed":
        return "data streamed: no vectors are held to take inner products of; use primal"
    if cfg.trains_keys and cfg.augment == "per_epoch":
        return (
            "stop_gradient none with augment per_epoch: every epoch's views are further columns; "
            "use reference"
        )
    return None


def max_runs(cfg: TrainConfig) -> int:
    """Runs of one batch: as many as keep the state of a step in the cache of a core."""
    if not is_variant_in_span(cfg):
        return gram.max_runs(cfg)
    in_cache = gram.CACHE_ELEMENTS // cached_elements(cfg)
    return max(1, min(64, in_cache, gram.BATCH_DATA_BYTES // data_bytes(cfg)))


__all__ = ["max_runs", "span_engine", "why_not"]
