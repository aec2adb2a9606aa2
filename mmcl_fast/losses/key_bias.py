"""A bias of each key, as one more coordinate of the features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

Others = tuple[Tensor | None, Tensor | None, Tensor | None]


def with_key_bias(
    query: Tensor,
    key: Tensor,
    key_bias: Tensor,
    temperature: Tensor,
    others: Others,
) -> tuple[Tensor, Tensor, Others]:
    """Features whose scores have the biases of the keys added.

    <[q_i, T], [k_j, b_j]> / T = <q_i, k_j> / T + b_j

    The temperature is in the query, whose gradient it therefore has where that of the key stops.

    Args:
        query: [N, D].
        key: [M, D].
        key_bias: [M].
        temperature: 0-d.
        others: Features without a bias, [..., D], or None.

    Returns: Queries and keys in the compute dtype, as the biases are not to be rounded to half
        precision, and the others likewise.
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    last = temperature.to(dtype).expand(query.shape[0], 1)
    query = torch.cat([query.to(dtype), last], dim=1)
    key = torch.cat([key.to(dtype), key_bias.to(dtype)[:, None]], dim=1)
    first, second, third = (None if x is None else pad(x.to(dtype), (0, 1)) for x in others)
    return query, key, (first, second, third)


__all__ = ["with_key_bias"]
