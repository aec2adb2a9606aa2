"""What a loss is told of single pairs, targets and exclusions, read block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PairFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class BlockFunction:
    """A function of a user on blocks of pairs, whose results are checked.

    Attributes:
        name: Of the argument, for messages.
        function: From row numbers [r] and column numbers [c], int64, to values [r, c].
        floating: Values are floating, finite and not negative; else bool.
    """

    name: str
    function: PairFunction
    floating: bool = False

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Values [r, c].

        Raises:
            TypeError: The function returned no tensor, or another dtype.
            ValueError: Another shape or device, or (read on a CPU only) a number that is not finite
                and >= 0.
        """
        block = self.function(rows, columns)
        shape, kind = [len(rows), len(columns)], "floating" if self.floating else "bool"
        expected = f"{self.name}: expected a {kind} tensor {shape} of its function"
        if not isinstance(block, Tensor):
            raise TypeError(f"{expected}, got {type(block).__name__}")
        if not (block.is_floating_point() if self.floating else block.dtype == torch.bool):
            raise TypeError(f"{expected}, got dtype {str(block.dtype).removeprefix('torch.')}")
        if list(block.shape) != shape:
            raise ValueError(f"{expected}, got shape {list(block.shape)}")
        if block.device != rows.device:
            raise ValueError(f"{expected} on {rows.device}, got {block.device}")
        if self.floating and block.is_cpu:
            check_shares(self.name, block)
        return block.detach()


def check_shares(name: str, shares: Tensor) -> None:
    """Refuse shares of which one is negative or not finite.

    Args:
        name: Of the argument.
        shares: On a CPU, as they are read.

    Raises:
        ValueError: One is.
    """
    if not shares.numel():
        return
    low, high = (x.item() for x in shares.detach().aminmax())
    if not 0.0 <= low <= high < math.inf:  # both are NaN where a share is
        raise ValueError(f"{name}: expected finite shares >= 0, got {high if low >= 0 else low}")


@dataclass(frozen=True)
class Mirrored:
    """A function on blocks, for the pairs (j, i)."""

    function: PairFunction

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Values [r, c]."""
        return self.function(columns, rows).T


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Targets and exclusions of N queries and M regular keys, those before `Contrast.extra`.

    Attributes:
        targets: The share of each key in a query's target: row numbers of keys [N, P], int64, equal
            shares of those >= 0; bool [N, M], equal shares; floating [N, M], shares as they are; or
            a function whose values are bool or floating. None: there is one positive.
        excluded: bool [N, M], or a function: pairs that take no part in the query's softmax, unless
            the key has a share in the target.
    """

    targets: Tensor | PairFunction | None = None
    excluded: Tensor | PairFunction | None = None

    def mirrored(self) -> Pairwise:
        """The same of the other direction; not for row numbers."""
        return Pairwise(*(_mirrored(x) for x in (self.targets, self.excluded)))

    def given(self) -> tuple[Tensor, ...]:
        """Those that are tensors."""
        return tuple(x for x in (self.targets, self.excluded) if isinstance(x, Tensor))

    def tensors(self) -> tuple[Tensor | None, Tensor | None]:
        """Targets and exclusions as arguments of an operation of torch.

        Raises:
            RuntimeError: One is a function.
        """
        for x in (self.targets, self.excluded):
            if x is not None and not isinstance(x, Tensor):
                function = x.function if isinstance(x, Mirrored) else x
                assert isinstance(function, BlockFunction)
                raise RuntimeError(
                    f"{function.name}: expected a tensor under torch.compile, torch.export, "
                    "torch.func, forward mode, dispatch modes and tensor subclasses, which pass a "
                    "loss its tensors alone, got a function"
                )
        return self.targets, self.excluded  # type: ignore[return-value]

    def target_block(self, rows: slice, columns: slice, device: torch.device) -> Tensor:
        """Values of `targets` for a block of pairs, [r, c]: bool, or floating.

        Row numbers count how often they list a key, int64.
        """
        assert self.targets is not None
        if not (isinstance(self.targets, Tensor) and self.targets.dtype == torch.int64):
            return _block(self.targets, rows, columns, device)
        listed = self.targets[rows]
        # A last column takes the keys outside of the block.
        width = columns.stop - columns.start
        inside = (listed >= columns.start) & (listed < columns.stop)
        at = torch.where(inside, listed - columns.start, width)
        counts = at.new_zeros(at.shape[0], width + 1)
        # Unlike scatter_add_, allowed on every device where torch must be deterministic.
        row = torch.arange(at.shape[0], device=at.device)[:, None].expand_as(at)
        counts.index_put_((row, at), torch.ones_like(at), accumulate=True)
        return counts[:, :width]

    def excluded_block(self, rows: slice, columns: slice, device: torch.device) -> Tensor | None:
        """Which pairs of a block take no part, bool [r, c]; None: there are no exclusions."""
        if self.excluded is None:
            return None
        block = _block(self.excluded, rows, columns, device)
        if self.targets is None:
            return block
        return block & ~(self.target_block(rows, columns, device) > 0)


def _block(
    pairs: Tensor | PairFunction, rows: slice, columns: slice, device: torch.device
) -> Tensor:
    if isinstance(pairs, Tensor):
        return pairs[rows, columns]
    numbers = (torch.arange(x.start, x.stop, device=device) for x in (rows, columns))
    return pairs(*numbers)


def _mirrored(pairs: Tensor | PairFunction | None) -> Tensor | PairFunction | None:
    if pairs is None or isinstance(pairs, Tensor):
        return None if pairs is None else pairs.T
    return pairs.function if isinstance(pairs, Mirrored) else Mirrored(pairs)


__all__ = ["BlockFunction", "Mirrored", "PairFunction", "Pairwise", "check_shares"]
