"""Supervised contrasts: the mean score of the positives is the score of their mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import ClassCodes, chunks, sum_by_class
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested


@dataclass(frozen=True)
class ClassMeans:
    """The mean of each query's positives, keys of its label.

    Attributes:
        contrast: With `supervised`.
        mean: [N, D], in `Contrast.dtype`; 0 without positives.
        size: [N], float64, the number of positives.
        codes: Of the labels.
        itself: [min(N, M)], float64: 1 where key i has the label of query i and is left out of its
            positives, else 0.
    """

    contrast: Contrast
    mean: Tensor
    size: Tensor
    codes: ClassCodes
    itself: Tensor

    @classmethod
    def of(cls, contrast: Contrast) -> ClassMeans:
        """From a supervised contrast."""
        assert contrast.labels is not None
        codes = ClassCodes.of(*contrast.labels)
        key = contrast.query if contrast.key is None else contrast.key
        n, common = contrast.query.shape[0], min(contrast.query.shape[0], key.shape[0])
        itself = (codes.query[:common] == codes.key[:common]).double() * contrast.exclude_self
        ones = torch.ones(key.shape[0], 1, device=key.device)
        size = sum_by_class(codes.key, ones, codes.number)[codes.query, 0]
        size[:common] -= itself
        sums = sum_by_class(codes.key, key, codes.number)
        mean = torch.empty(n, key.shape[1], dtype=contrast.dtype, device=key.device)
        for part in chunks(contrast.query):
            total = sums[codes.query[part]]
            left_out = key[part][: max(0, common - part.start)].double()
            total[: left_out.shape[0]] -= left_out * itself[part, None]
            mean[part] = (total / size[part, None].clamp(min=1)).to(mean.dtype)
        return cls(contrast, mean, size, codes, itself)

    def base(self) -> Contrast:
        """The contrast with the means as positives."""
        return replace(self.contrast, supervised=False, labels=None, positive_key=self.mean)

    def requested(self, requested: Requested) -> Requested:
        """The request for `base`."""
        keys = requested.query if self.contrast.key is None else requested.key
        return requested._replace(positive_key=keys)

    def weighted(self, rows: Tensor) -> Tensor:
        """Losses or weights of rows [N], where there are positives; else 0."""
        return torch.where(self.size > 0, rows.to(self.mean.dtype), 0.0)

    def onto_keys(self, gradients: Gradients, requested: Requested) -> Gradients:
        """Gradients of `base`, with that of the means on their keys."""
        of_mean = gradients.positive_key
        gradients = gradients._replace(positive_key=None)
        if of_mean is None:
            return gradients
        share = 1 / self.size.clamp(min=1)
        sums = sum_by_class(self.codes.query, of_mean, self.codes.number, share)
        result = gradients.query if self.contrast.key is None else gradients.key
        assert result is not None
        for part in chunks(result):
            addend = sums[self.codes.key[part]]
            left_out = self.itself[part]
            rows = slice(part.start, part.start + left_out.shape[0])
            addend[: left_out.shape[0]] -= of_mean[rows] * (left_out * share[rows])[:, None]
            result[part] += addend.to(result.dtype)
        return gradients


__all__ = ["ClassMeans"]
