"""N(i) of R runs as the bias that the one-pass loss adds to its scores."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.data.signal_noise.synthetic import draw_negatives
from mmcl_fast.engines.paper_loss.full_scores import (
    ListedNegatives,
    Negatives,
    OtherLabel,
    bias_of,
)
from mmcl_fast.engines.protocol import Spec


class NegativePool:
    """The negatives of every run, drawn once or anew each epoch.

    Args:
        spec: The runs.
        labels: y on the device, [R, n].
        keep: Hold the bias of "all of the other label" instead of making it chunk by chunk.
        padding: Rows and columns of a held bias beyond the samples: they are nobody's negatives.
    """

    def __init__(self, spec: Spec, labels: Tensor, *, keep: bool, padding: int = 0) -> None:
        self._spec = spec
        self._labels = labels
        self._keep, self._padding = keep, padding
        self._fixed: Negatives | None = None
        self._drawn: tuple[int, Tensor] | None = None

    def at(self, epoch: int) -> Negatives:
        """Negatives of an epoch."""
        cfg = self._spec.cfg
        if cfg.negatives_per_sample is None or cfg.negatives_draw == "fixed":
            if self._fixed is None:
                self._fixed = self._draw(0)
            return self._fixed
        return self._draw(epoch)

    def chosen(self, epoch: int) -> Tensor:
        """Negatives as a bool mask, [R, n, n]; drawn once for all minibatches of an epoch."""
        drawn_at = epoch if self._spec.cfg.negatives_draw == "per_epoch" else 0
        if self._drawn is None or self._drawn[0] != drawn_at:
            self._drawn = drawn_at, self._draw_mask(drawn_at)
        return self._drawn[1]

    def _draw_mask(self, epoch: int) -> Tensor:
        other = self._labels[:, :, None] != self._labels[:, None, :]
        for k, (cfg, data) in enumerate(zip(self._spec.configs, self._spec.data, strict=True)):
            if (drawn := draw_negatives(cfg, data.labels, epoch)) is not None:
                other[k] = drawn.to(other.device)
        return other

    def _draw(self, epoch: int) -> Negatives:
        if self._spec.cfg.negatives_per_sample is None and not self._keep:
            return OtherLabel(self._labels)
        chosen = pad(self.chosen(epoch), (0, self._padding, 0, self._padding))
        return ListedNegatives(bias_of(chosen, 0, self._labels.dtype))


__all__ = ["NegativePool"]
