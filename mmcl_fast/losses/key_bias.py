"""A bias of each key, as one more coordinate of the features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.losses.contrast import compute_dtype

Others = tuple[Tensor | None, Tensor | None, Tensor | None]


def with_key_bias(
    query: Tensor,
    key: Tensor,
    key_bias: Tensor,
    temperature: Tensor,
    others: Others,
) -> tuple[Tensor, Tensor, Others]:
    """Features whose scores at temperature 1 are those at T with the biases of the keys added.

    <[q_i / T, 1], [k_j, b_j]> = <q_i, k_j> / T + b_j

    The temperature is in the query alone: where scores are divided by it, as biased ones are not,
    its gradient would be a small difference of two large ones. It stays where that of the key
    stops.

    Args:
        query: [N, D].
        key: [M, D].
        key_bias: [M].
        temperature: 0-d.
        others: Features without a bias, [..., D], or None.

    Returns: Queries and keys in the compute dtype, as the biases are not to be rounded to half
        precision, and the others likewise.
    """
    dtype = compute_dtype(query)
    # One tensor in both places is widened once, so that its gradient is rounded once.
    wide_query = query.to(dtype)
    wide_key = wide_query if key is query else key.to(dtype)
    scaled = wide_query / temperature.to(dtype)
    query = torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1)
    key = torch.cat([wide_key, key_bias.to(dtype)[:, None]], dim=1)
    first, second, third = (None if x is None else pad(x.to(dtype), (0, 1)) for x in others)
    return query, key, (first, second, third)


__all__ = ["with_key_bias"]
