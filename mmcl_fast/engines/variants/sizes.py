"""Sizes of a run of the engine of variants: of its products, and of its memory."""

from __future__ import annotations

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.alignment import even
from mmcl_fast.engines.variants.layout import Layout


def is_variant_in_span(cfg: TrainConfig) -> bool:
    """Whether engine gram trains a config by `VariantGramEngine`.

    That is also the paper's model with minibatches.
    """
    return cfg.is_variant or cfg.optimizer == "sgd"


def leaves_span(cfg: TrainConfig) -> bool:
    """Whether weights leave the span of held data: by Adam, or fresh views that carry gradients."""
    return cfg.optimizer == "adam" or (cfg.trains_keys and cfg.augment == "per_epoch")


def able_engine(cfg: TrainConfig) -> str:
    """An engine that can train a model variant: gram in the span, else reference."""
    return "reference" if leaves_span(cfg) else "gram"


def span_sizes(cfg: TrainConfig) -> tuple[int, int]:
    """Columns that span the weights of a modality, and vectors whose pre-activations are computed.

    Also of the paper's model; a vector and its negative count once, and padding is not counted.
    """
    layout = Layout.of(cfg)
    return (
        cfg.n * (1 + layout.trains_views) + cfg.axes,
        cfg.n * (1 + layout.has_views) + cfg.axes,
    )


def cached_elements(cfg: TrainConfig) -> int:
    """Numbers that a step of a run reads or writes more than once, about."""
    layout, sides = Layout.of(cfg), len(cfg.modalities)
    count = even(cfg.batch_size or cfg.n)
    scores = 2 * count**2 if cfg.objective == "contrastive" else 0
    vectors = count * (1 + layout.has_views) + layout.codes
    return sides * (layout.columns + 2 * layout.rows) * vectors + scores


def variant_elements(cfg: TrainConfig) -> int:
    """Numbers that a run holds at the most, besides its data."""
    layout, sides = Layout.of(cfg), len(cfg.modalities)
    products = (layout.columns + layout.rows) * layout.preactivations
    states = layout.rows * (2 * layout.columns + layout.preactivations)
    if cfg.optimizer == "momentum":
        states += layout.rows * layout.columns
    directions = sides * (sides - 1) if cfg.is_multi and cfg.pair_noise else 1
    scores = directions * layout.width**2 if cfg.objective == "contrastive" else 0
    held = sides * (products + states) + scores + 2 * layout.codes * layout.width
    # Sections of the products are joined before the first step.
    return held + max(products, _step_elements(cfg, layout))


def _step_elements(cfg: TrainConfig, layout: Layout) -> int:
    """Numbers of the intermediate results of a step of a run."""
    rows = (layout.rows + layout.codes) * layout.width  # with minibatches, too: see the engine
    if cfg.objective == "logistic":
        return 4 * rows
    # Features of samples and positives, keys, gradients, and two more in the last operations.
    features = max(2, len(cfg.modalities))
    gradients = 2 if cfg.is_multi or cfg.trains_keys else 1
    if features > 2:  # of three modalities, and a second of each
        gradients = 2 * features
    scores = 2 + (cfg.is_multi or cfg.trains_keys)
    return (3 + features + gradients) * rows + scores * layout.width**2


__all__ = [
    "able_engine",
    "cached_elements",
    "is_variant_in_span",
    "leaves_span",
    "span_sizes",
    "variant_elements",
]
