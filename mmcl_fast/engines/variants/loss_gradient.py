"""The gradient of a loss of variants with respect to features, summed over pairs of modalities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.variants.modality import ModalityGradient


@dataclass(frozen=True)
class LossGradient:
    """Gradient of the mean loss, divided by `weight`.

    Attributes:
        modalities: With respect to the features of each modality.
        weight: A number, or of each run, [R, 1, 1].
        log_inverse_tau: dL/dt, not divided, [R]; None where tau is fixed.
    """

    modalities: tuple[ModalityGradient, ...]
    weight: float | Tensor
    log_inverse_tau: Tensor | None = None


class GradientSum:
    """The gradient of the loss with respect to features and tau: a sum over pairs of sides.

    Args:
        cfg: Settings of the runs.
        sides: Samples and views, or modalities: their number.
    """

    def __init__(self, cfg: TrainConfig, sides: int) -> None:
        self._cfg = cfg
        self._found: list[tuple[Tensor, Tensor] | None] = [None] * sides
        self._products: Tensor | None = None

    def buffer_of(self, side: int) -> str:
        """Name of the memory for a gradient of a side; what `add` was given first is kept."""
        return f"gradient_{side}" if self._found[side] is None else f"gradient_more_{side}"

    def add(self, side: int, noise: Tensor, codes: Tensor, products: Tensor | None) -> None:
        """Add the gradient of a pair with respect to one of its sides; `noise` is kept."""
        before = self._found[side]
        if before is None:
            self._found[side] = noise, codes
        else:
            before[0].add_(noise)
            before[1].add_(codes)
        if products is not None:
            total = products.sum(1)
            self._products = total if self._products is None else self._products + total

    def gradient(self, scale: float | Tensor, count: int) -> LossGradient:
        """The gradient of the mean loss of `count` samples."""
        found = [x for x in self._found if x is not None]
        if self._cfg.is_multi:
            modalities = tuple(ModalityGradient(*x) for x in found)
        else:
            (noise, codes), *of_view = found
            for _, more in of_view:
                codes += more
            views = of_view[0][0] if of_view else None
            modalities = (ModalityGradient(noise, codes, views),)
        of_tau = None
        if self._cfg.eta_tau is not None and self._products is not None:
            assert not isinstance(scale, float)
            # Where keys are trained every score is in the products of both its sides.
            of_tau = self._products * (scale[:, 0, 0] / (count * (1 + self._cfg.trains_keys)))
        return LossGradient(modalities, scale / count, of_tau)


__all__ = ["GradientSum", "LossGradient"]
