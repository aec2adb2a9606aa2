"""Features of the samples of a step, as the products of scores and gradients need them.

A feature vector H has m entries for the noise patch and m for each signal patch. The latter depend
on the patch's code alone (`layout`), so H is stored as m activations and one-hot codes e:

    <H_i, K_j> = <act_i, act_j> + e_i^T (T^T T') e_j

with the codes' activations T, T' [m, codes] of queries and keys; blocks of `T^T T'` that pair a
label's code with an attribute's are 0. So a product has
m + codes rows instead of m for each patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.engines.activation import activate
from mmcl_fast.engines.paper_loss.full_scores import Workspace
from mmcl_fast.engines.variants.layout import Layout

MIN_NORM = 1e-12  # of features that a cosine divides by


@dataclass(frozen=True)
class SampleFeatures:
    """Features of one side of a contrast: samples of a modality, or views.

    Attributes:
        rows: Activations of the noise patches, then one-hot codes, both divided by the length of
            the features where similarities are cosines, [R, even(m) + codes, b].
        codes: One-hot codes as they are, [R, codes, b].
        table: T, activations of the codes, [R, even(m), codes].
        inverse_norm: 1 / max(|H|, MIN_NORM), [R, 1, b], or None.
        is_long: Whether |H| >= MIN_NORM, [R, 1, b], or None.
    """

    rows: Tensor
    codes: Tensor
    table: Tensor
    inverse_norm: Tensor | None = None
    is_long: Tensor | None = None

    @property
    def neurons(self) -> int:
        """even(m)."""
        return self.table.shape[1]

    @property
    def noise(self) -> Tensor:
        """Rows of the noise patches, [R, even(m), b]."""
        return self.rows[:, : self.neurons]

    @property
    def code_rows(self) -> Tensor:
        """Rows of the codes, [R, codes, b]."""
        return self.rows[:, self.neurons :]


class FeatureMaker:
    """Features of steps, in memory that is reused.

    Args:
        layout: Of every modality.
        q: Power of the activation.
        is_cosine: Whether features are divided by their lengths.
        workspace: Memory that later steps use again.
    """

    def __init__(self, layout: Layout, q: int, workspace: Workspace, *, is_cosine: bool) -> None:
        self._layout, self._q, self._workspace = layout, q, workspace
        self._is_cosine = is_cosine

    def table(self, name: str, z: Tensor) -> Tensor:
        """T of a modality, from the pre-activations of its codes, [R, even(m), codes]."""
        return activate(z, self._q, self._workspace.empty(name, tuple(z.shape), z))

    def of(self, name: str, z: Tensor, codes: Tensor, table: Tensor) -> SampleFeatures:
        """Features from pre-activations of noise patches [R, even(m), b] and one-hot codes."""
        runs, neurons, count = z.shape
        rows = self._workspace.empty(name, (runs, neurons + self._layout.codes, count), z)
        noise = activate(z, self._q, rows[:, :neurons])
        if not self._is_cosine:
            rows[:, neurons:] = codes
            return SampleFeatures(rows, codes, table)
        squares = noise.square().sum(1)
        squares += (codes * table.square().sum(1).unsqueeze(2)).sum(1)
        norm = squares.sqrt_().unsqueeze(1)
        is_long = norm >= MIN_NORM
        inverse_norm = norm.clamp_min_(MIN_NORM).reciprocal_()
        noise.mul_(inverse_norm)
        torch.mul(codes, inverse_norm, out=rows[:, neurons:])
        return SampleFeatures(rows, codes, table, inverse_norm, is_long)


class CodeProducts:
    """Products of codes' activations, with the blocks of unlike patches 0."""

    def __init__(self, layout: Layout, like: Tensor) -> None:
        self._blocks: Tensor | None = None
        if layout.has_spurious:
            blocks = like.new_zeros(layout.codes, layout.codes)
            blocks[:-2, :-2] = 1.0
            blocks[-2:, -2:] = 1.0
            self._blocks = blocks

    def of(self, left: Tensor, right: Tensor) -> Tensor:
        """`left^T right`, [R, codes, codes], of T's [R, m, codes] or of rows [R, codes, b]."""
        return self.masked(left.mT @ right)

    def masked(self, products: Tensor) -> Tensor:
        """Products [R, codes, codes] with the blocks of unlike patches set to 0, in place."""
        return products if self._blocks is None else products.mul_(self._blocks)


__all__ = ["MIN_NORM", "CodeProducts", "FeatureMaker", "SampleFeatures"]
