"""Pre-activations of one modality in R runs, and the coefficients of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.engines.activation import activate_backward
from mmcl_fast.engines.protocol import Coefficients
from mmcl_fast.engines.variants.columns import SpanVectors
from mmcl_fast.engines.variants.orthogonal import OrthogonalProducts


@dataclass(frozen=True)
class Preactivations:
    """Pre-activations of the samples of a step.

    Attributes:
        noise: <w_r, xi_i>, [R, even(m), b]; b is even, and padding is 0.
        codes: <w_r, code>, [R, even(m), codes].
        views: <w_r, noise patch of the view>, [R, even(m), b], or None.
    """

    noise: Tensor
    codes: Tensor
    views: Tensor | None


@dataclass(frozen=True)
class ModalityGradient:
    """Gradient of a loss with respect to the features of one modality.

    Attributes:
        noise: With respect to act(<w_r, xi_i>), [R, even(m), b].
        codes: With respect to act(<w_r, code>), summed over the patches of a code,
            [R, even(m), codes].
        views: With respect to the view's act(<w_r, noise patch>), or None.
    """

    noise: Tensor
    codes: Tensor
    views: Tensor | None = None


class Modality:
    """Weights of one modality as `w = a w(0) + A columns`, and their inner products.

    Args:
        vectors: The columns and w(0).
        views: Noise patches of the views, or None.
        q: Power of the activation.
        picks_samples: Whether `of_samples` is called: a vector's products then lie side by side.
        is_orthogonal: Whether all vectors stay those that they are and may be orthogonal: products
            with them are then computed entry by entry, if they are.
    """

    def __init__(
        self,
        vectors: SpanVectors,
        views: list[Tensor] | None,
        q: int,
        *,
        picks_samples: bool,
        is_orthogonal: bool,
    ) -> None:
        self.layout, self.vectors, self._q = vectors.layout, vectors, q
        width = self.layout.width
        parts = [vectors.products(vectors.noise, width), vectors.code_products(vectors.axes)]
        if views is not None:
            parts.append(vectors.products(views, width))
        self._gram = torch.cat([gram for gram, _ in parts], dim=2)  # K, [R, columns, Z's columns]
        self._initial = torch.cat([start for _, start in parts], dim=2)  # Z(0)
        self._orthogonal = OrthogonalProducts.of(self.layout, self._gram) if is_orthogonal else None
        if picks_samples:
            self._gram, self._initial = (x.mT.contiguous().mT for x in (self._gram, self._initial))
        shape = *self._initial.shape[:2], self.layout.columns
        self.padded_coefficients = self._initial.new_zeros(shape)  # A
        self.initial_scale = self._initial.new_ones(len(self._initial), 1, 1)  # a
        self.z = self._initial.clone()
        self._gradient = torch.zeros_like(self.padded_coefficients)

    def update(self, *, decayed: bool) -> None:
        """Pre-activations of all vectors at the current coefficients."""
        if self._orthogonal is None:
            self.preactivations(self._gram, self._initial, decayed=decayed, out=self.z)
            return
        self._orthogonal.times(self.padded_coefficients, out=self.z)
        self.z += self._initial * self.initial_scale if decayed else self._initial

    def replace_views(self, views: list[Tensor], *, decayed: bool) -> None:
        """Put other noise patches in place of the views'."""
        here = self.layout.views_at
        gram, start = self.vectors.products(views, self.layout.width)
        self._gram[:, :, here], self._initial[:, :, here] = gram, start
        self.z[:, :, here] = self.preactivations(gram, start, decayed=decayed)

    def preactivations(
        self, gram: Tensor, initial: Tensor, *, decayed: bool, out: Tensor | None = None
    ) -> Tensor:
        """Pre-activations `a Z(0) + A K` of vectors, from their inner products K and Z(0)."""
        start = initial * self.initial_scale if decayed else initial
        return torch.baddbmm(start, self.padded_coefficients, gram, out=out)

    def of_all(self) -> Preactivations:
        """Those of all samples, valid until the next update."""
        layout, z = self.layout, self.z
        views = z[:, :, layout.views_at] if layout.has_views else None
        return Preactivations(z[:, :, : layout.width], z[:, :, layout.codes_at], views)

    def of_samples(self, samples: Tensor, *, decayed: bool) -> Preactivations:
        """Those of some samples at the current coefficients, whatever `z` holds.

        Args:
            samples: Their indices, an even number, [R, b]; n stands for no sample.
            decayed: Whether w(0) shrinks.
        """
        layout, (runs, count) = self.layout, samples.shape
        codes = torch.arange(layout.width, layout.width + layout.codes, device=samples.device)
        picked = [samples, codes.expand(runs, -1)]
        if layout.has_views:
            picked.append(samples + layout.views_at.start)
        of_run = torch.arange(runs, device=samples.device).mul_(layout.preactivations)
        rows = torch.cat(picked, dim=1).add_(of_run.unsqueeze(1)).flatten()
        gram, initial = (
            x.mT.flatten(0, 1).index_select(0, rows).view(runs, -1, x.shape[1]).mT
            for x in (self._gram, self._initial)
        )
        z = self.preactivations(gram, initial, decayed=decayed)
        views = z[:, :, count + layout.codes :] if layout.has_views else None
        return Preactivations(z[:, :, :count], z[:, :, count : count + layout.codes], views)

    def gradient(
        self, found: ModalityGradient, at: Preactivations, samples: Tensor | None
    ) -> Tensor:
        """Gradient with respect to A, of its shape, from that with respect to features.

        Args:
            found: With respect to the features of a step.
            at: Pre-activations of that step.
            samples: Indices of its samples, as for `of_samples`; None: all.
        """
        layout, out, q = self.layout, self._gradient, self._q
        layout.to_axes(activate_backward(found.codes, at.codes, q), out=out[:, :, layout.axes_at])
        sections = [(out[:, :, : layout.width], found.noise, at.noise)]
        if found.views is not None and at.views is not None:
            sections.append((out[:, :, layout.view_columns_at], found.views, at.views))
        for place, gradient, z in sections:
            values = activate_backward(gradient, z, q)
            if samples is None:
                place.copy_(values)
            else:
                # The column n, which padding stands for, receives zeros.
                place.zero_().scatter_(2, samples.unsqueeze(1).expand_as(values), values)
        return out

    def coefficients(self) -> Coefficients:
        """Coefficients of each run without padding."""
        layout = self.layout
        a = self.padded_coefficients[:, : layout.neurons]
        noise, axes, views = (
            a[:, :, at] for at in (slice(layout.samples), layout.axes_at, layout.view_columns_at)
        )
        k = layout.signals
        return Coefficients(
            initial=self.initial_scale[:, 0, 0].clone(),
            mu=(axes[:, :, 0] if layout.classes is None else axes[:, :, :k]).clone(),
            noise=noise.clone(),
            spurious=axes[:, :, k].clone() if layout.has_spurious else None,
            views=views[:, :, : layout.samples].clone() if layout.trains_views else None,
        )


__all__ = ["Modality", "ModalityGradient", "Preactivations"]
