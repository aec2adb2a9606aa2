"""The calls of lightly 1.6 (`lightly.loss`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from mmcl_fast.losses.compat.inputs import check_features, unit_rows
from mmcl_fast.losses.compat.world_size import require_one_process, world_size
from mmcl_fast.losses.family import dcl, nt_xent
from mmcl_fast.losses.validation import check_temperature


class NTXentLoss(nn.Module):
    """`lightly.loss.NTXentLoss` of one process and without a memory bank: `nt_xent`.

    Differs: float32 result for float16 and bfloat16 features; the four N x N blocks are not stored;
    `temperature` must be > 0.

    Args:
        temperature: Dimensionless, > 0.
        memory_bank_size: 0.
        gather_distributed: Whether several processes would share their views; with one process
            nothing changes.
        backend: As for `nt_xent`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: Its range, or a memory bank.

    See: mmcl_fast.losses.nt_xent.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_temperature(temperature, None)
        if memory_bank_size not in (0, (0,), [0]):
            raise ValueError(
                f"memory_bank_size: expected 0, got {memory_bank_size}: keep the bank [K, D] "
                "yourself and call info_nce(out0, bank, positive_key=out1)"
            )
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.backend = backend

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The mean loss of two views [B, D], which are normalised here.

        Raises:
            TypeError, ValueError: As for `nt_xent`; several processes with `gather_distributed`.
        """
        views = _views(out0, out1, gather=self.gather_distributed)
        return nt_xent(*views, temperature=self.temperature, backend=self.backend)


class DCLLoss(nn.Module):
    """`lightly.loss.DCLLoss` of one process: `dcl`.

    Differs: float32 result for float16 and bfloat16 features; the four N x N blocks are not stored;
    a single pair has loss 0 (lightly: -inf).

    Args:
        temperature: Dimensionless, > 0.
        weight_fn: Weights [B] of the positives from the two normalised views, called once for
            either order; `DCLWLoss` is lightly's with its `negative_mises_fisher_weights`.
        gather_distributed: Whether several processes would share their views; with one process
            nothing changes.
        backend: As for `dcl`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: Its range.

    See: mmcl_fast.losses.dcl.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_temperature(temperature, None)
        self.temperature = temperature
        self.weight_fn = weight_fn
        self.gather_distributed = gather_distributed
        self.backend = backend

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The mean loss of two views [B, D], which are normalised here.

        Raises:
            TypeError, ValueError: As for `dcl`; several processes with `gather_distributed`.
        """
        first, second = _views(out0, out1, gather=self.gather_distributed)
        loss = dcl(first, second, temperature=self.temperature, backend=self.backend)
        if self.weight_fn is None:
            return loss
        # A weight w multiplies the positive's score, which `dcl` has subtracted once.
        weight = (self.weight_fn(first, second) + self.weight_fn(second, first)) / 2
        positive = (first.to(loss.dtype) * second.to(loss.dtype)).sum(dim=1) / self.temperature
        return loss + ((1 - weight) * positive).mean()


def _views(out0: Tensor, out1: Tensor, *, gather: bool) -> tuple[Tensor, Tensor]:
    if gather:
        require_one_process("gather_distributed", "False", processes=world_size())
    check_features("out0", out0)
    check_features("out1", out1)
    return unit_rows(out0), unit_rows(out1)


__all__ = ["DCLLoss", "NTXentLoss"]
