"""Inner products of the vectors of a modality, by the native core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch

Floats = npt.NDArray[np.float32]
OrderedRows = tuple[Floats, Sequence[int] | None]  # and their order

ProductJob = tuple[list[Floats], list[OrderedRows], list[OrderedRows], int]


@dataclass(frozen=True)
class Span:
    """Columns that span the weights of a modality beside w(0): noise patches, signals, views.

    Attributes:
        suffix: Of the data's fields: "", "_b" or "_c".
        with_views: Whether views have pre-activations.
        with_view_columns: Whether they are columns.
    """

    suffix: str
    with_views: bool
    with_view_columns: bool

    def vectors(self, cfg: TrainConfig) -> int:
        """Vectors with pre-activations."""
        return cfg.n + cfg.axes + cfg.n * self.with_views

    def columns(self, cfg: TrainConfig) -> int:
        """Columns."""
        return cfg.n + cfg.axes + cfg.n * self.with_view_columns


def spans_of(cfg: TrainConfig) -> list[Span]:
    """The span of each modality."""
    views = not cfg.is_multi and cfg.objective == "contrastive"
    return [Span(suffix, views, views and cfg.trains_keys) for suffix in cfg.suffixes]


def project(
    cfg: TrainConfig, batch: SignalNoiseBatch, span: Span, orders: Tensor
) -> tuple[Tensor, Tensor]:
    """Inner products of the vectors of a modality with its columns and with w(0).

    Args:
        cfg: Settings that the runs share.
        batch: Their data.
        span: The modality.
        orders: Order of the samples, [R, n].

    Returns: K [R, columns, vectors] and Z(0) [R, m, vectors].
    """
    runs, columns, vectors = len(batch), span.columns(cfg), span.vectors(cfg)
    gram, z = torch.empty(runs, columns, vectors), torch.empty(runs, cfg.m, vectors)
    parts = _span_rows(cfg, batch, span, orders)
    views = rows_of(batch, "augmented") if span.with_views else None
    weights = rows_of(batch, f"weights{span.suffix}")
    jobs: list[ProductJob] = []
    for r, order in enumerate(orders.tolist()):
        vector_rows = list(parts[r])
        if views is not None and not span.with_view_columns:
            vector_rows.append((views[r], order))
        left: list[OrderedRows] = [*parts[r], (weights[r], None)]
        jobs.append(([gram[r].numpy(), z[r].numpy()], left, vector_rows, columns))
    _native.inner_products(jobs, threads=torch.get_num_threads())
    return gram, z


def project_ood(
    cfg: TrainConfig, batch: SignalNoiseBatch, span: Span, orders: Tensor, name: str
) -> tuple[Tensor, Tensor]:
    """Inner products of OOD noise patches and signals with modality A's columns and w(0).

    Returns: [R, columns, count + axes] and [R, m, count + axes].
    """
    noise, nu = rows_of(batch, f"{name}_noise"), rows_of(batch, "nu")
    spurious = rows_of(batch, "spurious") if cfg.has_spurious else None
    count = noise[0].shape[0]
    gram = torch.empty(len(batch), span.columns(cfg), count + cfg.axes)
    start = torch.empty(len(batch), cfg.m, count + cfg.axes)
    parts, weights = _span_rows(cfg, batch, span, orders), rows_of(batch, "weights")
    jobs: list[ProductJob] = []
    for r in range(len(batch)):
        vectors: list[OrderedRows] = [(noise[r], None), (nu[r], None)]
        if spurious is not None:
            vectors.append((spurious[r], None))
        out = [gram[r].numpy(), start[r].numpy()]
        jobs.append((out, [*parts[r], (weights[r], None)], vectors, 0))
    _native.inner_products(jobs, threads=torch.get_num_threads())
    return gram, start


def rows_of(batch: SignalNoiseBatch, name: str) -> list[Floats]:
    """A field of each run: a matrix, or a vector as one row."""
    rows: list[Floats] = []
    for block in batch.blocks:
        # One array of all runs: a view of a tensor costs ten times that of an array.
        field = getattr(block, name).contiguous().numpy()
        rows += list(field if field.ndim == 3 else field[:, None])
    return rows


def orthogonal_products(
    cfg: TrainConfig, gram: Tensor, span: Span
) -> tuple[Floats, Floats, npt.NDArray[np.int32]] | None:
    """What is not 0 of the inner products of orthogonal data; None if anything else is not 0.

    Args:
        cfg: Settings that the runs share.
        gram: K, [R, columns, vectors].
        span: The modality.

    Returns: squared norms [R, vectors] (0 of views that are no columns); products of each view with
        the noise patch that is part of it [R, n]; the number of that patch [R, n].
    """
    n, runs = cfg.n, len(gram)
    columns, vectors, views = span.columns(cfg), span.vectors(cfg), n + cfg.axes
    squares = gram.new_zeros(runs, vectors)
    squares[:, :columns] = gram.diagonal(dim1=1, dim2=2)
    with_view = gram.new_zeros(runs, n)
    partner = torch.arange(n).expand(runs, n).contiguous()
    others = gram.clone()
    others.diagonal(dim1=1, dim2=2).zero_()
    if span.with_views:
        block = gram[:, :n, views:]
        found = block.abs().argmax(1)
        if block.any():  # view_scale 0 leaves no product
            partner = found
        with_view = block.gather(1, partner.unsqueeze(1)).squeeze(1)
        others[:, :n, views:].scatter_(1, partner.unsqueeze(1), 0.0)
        if span.with_view_columns:
            others[:, views:, :n].scatter_(2, partner.unsqueeze(2), 0.0)
    if others.any() or not torch.equal(partner.sort(1).values, torch.arange(n).expand(runs, n)):
        return None
    return squares.numpy(), with_view.numpy(), partner.int().numpy()


def _span_rows(
    cfg: TrainConfig, batch: SignalNoiseBatch, span: Span, orders: Tensor
) -> list[list[OrderedRows]]:
    """The columns of each run."""
    noise, mu = rows_of(batch, f"noise{span.suffix}"), rows_of(batch, f"mu{span.suffix}")
    spurious = rows_of(batch, f"spurious{span.suffix}") if cfg.has_spurious else None
    views = rows_of(batch, "augmented") if span.with_view_columns else None
    found = []
    for r, order in enumerate(orders.tolist()):
        rows: list[OrderedRows] = [(noise[r], order), (mu[r], None)]
        if spurious is not None:
            rows.append((spurious[r], None))
        if views is not None:
            rows.append((views[r], order))
        found.append(rows)
    return found


__all__ = ["Floats", "Span", "orthogonal_products", "project", "project_ood", "rows_of", "spans_of"]
