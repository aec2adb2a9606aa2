"""The losses as modules."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmcl_fast.losses.backends import check_name
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.pair_validation import Pairs
from mmcl_fast.losses.validation import check_options, check_smoothing, check_temperature


class InfoNCELoss(nn.Module):
    """`info_nce` with its options fixed.

    Args:
        temperature: A number, or a 0-d tensor; an `nn.Parameter` becomes a parameter of the module,
            any other tensor a buffer.
        symmetric: As for `info_nce`, and so are the others.
        negatives: "all" | "other_label".
        exclude_self: Row i of the key is no negative of query i.
        stop_gradient: None | "key".
        label_smoothing: In 0 .. 1.
        reduction: "mean" | "sum" | "none".
        backend: "auto" or a name in `mmcl_fast.losses.backends.BACKENDS`.

    Raises:
        ValueError: An option's value.
        TypeError: An option's kind.

    See: mmcl_fast.losses.info_nce.
    """

    temperature: float | Tensor

    def __init__(  # noqa: PLR0913 - the options of the loss
        self,
        *,
        temperature: float | Tensor = 0.07,
        symmetric: bool = False,
        negatives: Literal["all", "other_label"] = "all",
        exclude_self: bool = False,
        stop_gradient: Literal["key"] | None = None,
        label_smoothing: float = 0.0,
        reduction: Literal["none", "mean", "sum"] = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_options(
            symmetric=symmetric,
            exclude_self=exclude_self,
            negatives=negatives,
            stop_gradient=stop_gradient,
            reduction=reduction,
        )
        check_smoothing(label_smoothing)
        check_temperature(temperature, None)
        if isinstance(temperature, Tensor) and not isinstance(temperature, nn.Parameter):
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = temperature
        self.symmetric = symmetric
        self.negatives: Literal["all", "other_label"] = negatives
        self.exclude_self = exclude_self
        self.label_smoothing = label_smoothing
        self.stop_gradient: Literal["key"] | None = stop_gradient
        self.reduction: Literal["none", "mean", "sum"] = reduction
        self.backend = check_name(backend)

    def forward(  # noqa: PLR0913 - as above
        self,
        query: Tensor,
        key: Tensor,
        *,
        labels: Tensor | None = None,
        key_labels: Tensor | None = None,
        positive: Tensor | None = None,
        positive_mask: Pairs | None = None,
        targets: Pairs | None = None,
        positive_key: Tensor | None = None,
        exclude_mask: Pairs | None = None,
        key_bias: Tensor | None = None,
        extra_negatives: Tensor | None = None,
        hard_negatives: Tensor | None = None,
        hard_negative_counts: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of `query` [N, D] against `key` [M, D]; see `info_nce` for the others."""
        return info_nce(
            query,
            key,
            temperature=self.temperature,
            symmetric=self.symmetric,
            labels=labels,
            key_labels=key_labels,
            negatives=self.negatives,
            exclude_self=self.exclude_self,
            positive=positive,
            positive_mask=positive_mask,
            targets=targets,
            positive_key=positive_key,
            exclude_mask=exclude_mask,
            key_bias=key_bias,
            extra_negatives=extra_negatives,
            hard_negatives=hard_negatives,
            hard_negative_counts=hard_negative_counts,
            stop_gradient=self.stop_gradient,
            label_smoothing=self.label_smoothing,
            weight=weight,
            reduction=self.reduction,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        shown = (
            "temperature",
            "symmetric",
            "negatives",
            "exclude_self",
            "stop_gradient",
            "label_smoothing",
            "reduction",
            "backend",
        )
        return ", ".join(
            f"{name}={value!r}" if not isinstance(value, Tensor) else f"{name}=<tensor>"
            for name in shown
            for value in [getattr(self, name)]
        )


__all__ = ["InfoNCELoss"]
