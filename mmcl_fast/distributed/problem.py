"""What one rank brings to a loss of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mmcl_fast.losses.contrast import Contrast

INPUTS = ("query", "key", "hard", "temperature", "bias", "extra")


@dataclass(frozen=True)
class LocalProblem:
    """This rank's rows, and what a contrast of them does not say.

    Attributes:
        contrast: Of this rank's rows alone. With labels it needs `positive`, so that rows are not
            sorted by label.
        classes: [n] or None: labels of the supervised loss. The positives of a row are all other
            rows of its label, on every rank; those of the contrast then have score 0.
        label_smoothing: The share of the target that all candidates of a query have in equal parts.
        extra: [K, D] or None: further negatives of every query of the whole batch; K >= 0 may
            differ between ranks.
    """

    contrast: Contrast
    classes: Tensor | None = None
    label_smoothing: float = 0.0
    extra: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor | None]:
        """What may have a gradient, in the order of `INPUTS`."""
        return {name: getattr(self.contrast, name) for name in INPUTS[:-1]} | {"extra": self.extra}

    @property
    def detached(self) -> LocalProblem:
        """The same without their history."""
        given: dict[str, Any] = {
            name: x.detach() for name, x in self.inputs.items() if x is not None
        }
        extra = given.pop("extra", None)
        return replace(self, contrast=replace(self.contrast, **given), extra=extra)

    @property
    def keys(self) -> Tensor:
        """This rank's keys, [n, D]."""
        local = self.contrast
        return local.query if local.key is None else local.key

    @property
    def payload(self) -> tuple[Tensor, ...]:
        """What other ranks need of this one: its keys, and their labels if there are any."""
        if self.classes is not None:
            return self.keys, self.classes
        labels = self.contrast.labels
        return (self.keys,) if labels is None else (self.keys, labels[1])

    def labels(self, payload: tuple[Tensor, ...]) -> tuple[Tensor, Tensor] | None:
        """Of this rank's queries, and of the keys of a payload."""
        if self.classes is not None:
            return self.classes, payload[1]
        labels = self.contrast.labels
        return None if labels is None else (labels[0], payload[1])


__all__ = ["INPUTS", "LocalProblem"]
