"""What a step knows of its samples besides their vectors: codes, negatives, targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.data.signal_noise.discrete import draw_targets
from mmcl_fast.data.signal_noise.synthetic import draw_minibatches
from mmcl_fast.engines.alignment import even
from mmcl_fast.engines.negatives import NegativePool
from mmcl_fast.engines.paper_loss.full_scores import bias_of
from mmcl_fast.engines.protocol import EngineSpec
from mmcl_fast.engines.variants.columns import held
from mmcl_fast.engines.variants.layout import Layout


@dataclass(frozen=True)
class StepSamples:
    """Samples of a step: all, or a minibatch.

    Attributes:
        count: Samples; b is this or one more, which is padding.
        indices: [R, b], n for padding; None: all.
        codes: One-hot codes of modality A's samples, then those of each kind of positives: of the
            views, or of modality B and C, [R, codes, b] each.
        negatives: N(i) of each direction of the loss as a bias of the scores, [R, b, b] each: 0 for
            i itself and its negatives, else -inf; both directions of a pair of modalities lie side
            by side, pairs in the order AB, AC, BC.
        targets: +1 or -1, 0 for padding, [R, b]; with objective logistic alone.
    """

    count: int
    indices: Tensor | None
    codes: tuple[Tensor, ...]
    negatives: tuple[Tensor, ...]
    targets: Tensor | None


class TrainingSamples:
    """The n training samples of R runs, as a whole and in minibatches."""

    def __init__(self, spec: EngineSpec, layout: Layout) -> None:
        self._spec, self._cfg, self._layout = spec, spec.cfg, layout
        own = torch.stack(held(spec, "labels"))
        attributes = torch.stack(held(spec, "attributes")) if layout.has_spurious else None
        self._labels = [own]  # of the samples, and of their positives of each kind
        self._codes = [layout.one_hot(own, attributes, layout.width)]
        for suffix in self._cfg.positive_suffixes:
            labels, partners = self._of_positives(f"positive_labels{suffix}", own), attributes
            if partners is not None:
                partners = self._of_positives(f"positive_attributes{suffix}", partners)
            self._labels.append(labels)
            self._codes.append(layout.one_hot(labels, partners, layout.width))
        self._pool = NegativePool(spec, own, keep=True)
        self._padding = layout.width - layout.samples
        self._targets_epoch: int | None = None
        self._negatives_epoch: int | None = None
        self._targets: Tensor | None = None
        self._negatives: tuple[Tensor, ...] = ()

    def all(self, epoch: int) -> StepSamples:
        """All samples of an epoch."""
        self._draw(epoch)
        return StepSamples(self._cfg.n, None, tuple(self._codes), self._negatives, self._targets)

    def minibatches(self, epoch: int) -> Iterator[StepSamples]:
        """The minibatches of an epoch, those of all runs side by side."""
        self._draw(epoch)
        drawn = [draw_minibatches(cfg, epoch) for cfg in self._spec.configs]
        for parts in zip(*drawn, strict=True):
            indices = torch.stack(parts).to(self._labels[0].device)
            yield self._picked(indices)

    def _picked(self, indices: Tensor) -> StepSamples:
        count = indices.shape[1]
        indices = pad(indices, (0, even(count) - count), value=self._cfg.n)
        along = indices.unsqueeze(1).expand(-1, self._layout.codes, -1)
        return StepSamples(
            count,
            indices,
            tuple(torch.gather(x, 2, along) for x in self._codes),
            self._picked_negatives(indices, count),
            None if self._targets is None else torch.gather(self._targets, 1, indices),
        )

    def _picked_negatives(self, indices: Tensor, count: int) -> tuple[Tensor, ...]:
        """N(i) cut down to a minibatch of `count` samples."""
        cfg, size = self._cfg, indices.shape[1]
        if cfg.objective == "logistic":
            return ()
        if cfg.negatives_per_sample is not None:
            runs = torch.arange(len(indices), device=indices.device)[:, None, None]
            rows, columns = indices.unsqueeze(2), indices.unsqueeze(1)
            return tuple(bias[runs, rows, columns] for bias in self._negatives)
        labels = [x.gather(1, indices[:, :count]) for x in self._labels]
        return self._by_labels(labels, size - count)

    def _of_positives(self, name: str, own: Tensor) -> Tensor:
        """A field of the positives, [R, n]; the samples' own where data do not have it."""
        given = [getattr(data, name) for data in self._spec.data]
        rows = [mine if x is None else x.to(own.device) for x, mine in zip(given, own, strict=True)]
        return torch.stack(rows)

    def _draw(self, epoch: int) -> None:
        cfg = self._cfg
        if cfg.objective == "logistic":
            draw = epoch if cfg.label_noise_draw == "per_epoch" else 0
            if self._targets_epoch != draw:
                self._targets, self._targets_epoch = self._draw_targets(draw), draw
            return
        draw = epoch if cfg.negatives_draw == "per_epoch" else 0
        if self._negatives_epoch != draw:
            self._negatives, self._negatives_epoch = self._draw_negatives(draw), draw

    def _draw_targets(self, epoch: int) -> Tensor:
        if epoch == 0:
            targets = torch.stack(held(self._spec, "targets"))
        else:
            drawn = [
                draw_targets(cfg, data.labels, epoch)
                for cfg, data in zip(self._spec.configs, self._spec.data, strict=True)
            ]
            targets = torch.stack(drawn).to(self._labels[0])
        return pad(targets, (0, self._padding))

    def _draw_negatives(self, epoch: int) -> tuple[Tensor, ...]:
        if self._cfg.negatives_per_sample is None:
            return self._by_labels(self._labels, self._padding)
        return self._biases([self._pool.mask(epoch)], self._padding)

    def _by_labels(self, labels: Sequence[Tensor], padding: int) -> tuple[Tensor, ...]:
        """N(i) of samples and positives of each kind with labels [R, k]."""
        own = labels[0]
        if self._cfg.negatives == "all":
            mask = torch.ones(1, 1, 1, dtype=torch.bool, device=own.device)
            mask = mask.expand(1, own.shape[1], own.shape[1])
            return tuple(x.expand(len(own), -1, -1) for x in self._biases([mask], padding))
        if not (self._cfg.is_multi and self._cfg.pair_noise):
            return self._biases([own.unsqueeze(2) != own.unsqueeze(1)], padding)
        masks = []
        for x, y in combinations(labels, 2):
            mask = x.unsqueeze(2) != y.unsqueeze(1)
            masks += [mask, mask.mT]
        return self._biases(masks, padding)

    def _biases(self, masks: Sequence[Tensor], padding: int) -> tuple[Tensor, ...]:
        """Biases of each direction from masks, one for all or one of each, with padding."""
        edge, modalities = (0, padding, 0, padding), len(self._cfg.modalities)
        found = tuple(bias_of(pad(mask, edge), 0, self._labels[0].dtype) for mask in masks)
        directions = modalities * (modalities - 1) if self._cfg.is_multi else 1
        return found * (directions // len(found))


__all__ = ["StepSamples", "TrainingSamples"]
