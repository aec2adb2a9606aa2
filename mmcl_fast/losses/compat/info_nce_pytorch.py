"""The call of info-nce-pytorch 0.1.4 (`info_nce.InfoNCE`)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmcl_fast.losses.compat.inputs import check_features, unit_rows
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.validation import check_options, check_temperature


class InfoNCE(nn.Module):
    """`info_nce.InfoNCE`: one-way `info_nce` of normalised rows.

    Differs: float32 result for float16 and bfloat16 features; no N x M logits; `temperature` must
    be > 0; options are checked at once.

    Args:
        temperature: Dimensionless, > 0; a number or a 0-d tensor.
        reduction: "mean" | "sum" | "none".
        negative_mode: "unpaired": `negative_keys` [M, D] are those of all queries. "paired":
            `negative_keys` [N, M, D] are those of one query each.
        backend: As for `mmcl_fast.losses.info_nce`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: An option's value.

    See: mmcl_fast.losses.info_nce.
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        reduction: Literal["none", "mean", "sum"] = "mean",
        negative_mode: Literal["unpaired", "paired"] = "unpaired",
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_temperature(temperature, None)
        check_options(reduction=reduction)
        if negative_mode not in ("unpaired", "paired"):
            raise ValueError(
                f"negative_mode: expected 'unpaired' | 'paired', got {negative_mode!r}"
            )
        self.temperature = temperature
        self.reduction: Literal["none", "mean", "sum"] = reduction
        self.negative_mode = negative_mode
        self.backend = backend

    def forward(
        self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None
    ) -> Tensor:
        """The loss of `query` [N, D] against `positive_key` [N, D]; rows are normalised here.

        Args:
            query: [N, D].
            positive_key: [N, D].
            negative_keys: [M, D], or [N, M, D] if "paired". None: the other positive keys.

        Returns: A scalar, or [N].

        Raises:
            TypeError, ValueError: As for `mmcl_fast.losses.info_nce`.
        """
        check_features("query", query)
        check_features("positive_key", positive_key)
        if len(query) != len(positive_key):
            raise ValueError(
                f"positive_key: expected the {len(query)} rows of query, got {len(positive_key)}"
            )
        query, positive_key = unit_rows(query), unit_rows(positive_key)
        hard = None
        if negative_keys is None:
            key, positive = positive_key, None
        else:
            paired = self.negative_mode == "paired"
            check_features("negative_keys", negative_keys, rank=3 if paired else 2)
            key, positive = unit_rows(negative_keys), positive_key
            if paired:
                key, hard = query.detach()[:0], key
        return info_nce(
            query,
            key,
            positive_key=positive,
            hard_negatives=hard,
            temperature=self.temperature,
            reduction=self.reduction,
            backend=self.backend,
        )


__all__ = ["InfoNCE"]
