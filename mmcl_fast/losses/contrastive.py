"""The public InfoNCE loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.backends import Problem, resolve
from mmcl_fast.losses.validation import (
    check_labels,
    check_options,
    check_temperature,
    check_tensors,
)


def info_nce(  # noqa: PLR0913 - users expect these arguments here
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = False,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    negatives: Literal["all", "other_label"] = "all",
    positive_key: Tensor | None = None,
    stop_gradient: Literal["key"] | None = None,
    reduction: Literal["none", "mean", "sum"] = "mean",
    backend: str = "auto",
) -> Tensor:
    """InfoNCE of N queries against M keys, without storing the N x M scores.

    loss_i = -log( e^{s_i+} / (e^{s_i+} + sum_{j in N(i)} e^{s_ij}) )
    s_ij = <q_i, k_j> / temperature

    Equations (6) and (9) of the paper, whose similarity is <H, K> / m:

        info_nce(h, h, positive_key=h_aug, labels=y, negatives="other_label",
                 stop_gradient="key", temperature=m * tau)
        2 * info_nce(h, g, symmetric=True, labels=y, negatives="other_label",
                     stop_gradient="key", temperature=m * tau)

    Args:
        query: [N, D], float16 | bfloat16 | float32 | float64, any strides. Nothing is normalised.
        key: [M, D], same dtype and device. Row i is the positive of query i (so M >= N), unless
            `positive_key` is given.
        temperature: Dimensionless, > 0. A 0-d floating tensor on the device of `query` receives a
            gradient. A tensor on a CPU is checked for its value; one on another device is not read,
            as that would wait for the device: if it is not positive the loss is without meaning.
        symmetric: Half the sum of both directions, query to key and key to query. Needs M = N and
            no `positive_key`.
        labels: [N], integer, bool or floating: the label of each query. Used by "other_label" only.
        key_labels: [M], same dtype: the label of each key. `labels` where not given, if M = N.
        negatives: "all": every row of `key` but the positive; with `positive_key`, every row of
            `key`. "other_label": those of them whose label differs from the query's.
        positive_key: [N, D], same dtype and device; row i is the positive of query i.
        stop_gradient: "key": no gradient reaches whichever tensor plays the key in a direction, nor
            `positive_key`. None: all gradients.
        reduction: "mean" over the N queries (N >= 1: the mean of nothing is refused), "sum", or
            "none" for [N] (if `symmetric`, entry i is the mean of the two directions' row i).
        backend: "auto" or a name in `mmcl_fast.backends.BACKENDS`; a name never falls back.

    Returns: A scalar, or [N]; float32, or float64 for float64 input. A query without negatives has
        loss 0 and no gradient.

    Raises:
        ValueError: Sizes, values or combinations; the message names argument, expected and got.
        TypeError: Kinds and dtypes.
        BackendUnavailableError: The named backend cannot run this; the message says why.

    Numerics: Scores and sums in float32 (float64 for float64 input) under autocast too; safe at any
        temperature. Same bits on every run. It can be differentiated once. Tests:
        tests/losses/test_info_nce.py.

    Cost: `mmcl_fast.torch_impl.info_nce` has the table; O((N + M) * D) memory.

    See: mmcl_fast.reference.info_nce (meaning).
    """
    check_options(
        symmetric=symmetric, negatives=negatives, stop_gradient=stop_gradient, reduction=reduction
    )
    check_tensors(query, key, positive_key, symmetric=symmetric, reduction=reduction)
    check_temperature(temperature, query.device)
    pair = check_labels(query, key, labels, key_labels, negatives=negatives)
    problem = Problem(len(query), len(key), query.shape[1], query.dtype, query.device)
    implementation = resolve(backend, problem)
    if not isinstance(temperature, Tensor):
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        temperature = torch.full((), float(temperature), dtype=dtype, device=query.device)
    mode: Literal["one_way", "symmetric", "symmetric_stopped"] = "one_way"
    if symmetric:
        mode = "symmetric" if stop_gradient is None else "symmetric_stopped"
    elif stop_gradient == "key":
        key = key.detach()
        positive_key = None if positive_key is None else positive_key.detach()
    return implementation.info_nce_op(query, key, positive_key, temperature, pair, mode, reduction)


__all__ = ["info_nce"]
