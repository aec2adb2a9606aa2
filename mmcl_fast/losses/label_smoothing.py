"""Label smoothing in closed form: the mean score of all candidates from sums of keys.

Cross-entropy with a share e of the target spread over the candidates, the positive and the
negatives, is plain cross-entropy plus e times

    r_i = s_i+ - mean of the candidates' scores = <q_i, k_i+ - mean of the candidates> / temperature

whose gradients need the sums over all keys and over those of a label: O((N + M) D).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import (
    ClassCodes,
    add_rows,
    chunks,
    scaled_rows,
    sum_by_class,
)
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested


def smoothing_losses(contrast: Contrast) -> Tensor:
    """The addends of the row losses, [N], in `Contrast.dtype`."""
    losses = [side.losses() for side in _sides(contrast)]
    return (sum(losses[1:], losses[0]) / len(losses)).to(contrast.dtype)


def smoothing_gradients(contrast: Contrast, requested: Requested, upstream: Tensor) -> Gradients:
    """Gradients of sum_i upstream_i times the addends, in `Contrast.dtype`; upstream [N]."""
    sides = _sides(contrast)
    upstream = upstream.double() / len(sides)
    of_rows = requested
    if contrast.key is None and not contrast.stopped:
        of_rows = requested._replace(key=requested.query)
    elif contrast.stopped:
        of_rows = requested._replace(key=False)
    result = sides[0].gradients(of_rows, upstream)
    if contrast.key is None and result.query is not None and result.key is not None:
        return result._replace(query=result.query.add_(result.key), key=None)
    if contrast.symmetric:
        mirrored = requested._replace(query=requested.key, key=requested.query)
        if contrast.stopped:
            mirrored = mirrored._replace(key=False)
        other = sides[1].gradients(mirrored, upstream)
        swapped = other._replace(query=other.key, key=other.query)
        return result.plus(swapped)
    return result


def _sides(contrast: Contrast) -> list[_Direction]:
    key = contrast.query if contrast.key is None else contrast.key
    rows = _Direction.of(replace(contrast, key=key), key)
    if not contrast.symmetric:
        return [rows]
    labels = contrast.labels and contrast.labels[::-1]
    mirrored = replace(contrast, query=key, key=contrast.query, labels=labels)
    return [rows, _Direction.of(mirrored, contrast.query)]


@dataclass(frozen=True)
class _Direction:
    """Queries against keys.

    Attributes:
        contrast: With this direction's query and labels.
        key: [M, D].
        key_sum: [D], float64.
        codes: Of the labels, or None.
        class_sum: [classes, D], float64, or None without labels.
        positive: [N], the row of `key` that is the positive, or None.
        positive_counts: [N], float64: 1 where that row would be counted among the negatives.
        itself_counts: The same for row i, left out of the negatives of query i.
        number: [N], float64, of candidates.
    """

    contrast: Contrast
    key: Tensor
    key_sum: Tensor
    codes: ClassCodes | None
    class_sum: Tensor | None
    positive: Tensor | None
    positive_counts: Tensor
    itself_counts: Tensor
    number: Tensor

    @classmethod
    def of(cls, contrast: Contrast, key: Tensor) -> _Direction:
        n, m = contrast.query.shape[0], key.shape[0]
        rows = torch.arange(n, device=key.device)
        key_sum = key.new_zeros(key.shape[1], dtype=torch.float64)
        for part in chunks(key):
            key_sum += key[part].sum(dim=0, dtype=torch.float64)
        zeros = key.new_zeros(n, dtype=torch.float64)
        number, codes, class_sum = zeros + (m + 1), None, None
        if contrast.labels is not None:
            codes = ClassCodes.of(*contrast.labels)
            labelled = key[: codes.key.shape[0]]
            class_sum = sum_by_class(codes.key, labelled, codes.number)
            ones = torch.ones(labelled.shape[0], 1, device=key.device)
            number -= sum_by_class(codes.key, ones, codes.number)[codes.query, 0]

        def counted(at: Tensor) -> Tensor:
            if codes is None:
                return torch.ones_like(zeros)
            return (codes.query != codes.key[at]).double()

        positive, positive_counts, itself_counts = None, zeros, zeros
        if contrast.positive_key is None:
            positive = rows if contrast.positive is None else contrast.positive
            positive_counts = counted(positive)
        if contrast.exclude_self and m > contrast.extra:
            inside = rows < m - contrast.extra
            if positive is not None:
                inside = inside & (positive != rows)
            itself_counts = counted(rows.clamp(max=m - contrast.extra - 1)) * inside
        number = number - positive_counts - itself_counts
        if contrast.hard is not None:
            padding = contrast.hard_padding()
            number += contrast.hard.shape[1]
            if padding is not None:
                number -= padding.sum(dim=1)
        return cls(
            contrast, key, key_sum, codes, class_sum, positive, positive_counts, itself_counts,
            number,
        )  # fmt: skip

    def losses(self) -> Tensor:
        """[N], float64."""
        losses = torch.empty_like(self.number)
        for part in chunks(self.contrast.query):
            query = self.contrast.query[part].double()
            losses[part] = torch.linalg.vecdot(query, self._difference(part))
        return losses * (self.contrast.smoothing / self.contrast.temperature.double())

    def gradients(self, requested: Requested, upstream: Tensor) -> Gradients:
        """Of sum_i upstream_i losses_i; key, positive_key and hard as this direction has them."""
        contrast, query = self.contrast, self.contrast.query
        weight = upstream * (contrast.smoothing / contrast.temperature.double())
        of_query = None
        if requested.query:
            of_query = torch.empty(query.shape, dtype=contrast.dtype, device=query.device)
            for part in chunks(query):
                of_query[part] = self._difference(part) * weight[part, None]
        each = weight / self.number  # of one candidate
        of_positive_key = of_hard = of_temperature = None
        if requested.positive_key and contrast.positive_key is not None:
            of_positive_key = self._times_query(weight - each)
        if requested.hard and contrast.hard is not None:
            of_hard = self._times_query(-each)[:, None].expand(contrast.hard.shape)
            padding = contrast.hard_padding()
            if padding is not None:
                of_hard = of_hard.masked_fill(padding[:, :, None], 0.0)
        if requested.temperature:
            of_temperature = -upstream * self.losses() / contrast.temperature.double()
            of_temperature = of_temperature.to(contrast.dtype)
        return Gradients(
            query=of_query,
            key=self._of_key(weight, each) if requested.key else None,
            positive_key=of_positive_key,
            hard=of_hard,
            temperature=of_temperature,
        )

    def _times_query(self, factor: Tensor) -> Tensor:
        return factor[:, None].to(self.contrast.dtype) * self.contrast.query

    def _difference(self, part: slice) -> Tensor:
        """The positives minus the means of the candidates, [c, D], float64."""
        contrast, rows = self.contrast, range(*part.indices(self.number.shape[0]))
        sums = self.key_sum.expand(len(rows), -1)
        if self.codes is not None and self.class_sum is not None:
            sums = sums - self.class_sum[self.codes.query[part]]
        if self.positive is None:
            assert contrast.positive_key is not None
            positive = contrast.positive_key[part].double()
        else:
            positive = self.key[self.positive[part]].double()
            sums = sums - self.positive_counts[part, None] * positive
        if contrast.exclude_self:
            itself = self.key[part].double()
            sums = sums.clone()
            sums[: itself.shape[0]] -= self.itself_counts[part, None][: itself.shape[0]] * itself
        if contrast.hard is not None:
            sums = sums + contrast.hard[part].sum(dim=1, dtype=torch.float64)
        # Without negatives the cancelled sum has rounding errors.
        sums = torch.where(self.number[part, None] > 1, sums, 0.0)
        return positive - (sums + positive) / self.number[part, None]

    def _of_key(self, weight: Tensor, each: Tensor) -> Tensor:
        """The keys' gradient, [M, D]."""
        query, key = self.contrast.query, self.key
        total = key.new_zeros(key.shape[1], dtype=torch.float64)
        for part in chunks(query):
            total += scaled_rows(query, part, each).sum(dim=0)
        result = torch.empty(key.shape, dtype=self.contrast.dtype, device=key.device)
        result.copy_(-total)
        if self.codes is not None:
            codes = self.codes
            same = sum_by_class(codes.query, query, codes.number, each)
            for part in chunks(result[: codes.key.shape[0]]):
                result[part] += same[codes.key[part]].to(result.dtype)
        if self.positive is not None:
            back = weight - each + self.positive_counts * each
            for part in chunks(query):
                addend = scaled_rows(query, part, back).to(result.dtype)
                add_rows(result, self.positive[part], addend)
        if self.contrast.exclude_self:
            rows = slice(0, min(query.shape[0], key.shape[0]))
            result[rows] += self._times_query(self.itself_counts * each)[rows]
        return result


__all__ = ["smoothing_gradients", "smoothing_losses"]
