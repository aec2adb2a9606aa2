"""Data of several runs, kept as the stacked tensors they were drawn into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, overload

import torch
from torch import Tensor

from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData


class SignalNoiseBatch(Sequence[SignalNoiseData]):
    """Data of R runs in blocks of equal sizes; indexing gives the data of one run, as views.

    Attributes:
        blocks: Data of consecutive runs; each tensor has a leading dimension of runs, [R_k, ...].
    """

    def __init__(self, blocks: Iterable[SignalNoiseData]) -> None:
        self.blocks = tuple(blocks)
        self._runs = [run for block in self.blocks for run in _unstacked(block)]

    @classmethod
    def of(cls, runs: Sequence[SignalNoiseData]) -> SignalNoiseBatch:
        """A batch unchanged, one run as a view, or several separate runs copied into blocks."""
        if isinstance(runs, cls):
            return runs
        return cls(_stacked(list(group)) for _, group in groupby(runs, _shapes))

    @overload
    def __getitem__(self, index: int) -> SignalNoiseData: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SignalNoiseData]: ...
    def __getitem__(self, index: int | slice) -> SignalNoiseData | Sequence[SignalNoiseData]:
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def parts(self) -> Iterator[tuple[slice, SignalNoiseData]]:
        """The blocks, each with the indices of its runs."""
        start = 0
        for block in self.blocks:
            stop = start + len(block.labels)
            yield slice(start, stop), block
            start = stop

    def stacked(self, name: str) -> Tensor:
        """A field whose shape is equal in all runs, [R, ...]; of one block without a copy."""
        fields = [getattr(block, name) for block in self.blocks]
        return fields[0] if len(fields) == 1 else torch.cat(fields)


def _unstacked(block: SignalNoiseData) -> list[SignalNoiseData]:
    runs, fields = len(block.labels), vars(block)
    columns = [[None] * runs if x is None else x.unbind() for x in fields.values()]
    return [
        SignalNoiseData(**dict(zip(fields, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def _stacked(runs: Sequence[SignalNoiseData]) -> SignalNoiseData:
    fields: dict[str, Any] = {}
    for name, first in vars(runs[0]).items():
        if first is None or len(runs) == 1:
            fields[name] = None if first is None else first.unsqueeze(0)
        else:
            fields[name] = torch.stack([getattr(run, name) for run in runs])
    return SignalNoiseData(**fields)


def _shapes(run: SignalNoiseData) -> list[torch.Size | None]:
    return [None if x is None else x.shape for x in vars(run).values()]


__all__ = ["SignalNoiseBatch"]
