"""Names and numbers of the random streams (`docs/stream.md`). Numbers are never reused."""

from __future__ import annotations

from types import MappingProxyType

STREAM_TAGS = MappingProxyType(
    {
        "noise": 1,
        "noise_b": 2,
        "labels": 3,
        "augment": 4,
        "init": 5,
        "init_b": 6,
        "test_noise": 7,
        "test_labels": 8,
        "negatives": 9,
        "minibatch": 10,
        "chi": 11,
        "chi_b": 12,
        "colored_mnist": 13,
        "probe_noise": 14,
        "probe_labels": 15,
        "attributes": 16,
        "test_attributes": 17,
        "probe_attributes": 18,
        "pair_noise": 19,
        "label_noise": 20,
        "view_mask": 21,
        "noise_c": 22,
        "init_c": 23,
        "chi_c": 24,
        "pair_noise_c": 25,
    }
)
# Dimension, within its tile, of the four words of a tile's first block.
WORDS_OF_BLOCK = (0, 64, 128, 192)
MAX_SEED = 2**64 - 1
MAX_EPOCH = 2**24 - 1
MAX_RUN = 2**32 - 1
MAX_SAMPLE = 2**32 - 1
MAX_DIM = 2**34 - 1

__all__ = [
    "MAX_DIM",
    "MAX_EPOCH",
    "MAX_RUN",
    "MAX_SAMPLE",
    "MAX_SEED",
    "STREAM_TAGS",
    "WORDS_OF_BLOCK",
]
