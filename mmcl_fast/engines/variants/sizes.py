"""Sizes of a run of the engine of variants: of its products, and of its memory."""

from __future__ import annotations

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.variants.layout import Layout


def is_variant_in_span(cfg: TrainConfig) -> bool:
    """Whether engine gram trains a config by `VariantGramEngine`.

    That is also the paper's model with minibatches.
    """
    return cfg.is_variant or cfg.optimizer == "sgd"


def span_sizes(cfg: TrainConfig) -> tuple[int, int]:
    """Columns that span the weights of a modality, and vectors whose pre-activations are computed.

    Also of the paper's model; a vector and its negative count once, and padding is not counted.
    """
    layout = Layout.of(cfg)
    return (
        cfg.n * (1 + layout.trains_views) + cfg.axes,
        cfg.n * (1 + layout.has_views) + cfg.axes,
    )


def stored_elements(cfg: TrainConfig) -> int:
    """Numbers that a run holds besides its data: inner products, state, negatives."""
    layout, sides = Layout.of(cfg), 1 + cfg.is_multi
    # Inner products with columns and w(0), twice while their sections are joined.
    products = 2 * (layout.columns + layout.rows) * layout.preactivations
    states = layout.rows * (3 * layout.columns + layout.preactivations)
    directions = 2 if cfg.is_multi and cfg.pair_noise else 1
    scores = directions * layout.width**2 if cfg.objective == "contrastive" else 0
    return sides * (products + states) + scores + 2 * layout.codes * layout.width


def step_elements(cfg: TrainConfig) -> int:
    """Numbers of the intermediate results of a step of a run."""
    layout = Layout.of(cfg)
    count = layout.width  # with minibatches, too: the loss of all samples is computed
    sides = 2 if cfg.objective == "contrastive" else 1
    rows = (3 * sides + 2) * (layout.rows + layout.codes) * count
    if cfg.objective == "logistic":
        return rows
    return rows + (2 + cfg.is_multi + cfg.trains_keys) * count**2


__all__ = ["is_variant_in_span", "span_sizes", "step_elements", "stored_elements"]
