"""The vectors that span the weights of a modality, and inner products with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.protocol import EngineSpec
from mmcl_fast.engines.variants.layout import Layout


@dataclass(frozen=True)
class SpanVectors:
    """Vectors of one modality in each of R runs.

    Attributes:
        layout: Their order.
        noise: Noise patches, [n, d].
        axes: mu, or mu_1 .. mu_K, then the spurious signal, [axes, d].
        weights: w(0), [m, d].
        views: Noise patches of the views where these carry a gradient, [n, d].
    """

    layout: Layout
    noise: Sequence[Tensor]
    axes: Sequence[Tensor]
    weights: Sequence[Tensor]
    views: Sequence[Tensor] | None

    @classmethod
    def of(cls, spec: EngineSpec, layout: Layout, suffix: str) -> SpanVectors:
        """Those of modality A (suffix ""), B ("_b") or C ("_c")."""
        noise, mu, weights = (held(spec, f"{name}{suffix}") for name in ("noise", "mu", "weights"))
        spurious = held(spec, f"spurious{suffix}") if layout.has_spurious else None
        views = held(spec, "augmented") if layout.trains_views else None
        return cls(layout, noise, stacked_axes(mu, spurious), weights, views)

    def products(self, vectors: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
        """Inner products of k vectors of each run, [k, d], with the columns and with w(0).

        Returns: [R, columns, width] and [R, even(m), width], 0 beyond the k vectors.
        """
        layout, like = self.layout, self.noise[0]
        gram = like.new_zeros(len(self.noise), layout.columns, width)
        start = like.new_zeros(len(self.noise), layout.rows, width)
        # Run by run: no stacked copy of the data, and no result that depends on the batch.
        for r, x in enumerate(vectors):
            parts = [(gram[r], 0, self.noise[r]), (gram[r], layout.width, self.axes[r])]
            if self.views is not None:
                parts.append((gram[r], layout.view_columns_at.start, self.views[r]))
            right = aligned(x).T
            for out, first, rows in (*parts, (start[r], 0, self.weights[r])):
                out[first : first + len(rows), : len(x)] = aligned(rows) @ right
        return gram, start

    def code_products(self, axes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`products` with the codes of axes [axes, d] of each run."""
        gram, start = self.products(axes, self.layout.axes)
        return self.layout.of_codes(gram), self.layout.of_codes(start)


def held(spec: EngineSpec, name: str) -> list[Tensor]:
    """A field of the data of each run, on the engine's device."""
    return [getattr(data, name).to(spec.device) for data in spec.data]


def stacked_axes(mu: Sequence[Tensor], spurious: Sequence[Tensor] | None) -> list[Tensor]:
    """The signals [d] or [K, d] of each run and its spurious signal [d] as rows, [axes, d]."""
    rows = [x if x.ndim == 2 else x.unsqueeze(0) for x in mu]
    if spurious is None:
        return rows
    return [torch.cat([x, s.unsqueeze(0)]) for x, s in zip(rows, spurious, strict=True)]


__all__ = ["SpanVectors", "held", "stacked_axes"]
