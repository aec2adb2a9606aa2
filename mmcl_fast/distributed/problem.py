"""What one rank brings to a loss of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmcl_fast.losses.contrast import Contrast


@dataclass(frozen=True)
class LocalProblem:
    """This rank's rows, and what a contrast of them does not say.

    Attributes:
        contrast: Of this rank's rows alone. With labels it needs `positive`, so that rows are not
            sorted by label.
        classes: [n] or None: labels of the supervised loss. The positives of a row are all other
            rows of its label, on every rank; those of the contrast then have score 0.
        label_smoothing: The share of the target that all candidates of a query have in equal parts.
    """

    contrast: Contrast
    classes: Tensor | None = None
    label_smoothing: float = 0.0

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


__all__ = ["LocalProblem"]
