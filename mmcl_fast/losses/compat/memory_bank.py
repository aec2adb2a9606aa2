"""The memory bank of lightly 1.6 (`lightly.models.modules.memory_bank.MemoryBankModule`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from mmcl_fast.losses.compat.world_size import world_size


class MemoryBankModule(nn.Module):
    """The latest rows of earlier batches, kept as negatives: lightly's call and behaviour.

    The bank starts as random unit rows. A batch overwrites the oldest rows; one that reaches the
    end of the bank is cut there, and the next begins at row 0. Rows are kept in float32, in
    buffers that are not in the `state_dict`.

    Args:
        size: (rows, features), or 0 for no bank.
        gather_distributed: The rows of all processes enter the bank, in the order of ranks; each
            brings as many.
        feature_dim_first: The bank is given as [features, rows], not as [rows, features].

    Raises:
        ValueError: A negative size, or rows without the number of features.

    See: He et al. 2020 (MoCo).
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self,
        size: int | Sequence[int],
        gather_distributed: bool = False,
        feature_dim_first: bool = True,
    ) -> None:
        super().__init__()
        sizes = check_bank_size("size", size)
        self.size = sizes
        self.gather_distributed = gather_distributed
        self.feature_dim_first = feature_dim_first
        rows = normalize(torch.randn(sizes), dim=-1) if len(sizes) == 2 else torch.empty(0)
        self.register_buffer("bank", rows, persistent=False)
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long), persistent=False)

    def forward(
        self, output: Tensor, labels: Tensor | None = None, update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`output` and the bank as it was before this batch; None without a bank.

        Args:
            output: [B, D].
            labels: Without effect.
            update: Whether `output` enters the bank.

        Raises:
            ValueError: `output` has another number of features than the bank.
        """
        if self.size[0] == 0:
            return output, None
        if output.dim() != 2 or output.shape[1] != self.size[1]:
            raise ValueError(
                f"output: expected [rows, {self.size[1]}], the features of the bank, "
                f"got shape {list(output.shape)}"
            )
        before = self.bank.clone()
        if update:
            self._enqueue(output.detach())
        return output, before.T if self.feature_dim_first else before

    @torch.no_grad()
    def _enqueue(self, batch: Tensor) -> None:
        if self.gather_distributed and world_size() > 1:
            parts = [torch.empty_like(batch) for _ in range(world_size())]
            distributed.all_gather(parts, batch.contiguous())
            batch = torch.cat(parts)
        start = int(self.bank_ptr)
        room = self.size[0] - start
        self.bank[start : start + len(batch)] = batch[:room]
        self.bank_ptr.fill_(start + len(batch) if len(batch) < room else 0)

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        shown = ("size", "gather_distributed", "feature_dim_first")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


def check_bank_size(name: str, size: int | Sequence[int]) -> tuple[int, ...]:
    """(0,) or (rows, features).

    Raises:
        ValueError: Neither 0 nor two sizes >= 0.
    """
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if any(count < 0 for count in sizes) or (sizes != (0,) and len(sizes) != 2):
        raise ValueError(f"{name}: expected 0 or (rows, features), both >= 0, got {size!r}")
    return sizes


__all__ = ["MemoryBankModule", "check_bank_size"]
