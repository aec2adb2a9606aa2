"""The negatives N(i) of R runs, as a bias added to the scores of `full_scores.one_pass`."""

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
from mmcl_fast.engines.protocol import EngineSpec


class NegativePool:
    """Negatives of each run, drawn once or in every epoch.

    Args:
        spec: The runs.
        labels: y on the device, [R, n].
        keep: Store the bias of "all of the other label" instead of computing it chunk by chunk.
        padding: Rows and columns of a stored bias beyond the samples, negatives of none.
    """

    def __init__(self, spec: EngineSpec, labels: Tensor, *, keep: bool, padding: int = 0) -> None:
        self._spec = spec
        self._labels = labels
        self._keep, self._padding = keep, padding
        self._fixed: Negatives | None = None
        self._last_mask: tuple[int, Tensor] | None = None

    def at(self, epoch: int) -> Negatives:
        """Negatives of an epoch."""
        cfg = self._spec.cfg
        if cfg.negatives_per_sample is None or cfg.negatives_draw == "fixed":
            if self._fixed is None:
                self._fixed = self._draw(0)
            return self._fixed
        return self._draw(epoch)

    def mask(self, epoch: int) -> Tensor:
        """Negatives as a bool mask, [R, n, n]; all minibatches of an epoch share one draw."""
        epoch_drawn = epoch if self._spec.cfg.negatives_draw == "per_epoch" else 0
        if self._last_mask is None or self._last_mask[0] != epoch_drawn:
            self._last_mask = epoch_drawn, self._draw_mask(epoch_drawn)
        return self._last_mask[1]

    def _draw_mask(self, epoch: int) -> Tensor:
        negatives = self._labels[:, :, None] != self._labels[:, None, :]
        for k, (cfg, data) in enumerate(zip(self._spec.configs, self._spec.data, strict=True)):
            if (drawn := draw_negatives(cfg, data.labels, epoch)) is not None:
                negatives[k] = drawn.to(negatives.device)
        return negatives

    def _draw(self, epoch: int) -> Negatives:
        if self._spec.cfg.negatives_per_sample is None and not self._keep:
            return OtherLabel(self._labels)
        mask = pad(self.mask(epoch), (0, self._padding, 0, self._padding))
        return ListedNegatives(bias_of(mask, 0, self._labels.dtype))


__all__ = ["NegativePool"]
