"""The calls of info-nce-pytorch 0.1.4 (`info_nce.InfoNCE`, `info_nce.info_nce`)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmcl_fast.losses import contrastive
from mmcl_fast.losses.compat.inputs import check_features, check_like, check_pairs
from mmcl_fast.losses.compat.module import LossModule, keep_temperature, without_axes
from mmcl_fast.losses.unit_rows import unit_rows
from mmcl_fast.losses.validation import check_options

Reduction = Literal["none", "mean", "sum"]
NegativeMode = Literal["unpaired", "paired"]


def info_nce(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
    negative_mode: NegativeMode = "unpaired",
    *,
    backend: str = "auto",
) -> Tensor:
    """`info_nce.info_nce`: one-way InfoNCE of rows that are normalised here.

    It is another function than `mmcl_fast.losses.info_nce`, whose second argument are the keys and
    which normalises nothing: the same two-argument call gives another number there.

    Differs: float32 result for float16 and bfloat16 features; no N x M logits; `temperature` must
    be > 0.

    Args:
        query: [N, D].
        positive_key: [N, D], same device and, but for autocast, dtype.
        negative_keys: [M, D], or [N, M, D] if "paired". None: the other positive keys.
        temperature: Dimensionless, > 0; a number or a tensor of one element.
        reduction: "mean" | "sum" | "none".
        negative_mode: "unpaired": `negative_keys` [M, D] are those of all queries. "paired":
            `negative_keys` [N, M, D] are those of one query each.
        backend: As for `mmcl_fast.losses.info_nce`.

    Returns: A scalar, or [N].

    Raises:
        TypeError, ValueError: As for `mmcl_fast.losses.info_nce`; an unknown `negative_mode`.

    See: mmcl_fast.losses.info_nce.
    """
    _check_mode(negative_mode)
    check_features("query", query)
    check_features("positive_key", positive_key)
    check_pairs("positive_key", positive_key, "query", query)
    paired = negative_mode == "paired"
    if negative_keys is not None:
        check_features("negative_keys", negative_keys, rank=3 if paired else 2)
        check_like("negative_keys", negative_keys, "query", query)
        if paired and negative_keys.shape[0] != query.shape[0]:
            raise ValueError(
                f"negative_keys: expected the {query.shape[0]} rows of query with "
                f'negative_mode="paired", got {negative_keys.shape[0]}'
            )
        negative_keys = unit_rows(negative_keys)
    query, positive_key = unit_rows(query), unit_rows(positive_key)
    key, positive, hard = positive_key, None, None
    if negative_keys is not None:
        positive = positive_key
        key, hard = (query.detach()[:0], negative_keys) if paired else (negative_keys, None)
    return contrastive.info_nce(
        query,
        key,
        positive_key=positive,
        hard_negatives=hard,
        temperature=without_axes(temperature),
        reduction=reduction,
        backend=backend,
    )


class InfoNCE(LossModule):
    """`info_nce.InfoNCE`: `info_nce` of this module with its options fixed.

    Options are checked at once.

    Args:
        temperature: As for `info_nce`. An `nn.Parameter` becomes a parameter of the module, any
            other tensor a buffer that is not in its `state_dict`.
        reduction: As for `info_nce`, and so are the others.
        negative_mode: "unpaired" | "paired".
        backend: As for `mmcl_fast.losses.info_nce`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: An option's value.

    See: mmcl_fast.losses.info_nce.
    """

    shown = ("temperature", "reduction", "negative_mode", "backend")

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        reduction: Reduction = "mean",
        negative_mode: NegativeMode = "unpaired",
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        keep_temperature(self, temperature)
        check_options(reduction=reduction)
        _check_mode(negative_mode)
        self.reduction: Reduction = reduction
        self.negative_mode: NegativeMode = negative_mode
        self.backend = backend

    def forward(
        self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None
    ) -> Tensor:
        """The loss of `query` [N, D] against `positive_key` [N, D]; see `info_nce`."""
        return info_nce(
            query,
            positive_key,
            negative_keys,
            self.temperature,
            self.reduction,
            self.negative_mode,
            backend=self.backend,
        )


def _check_mode(negative_mode: object) -> None:
    if negative_mode not in ("unpaired", "paired"):
        raise ValueError(f"negative_mode: expected 'unpaired' | 'paired', got {negative_mode!r}")


__all__ = ["InfoNCE", "info_nce"]
