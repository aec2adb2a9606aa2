"""Order of vectors: of the columns that span a modality's weights, and of its pre-activations.

Span: noise patches, axes (mu or mu_1 .. mu_K, then the spurious signal), noise patches of the views
where these carry a gradient. Pre-activations: noise patches, codes, noise patches of the views.
Codes are the vectors that signal patches take: mu and -mu, or mu_1 .. mu_K, then the spurious
signal and its negative. A section has an even width (`engines.alignment`); its padding is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.alignment import even


@dataclass(frozen=True)
class Layout:
    """Sizes of one modality of a run, and the places of its vectors.

    Attributes:
        samples: n.
        neurons: m.
        classes: K, or None: labels +1 and -1.
        has_spurious: Whether samples have a patch of a spurious attribute.
        has_views: Whether there are augmented views.
        trains_views: Whether the views' noise patches are columns.
        width: Columns of a section of noise patches: even, >= n.
    """

    samples: int
    neurons: int
    classes: int | None
    has_spurious: bool
    has_views: bool
    trains_views: bool
    width: int

    @classmethod
    def of(cls, cfg: TrainConfig) -> Layout:
        """The layout of each modality of a config."""
        is_contrastive = cfg.objective == "contrastive"
        # Minibatches are padded by reference to column n, which then is 0.
        spare = 1 if cfg.optimizer == "sgd" else 0
        return cls(
            samples=cfg.n,
            neurons=cfg.m,
            classes=cfg.classes,
            has_spurious=cfg.has_spurious,
            has_views=is_contrastive and not cfg.is_multi,
            trains_views=cfg.trains_keys and not cfg.is_multi,
            width=even(cfg.n + spare),
        )

    @property
    def rows(self) -> int:
        """Neurons with padding."""
        return even(self.neurons)

    @property
    def signals(self) -> int:
        """Number of mu's."""
        return self.classes or 1

    @property
    def signal_codes(self) -> int:
        """Codes of the label's patch, with padding."""
        return even(self.classes or 2)

    @property
    def codes(self) -> int:
        """Codes, with padding: those of the label, then those of the attribute."""
        return self.signal_codes + 2 * self.has_spurious

    @property
    def axes(self) -> int:
        """Columns of axes, with padding."""
        return even(self.signals + self.has_spurious)

    @property
    def columns(self) -> int:
        """Columns that span the weights, with padding."""
        return self.width * (1 + self.trains_views) + self.axes

    @property
    def axes_at(self) -> slice:
        """Axes among the columns."""
        return slice(self.width, self.width + self.axes)

    @property
    def view_columns_at(self) -> slice:
        """The views' noise patches among the columns."""
        return slice(self.width + self.axes, self.columns)

    @property
    def preactivations(self) -> int:
        """Pre-activations of a neuron, with padding."""
        return self.width * (1 + self.has_views) + self.codes

    @property
    def codes_at(self) -> slice:
        """Codes among the pre-activations."""
        return slice(self.width, self.width + self.codes)

    @property
    def views_at(self) -> slice:
        """The views' noise patches among the pre-activations."""
        return slice(self.width + self.codes, self.preactivations)

    def of_codes(self, products: Tensor) -> Tensor:
        """Products with each code [..., codes] from those with each axis [..., axes]."""
        codes = products.new_zeros(*products.shape[:-1], self.codes)
        k = self.signals
        codes[..., :k] = products[..., :k]
        if self.classes is None:
            torch.neg(products[..., 0], out=codes[..., 1])
        if self.has_spurious:
            codes[..., -2] = products[..., k]
            torch.neg(products[..., k], out=codes[..., -1])
        return codes

    def to_axes(self, gradients: Tensor, out: Tensor) -> None:
        """Gradients by axis [..., axes], written to `out`, from those by code [..., codes]."""
        k = self.signals
        if self.classes is None:
            torch.sub(gradients[..., 0], gradients[..., 1], out=out[..., 0])
        else:
            out[..., :k] = gradients[..., :k]
        if self.has_spurious:
            torch.sub(gradients[..., -2], gradients[..., -1], out=out[..., k])

    def one_hot(self, labels: Tensor, attributes: Tensor | None, width: int) -> Tensor:
        """Which codes the signal patches of samples are, [R, codes, width], of the labels' dtype.

        Args:
            labels: Of k <= width samples, [R, k].
            attributes: Their spurious attributes, [R, k], or None.
            width: Columns of the result, even.
        """
        runs, k = labels.shape
        found = labels.new_zeros(runs, self.codes, width)
        for code, value in enumerate(range(self.classes) if self.classes else (1, -1)):
            found[:, code, :k] = labels == value
        if attributes is not None:
            found[:, -2, :k] = attributes > 0
            found[:, -1, :k] = attributes < 0
        return found


__all__ = ["Layout"]
