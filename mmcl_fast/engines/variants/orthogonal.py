"""Products with K where the vectors of a modality are orthogonal, entry by entry.

K then holds squared norms on its diagonal and, of each view, its product with the noise patch that
is part of it; all else is 0. `A K` takes O(m v) operations instead of 2 m c v.

Numerics: an entry is a product, or a sum of two, rounded after each operation; so it depends
neither on the batch nor on its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.engines.variants.layout import Layout


@dataclass(frozen=True)
class OrthogonalProducts:
    """What is not 0 of K in R runs.

    Attributes:
        layout: Order of the vectors.
        noise: |xi_i|^2, [R, 1, width].
        axes: Squared norms of the axes, [R, 1, axes].
        with_view: <xi_p, view_i> with p = patch_i, [R, 1, width]; None without views.
        views: |view_i|^2 where views are columns, [R, 1, width], or None.
        patch: The noise patch that is part of each view, a permutation, [R, 1, width]; None: i.
        view: Its inverse: the view that each noise patch is part of, or None.
    """

    layout: Layout
    noise: Tensor
    axes: Tensor
    with_view: Tensor | None = None
    views: Tensor | None = None
    patch: Tensor | None = None
    view: Tensor | None = None

    @classmethod
    def of(cls, layout: Layout, gram: Tensor) -> OrthogonalProducts | None:
        """Of K, [R, columns, preactivations]; None if anything else of it is not 0."""
        width, k = layout.width, layout.signals
        axes = gram.new_zeros(len(gram), 1, layout.axes)
        axes[:, :, :k] = _diagonal(gram[:, width : width + k, width : width + k])
        if layout.has_spurious:
            axes[:, :, k] = gram[:, width + k, layout.codes_at][:, -2:-1]
        found = cls(layout, _diagonal(gram[:, :width, :width]), axes)
        if layout.has_views:
            of_views = gram[:, :width, layout.views_at]
            own = torch.arange(width, device=gram.device).expand(len(gram), 1, width)
            patch = own.clone()
            if of_views.any():  # view_scale 0 leaves no product
                patch[:, 0, : layout.samples] = of_views.abs().argmax(1)[:, : layout.samples]
            if not torch.equal(patch.sort(2).values, own):
                return None
            is_own = torch.equal(patch, own)
            found = cls(
                layout,
                found.noise,
                axes,
                of_views.gather(1, patch),
                _diagonal(gram[:, layout.view_columns_at, layout.views_at])
                if layout.trains_views
                else None,
                None if is_own else patch,
                None if is_own else patch.argsort(2),
            )
        # A = I gives K back if the rest is 0: products with 1 and 0 are exact.
        one = torch.eye(layout.columns, dtype=gram.dtype, device=gram.device)
        again = found.times(one.expand(len(gram), -1, -1), torch.empty_like(gram))
        return found if torch.equal(again, gram) else None

    def times(self, coefficients: Tensor, out: Tensor) -> Tensor:
        """`A K`, [R, m, preactivations], from A [R, m, columns], written to `out`."""
        layout, width = self.layout, self.layout.width
        of_noise = coefficients[:, :, :width]
        torch.mul(of_noise, self.noise, out=out[:, :, :width])
        out[:, :, layout.codes_at] = layout.of_codes(coefficients[:, :, layout.axes_at] * self.axes)
        if self.with_view is None:
            return out
        to_view = out[:, :, layout.views_at]
        torch.mul(_picked(of_noise, self.patch), self.with_view, out=to_view)
        if self.views is not None:
            of_views = coefficients[:, :, layout.view_columns_at]
            to_view += of_views * self.views
            out[:, :, :width] += _picked(of_views * self.with_view, self.view)
        return out


def _diagonal(block: Tensor) -> Tensor:
    """Diagonals of square blocks [R, k, k], [R, 1, k]."""
    return block.diagonal(dim1=1, dim2=2).unsqueeze(1).clone()


def _picked(rows: Tensor, order: Tensor | None) -> Tensor:
    """Columns of [R, m, width] in an order [R, 1, width]; None: as they are."""
    return rows if order is None else rows.gather(2, order.expand_as(rows))


__all__ = ["OrthogonalProducts"]
